"""Random networks in Lava, in the reference and in the compiled kernel: every spike, u and v of every layer and step.

Several images run back to back in Lava's pipeline, a step of delay a hop; the reference runs each of them alone and
without delays. That both give the same values is what depths, relays and reset windows are for.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurodeploy import lava_env
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.simulate import kernel
from neurodeploy.simulate.kernel.counts import SpikeCounts
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.targets import lava, lava_program
from neurodeploy.targets.lava_plan import Hop, Plan, Stage, plan
from neurodeploy.targets.lava_run import LavaJob, LavaRun, run_jobs
from tests.random_graphs import random_codes, random_graph

pytestmark = pytest.mark.external

NETWORKS = 64
BATCH = 12
"""Networks of one Lava process: a start takes as long as several small networks."""


@pytest.fixture(scope="module")
def python() -> Path:
    named = os.environ.get("NEURODEPLOY_LAVA_PYTHON")
    found = Path(named) if named else lava_env.python()
    if found is None:
        pytest.skip("needs Lava: set NEURODEPLOY_LAVA_PYTHON, or run `neurodeploy doctor --install-lava`")
    return found


def job(seed: int) -> LavaJob:
    """A network and its images, in netx form every second time that the network is a chain."""
    net, size = random_graph(seed)
    rng = np.random.RandomState(seed)
    chain = not lava.form_findings(net, "netx")
    return LavaJob(net, random_codes(net, size, 1 + seed % 3, rng), "netx" if chain and seed % 2 else "program")


def differing(job: LavaJob, have: LavaRun, tally: Counter[str]) -> list[str]:
    """What differs between Lava and the reference; counts what was compared."""
    wrong = []
    for image, codes in enumerate(job.codes):
        trace = Trace(job.network.host.steps)
        output = run(job.network, codes, observer=trace)
        pairs: dict[str, tuple[Any, Any]] = {"output": (have.output[image], output)}
        for name, layer in trace.layers.items():
            tally["neuron_steps"] += layer.u.size
            tally["spikes"] += int(layer.fired.sum())
            pairs[f"spikes of {name}"] = (have.spikes[name][image], layer.fired[:, 0])
            pairs[f"u of {name}"] = (have.u[name][image], layer.u)
            pairs[f"v of {name}"] = (have.v[name][image], layer.v[:, 0])
        if image == 0:
            tally["neurons"] += sum(layer.u[0].size for layer in trace.layers.values())
        tally["steps"] += job.network.host.steps
        for what, (lavas, ours) in pairs.items():
            tally["values"] += ours.size
            if lavas.shape != ours.shape or not np.array_equal(lavas, ours):
                wrong.append(f"{what}, image {image}")
    return wrong


class _Counts:
    """Keeps the kernel's spikes of every layer, (T, C, h, w)."""

    takes_counts = True

    def __init__(self) -> None:
        self.layers: dict[str, np.ndarray] = {}

    def codes(self, **_: Any) -> None:
        """Not looked at."""

    def layer(self, **_: Any) -> None:
        raise AssertionError("the kernel shows counts")

    def layer_counts(self, *, name: str, counts: SpikeCounts, origin: Any, extent: Any) -> None:
        del origin, extent
        self.layers[name] = counts.values[..., : counts.channels].transpose(0, 3, 1, 2).copy()


def kernel_differing(net: IntegerNetwork, codes: np.ndarray, have: LavaRun) -> list[str]:
    """What differs between Lava and the kernel."""
    wrong = []
    for image, frame in enumerate(codes):
        seen = _Counts()
        if not np.array_equal(kernel.run(net, frame, observer=seen), have.output[image]):
            wrong.append(f"kernel: output, image {image}")
        wrong += [
            f"kernel: spikes of {name}, image {image}"
            for name, spikes in have.spikes.items()
            if not np.array_equal(seen.layers[name], spikes[image])
        ]
    return wrong


def test_random_networks_are_equal_in_lava_reference_and_kernel(
    python: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tally: Counter[str] = Counter()
    wrong: dict[int, list[str]] = {}
    for first in range(0, NETWORKS, BATCH):
        seeds = range(first, min(first + BATCH, NETWORKS))
        jobs = [job(seed) for seed in seeds]
        for seed, one, have in zip(seeds, jobs, run_jobs(jobs, python), strict=True):
            found = differing(one, have, tally)
            if kernel.declines(one.network, one.codes[0]) is None:
                found += kernel_differing(one.network, one.codes, have)
                tally["in_the_kernel_too"] += 1
            tally["networks"] += 1
            tally[f"form_{one.form}"] += 1
            tally["with_sum_edges"] += bool(lava.form_findings(one.network, "netx"))
            if found:
                wrong[seed] = found
    with capsys.disabled():
        print("\n" + json.dumps({**tally, "networks_that_differ": len(wrong)}))
    assert wrong == {}
    assert tally["in_the_kernel_too"] >= 20 or kernel.missing() is not None
    assert tally["networks"] >= 60 and tally["with_sum_edges"] >= 25 and tally["form_netx"] >= 12
    assert tally["spikes"] > tally["neuron_steps"] / 20


def unbalanced(net: IntegerNetwork) -> Plan:
    """The plan without its delays."""
    stages = plan(net).stages
    return Plan(
        tuple(
            Stage(stage.neuron, stage.depth, tuple(Hop(h.process, h.weights, h.source, 0) for h in stage.hops))
            for stage in stages
        )
    )


def test_without_the_delays_the_spikes_differ(python: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The equality above would be worth little if it held for a program that balances nothing."""
    late = [
        one for one in map(job, range(NETWORKS)) if any(plan(one.network).delays(n.name) for n in one.network.lifs())
    ]
    one = max(late[:6], key=lambda found: found.network.host.steps)
    monkeypatch.setattr(lava_program, "plan", unbalanced)
    (have,) = run_jobs([one], python)
    assert differing(one, have, Counter())
