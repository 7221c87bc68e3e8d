"""What Lava owes the reference and the kernel, on networks that hypothesis draws.

A start of Lava takes as long as several small networks. So all networks are drawn first and run in few processes; then
hypothesis draws the same ones once more, and each is handed to the comparison with its run. Only where that finds a
difference does Lava run one network at a time: those that hypothesis tries on its way to the smallest one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from hypothesis import HealthCheck, Phase, given, settings
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import IntegerConv, IntegerDense
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.kernel.counts import RunCounts
from neurodeploy.simulate.observe import Trace
from neurodeploy.targets.lava_run import LavaJob, LavaRun
from tests.random_graphs import Case, cases

NETWORKS = 66
"""Different networks that are run."""

EXAMPLES = 120
"""Networks that are drawn: some of them are the same."""

BATCH = 17
"""Networks of one Lava process."""

Runner = Callable[[Sequence[LavaJob]], Sequence[LavaRun]]


class Equality:
    """One run of the comparison.

    Attributes:
        drawn: The networks that are compared.
        tally: What was compared.
        differs: The network that a difference was found in last: in the end the smallest one.
    """

    def __init__(self, runner: Runner, networks: int = NETWORKS, examples: int = EXAMPLES) -> None:
        self.drawn: dict[str, Case] = {}
        self.tally: Counter[str] = Counter()
        self.differs: Case | None = None
        self._runner, self._networks = runner, networks
        self._runs: dict[str, LavaRun] = {}
        self._compared: set[str] = set()
        self._drawing, self._failed = True, False

        # one function for both passes: hypothesis derives what it draws from the function
        @settings(
            max_examples=examples,
            phases=(Phase.generate, Phase.shrink),
            derandomize=True,
            deadline=None,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        )
        @given(case=cases())
        def every(case: Case) -> None:
            self._one(case)

        self._every = every

    def draw(self) -> list[Case]:
        """The networks; nothing is run."""
        self._drawing = True
        self._every()
        return list(self.drawn.values())

    def compare(self) -> None:
        """Draws, runs and compares.

        Raises:
            AssertionError: Something differs; hypothesis shows the smallest network that it found.
        """
        if not self.drawn:
            self.draw()
        waiting = list(self.drawn.items())
        for first in range(0, len(waiting), BATCH):
            batch = waiting[first : first + BATCH]
            try:
                runs = self._runner([job(case) for _, case in batch])
            except UserError:
                continue  # they are run one by one, and hypothesis finds the one that it lies at
            self._runs.update((key, run) for (key, _), run in zip(batch, runs, strict=True))
        self._drawing = False
        self._every()

    def _one(self, case: Case) -> None:
        key = case.key()
        if self._drawing:
            if len(self.drawn) < self._networks:
                self.drawn.setdefault(key, case)
            return
        if not self._failed and (key not in self.drawn or key in self._compared):
            return
        self._compared.add(key)
        try:
            if key not in self._runs:
                (self._runs[key],) = self._runner([job(case)])
                self.tally["run alone"] += 1
            found = self._compare(case, self._runs[key], Counter() if self._failed else self.tally)
            if found:
                raise AssertionError("; ".join(found))
        except Exception:
            self._failed, self.differs = True, case
            raise

    def _compare(self, case: Case, have: LavaRun, tally: Counter[str]) -> list[str]:
        tally.update(traits(case))
        found = differing(case, have, tally)
        if kernel.declines(case.net, case.codes[0]) is None:
            tally["in the kernel too"] += 1
            found += kernel_differing(case, have)
        tally["networks that differ"] += bool(found)
        return found


def job(case: Case) -> LavaJob:
    """What Lava is to run."""
    return LavaJob(case.net, case.codes, case.form)


def traits(case: Case) -> list[str]:
    """What a network counts as."""
    convs, lifs = case.nodes(IntegerConv), case.lifs
    return ["networks", *(name for name, holds in {
        f"as {case.form}": True,
        "with strides": any(node.stride != (1, 1) for node in convs),
        "with dilation": any(node.dilation != (1, 1) for node in convs),
        "with groups": any(node.groups > 1 for node in convs),
        "with sum edges": len(case.net.edges) >= len(case.net.nodes),
        "with biases": any(node.bias.any() for node in lifs),
        "with leaks": any(np.any(np.asarray(node.v_decay) < 4096) for node in lifs),
        "with currents that fade": any(np.any(np.asarray(node.i_decay) < 4096) for node in lifs),
        "with levels": case.levels > 1,
        "with dense layers": bool(case.nodes(IntegerDense)),
        "with resets between images": len(case.codes) > 1,
    }.items() if holds)]  # fmt: skip


def channels(values: NDArray[Any]) -> NDArray[Any]:
    """(T, D, C, h, w) with the populations as channels."""
    return values.reshape(len(values), -1, *values.shape[-2:])


def differing(case: Case, have: LavaRun, tally: Counter[str]) -> list[str]:
    """What differs between Lava and the reference; counts what was compared."""
    wrong = []
    for image, codes in enumerate(case.codes):
        trace = Trace(case.net.host.steps)
        output = reference.run(case.net, codes, observer=trace)
        pairs: dict[str, tuple[Any, Any]] = {"output": (have.output[image], output)}
        for name, layer in trace.layers.items():
            tally["neuron steps"] += layer.fired.size
            tally["spikes"] += int(layer.fired.sum())
            pairs[f"spikes of {name}"] = (have.spikes[name][image], channels(layer.fired))
            pairs[f"u of {name}"] = (have.u[name][image], np.tile(layer.u, (1, layer.v.shape[1], 1, 1)))
            pairs[f"v of {name}"] = (have.v[name][image], channels(layer.v))
        if image == 0:
            tally["neurons"] += sum(layer.fired[0].size for layer in trace.layers.values())
        tally["steps"] += case.net.host.steps
        for what, (lavas, ours) in pairs.items():
            tally["values"] += ours.size
            if lavas.shape != ours.shape or not np.array_equal(lavas, ours):
                wrong.append(f"{what}, image {image}")
    return wrong


class Counts:
    """Keeps the kernel's counts of every layer, (T, C, h, w)."""

    takes_counts = True
    keeps_values = True

    def __init__(self) -> None:
        self.layers: dict[str, NDArray[Any]] = {}

    def codes(self, **_: Any) -> None:
        """Not looked at."""

    def layer(self, **_: Any) -> None:
        raise AssertionError("the kernel shows counts")

    def run_counts(self, *, counts: RunCounts, origin: Any, extent: Any) -> None:
        del origin, extent
        for name, layer in counts.layers.items():
            if layer.values is not None:
                self.layers[name] = layer.values[..., : layer.channels].transpose(0, 3, 1, 2).copy()


def kernel_differing(case: Case, have: LavaRun) -> list[str]:
    """What differs between Lava and the kernel."""
    wrong = []
    for image, frame in enumerate(case.codes):
        seen = Counts()
        if not np.array_equal(kernel.run(case.net, frame, observer=seen), have.output[image]):
            wrong.append(f"kernel: output, image {image}")
        for name, spikes in have.spikes.items():
            counts = seen.layers[name]
            each = spikes[image].reshape(len(counts), -1, *counts.shape[1:])
            if not np.array_equal(counts, each.sum(axis=1)):
                wrong.append(f"kernel: spikes of {name}, image {image}")
    return wrong
