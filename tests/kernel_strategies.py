"""Random networks for the kernel, and what it owes the reference: for tests and for fuzzing."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
from hypothesis import strategies as st

from neurodeploy.energy.count import OperationCounter
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.bursts import in_bursts
from neurodeploy.quantize.digits import in_digits
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.kernel.counts import RunCounts, SpikeCounts
from neurodeploy.simulate.observe import Trace, takes_counts
from neurodeploy.simulate.restore import run_tiled
from tests.burst_nets import burstable
from tests.random_nets import even_weights


class Counted:
    """Keeps the counts of every layer."""

    takes_counts = True
    keeps_values = True

    def __init__(self) -> None:
        self.layers: dict[str, np.ndarray] = {}

    def codes(self, *, codes: np.ndarray, origin: tuple[int, int], extent: tuple[int, int]) -> None:
        assert origin == (0, 0)
        assert extent == codes.shape[-2:]

    def check(self, counts: SpikeCounts) -> None:
        """Looks at the part that is shown."""

    def layer(self, **_: Any) -> None:
        raise AssertionError("the reference ran")

    def run_counts(self, *, counts: RunCounts, origin: Any, extent: Any) -> None:
        assert (origin, extent) == ((0, 0), None)
        for name, layer in counts.layers.items():
            self.keep(name, layer)

    def keep(self, name: str, counts: SpikeCounts) -> None:
        assert counts.values is not None
        self.check(counts)
        assert counts.values.shape[1:3] == counts.extent
        assert not counts.values[..., counts.channels :].any(), "channels that only pad do not fire"
        self.layers[name] = counts.values[..., : counts.channels].transpose(0, 3, 1, 2).copy()
        seen, found = self.layers[name].astype(np.int64), counts.arrivals()
        assert found.spikes == seen.sum(axis=(1, 2, 3)).tolist()
        assert found.ever == np.count_nonzero(seen.any(axis=0))
        assert found.marked == np.count_nonzero(seen.any(axis=1), axis=(1, 2)).tolist()
        np.testing.assert_array_equal(counts.spiking(), seen.any(axis=1))


class Windowed(Counted):
    """Wants only a part of every layer, as the owner of a tile does."""

    def __init__(self, owned: tuple[slice, slice]) -> None:
        super().__init__()
        self.owned = owned

    def check(self, counts: SpikeCounts) -> None:
        assert counts.extent == tuple(part.stop - part.start for part in self.owned)


def by_reference(net: IntegerNetwork, codes: np.ndarray) -> tuple[np.ndarray, Trace]:
    """The output, and what every layer did."""
    trace = Trace(net.host.steps)
    return reference.run(net, codes, observer=trace), trace


def assert_same(
    net: IntegerNetwork,
    codes: np.ndarray,
    path: str,
    threads: int = 1,
    form: kernel.Form = "auto",
    owned: tuple[slice, slice] | None = None,
    known: tuple[np.ndarray, Trace] | None = None,
) -> Counted:
    """Runs the reference and the kernel; every spike, every sum that is counted, and the output must be equal.

    ``known``: what the reference gave, see :func:`by_reference`.
    """
    counted = Counted() if owned is None else Windowed(owned)
    expected, trace = known or by_reference(net, codes)
    found = kernel.run(net, codes, observer=counted, path=path, threads=threads, form=form)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, expected)
    assert counted.layers.keys() == trace.layers.keys()
    for name, layer in trace.layers.items():
        fired = layer.fired.sum(axis=1)
        seen = fired if owned is None else fired[(..., *owned)]
        np.testing.assert_array_equal(counted.layers[name], seen, err_msg=name)
    return counted


def counted_by_reference(net: IntegerNetwork, codes: np.ndarray) -> dict[str, Any]:
    """The operations of a run of the reference, counted by it."""
    counter = OperationCounter(net)
    counter._plain_input = False  # as where nothing is compiled
    reference.run(net, codes, observer=counter)
    return counter.counts().as_dict()


def assert_counted(
    net: IntegerNetwork,
    codes: np.ndarray,
    core: int | None = None,
    known: dict[str, Any] | None = None,
    path: str | None = None,
) -> None:
    """Counts the operations of a run of the kernel, whole or in tiles, and of the reference: all must be the same.

    ``known``: what :func:`counted_by_reference` gave.
    """
    by_kernel = OperationCounter(net)
    assert takes_counts(by_kernel)
    backend = partial(kernel.run, path=path)
    if core is None:
        backend(net, codes, observer=by_kernel)
    else:
        run_tiled(net, codes, core=core, backend=backend, observer=by_kernel)
    assert by_kernel.counts().as_dict() == (known or counted_by_reference(net, codes))


EXTREME = st.sampled_from(["plain", "odd weights", "deep negative", "huge weights", "huge biases", "always", "never"])


def draw_decay(draw: st.DrawFn, rng: np.random.Generator, channels: int) -> int | np.ndarray:
    kind = draw(st.sampled_from(["all", "some", "half", "none", "channels"]))
    if kind == "channels":
        return rng.integers(0, 4097, channels)
    halves = 4096 - (4096 >> int(rng.integers(0, 13)))
    return {"all": 4096, "some": int(rng.integers(1, 4096)), "half": halves, "none": 0}[kind]


def draw_conv(draw: st.DrawFn, rng: np.random.Generator, name: str, fan_in: int, out: int, extreme: str) -> IntegerConv:
    size = draw(st.sampled_from([1, 3, 5]))
    dilation = draw(st.sampled_from([1, 1, 2, 3]))
    same = dilation * (size // 2)
    weight = even_weights(rng, out, fan_in, size, size, limit=254)
    if extreme == "odd weights":
        weight = rng.integers(-128, 128, weight.shape)
    elif extreme == "deep negative":
        weight[:] = -256
    return IntegerConv(name, weight, padding=(same, same), dilation=(dilation, dilation))


@st.composite
def networks(draw: st.DrawFn) -> tuple[IntegerNetwork, np.ndarray]:
    """Chains with sum edges between layers, several levels and steps, decays a channel, and extreme numbers."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, levels, extreme = draw(st.integers(1, 8)), draw(st.sampled_from([1, 1, 2, 5])), draw(EXTREME)
    channels, width = draw(st.integers(1, 5)), draw(st.sampled_from([1, 3, 16, 20, 33, 48, 65]))
    depth, edges = draw(st.integers(0, 3)), draw(st.booleans())
    size = draw(st.integers(1, 11)), draw(st.integers(1, 19) | st.integers(31, 35))
    nodes: dict[str, IntegerNode] = {"input": IntegerInput("input", channels)}
    links: list[tuple[str, str]] = []
    before, fan_in = "input", channels
    for layer in range(depth):
        conv, lif = f"conv{layer}", f"lif{layer}"
        nodes[conv] = draw_conv(draw, rng, conv, fan_in, width, extreme)
        links += [(before, conv), (conv, lif)]
        if edges and layer:
            extra = draw_conv(draw, rng, f"extra{layer}", *(width, width, extreme))
            nodes[extra.name] = extra
            links += [(f"lif{draw(st.integers(0, layer - 1))}", extra.name), (extra.name, lif)]
        scale = (1 << 21) - 1 if extreme == "huge biases" else 3000
        vth = {"always": -(1 << 20), "never": (1 << 17) - 1}.get(extreme, int(rng.integers(0, 4000)))
        offsets = tuple(int(value) for value in rng.integers(-2000, 2000, levels))
        bias = rng.integers(-scale, scale + 1, width)
        v_decay, i_decay = draw_decay(draw, rng, width), draw_decay(draw, rng, width)
        nodes[lif] = IntegerLif(lif, vth, bias, v_decay, i_decay, offsets)
        before, fan_in = lif, width
    nodes["last"] = draw_conv(draw, rng, "last", fan_in, draw(st.integers(1, 5)), extreme)
    nodes["output"] = IntegerReadout("output", rng.integers(-999, 999, len(nodes["last"].weight)))  # type: ignore[union-attr]
    net = IntegerNetwork(nodes, (*links, (before, "last"), ("last", "output")), HostSide(steps=steps))
    shape = (channels, *size) if draw(st.booleans()) else (steps, channels, *size)
    largest = {"plain": 255, "deep negative": 300, "huge weights": 511}.get(extreme, 60)
    return net, rng.integers(-largest, largest + 1, shape)


@st.composite
def shaped_networks(
    draw: st.DrawFn, *, groups: bool = True, matrices: bool = True
) -> tuple[IntegerNetwork, np.ndarray]:
    """Chains with strides, groups, dilation, any padding, sum edges and a tail of matrices."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, levels = draw(st.integers(1, 4)), draw(st.sampled_from([1, 1, 3]))
    channels, size = draw(st.integers(1, 4)), (draw(st.integers(1, 13)), draw(st.integers(1, 40)))
    shape = (channels, *size) if draw(st.booleans()) else (steps, channels, *size)
    nodes: dict[str, IntegerNode] = {"input": IntegerInput("input", channels)}
    links: list[tuple[str, str]] = []
    before = "input"

    def lif(name: str, width: int, sources: list[str]) -> None:
        offsets = tuple(int(value) for value in rng.integers(-900, 900, levels))
        decays = draw_decay(draw, rng, width), draw_decay(draw, rng, width)
        nodes[name] = IntegerLif(name, int(rng.integers(0, 3000)), rng.integers(-900, 900, width), *decays, offsets)
        links.extend((source, name) for source in sources)

    for layer in range(draw(st.integers(0, 3))):
        parts = draw(
            st.sampled_from([1, 2, channels] if groups and channels % 2 == 0 else [1, channels if groups else 1])
        )
        width = parts * draw(st.sampled_from([1, 2, 5, 16, 33] if parts == 1 else [1, 2, 3]))
        kernel_size, padding = (tuple(draw(st.integers(low, 3)) for _ in range(2)) for low in (1, 0))
        stride, dilation = (tuple(draw(st.integers(1, most)) for _ in range(2)) for most in (3, 2))
        made = [
            (size[axis] + 2 * padding[axis] - dilation[axis] * (kernel_size[axis] - 1) - 1) // stride[axis] + 1
            for axis in range(2)
        ]
        if min(made) < 1:
            continue
        names = [f"conv{layer}", f"extra{layer}"][: draw(st.integers(1, 2))]
        for name in names:
            weight = even_weights(rng, width, channels // parts, *kernel_size, limit=254)
            nodes[name] = IntegerConv(name, weight, stride, padding, dilation, parts)  # type: ignore[arg-type]
            links.append((before, name))
        lif(f"lif{layer}", width, names)
        before, channels, size = f"lif{layer}", width, (made[0], made[1])
    for layer in range(draw(st.integers(0, 2)) if matrices else 0):
        width, name = draw(st.sampled_from([1, 3, 20])), f"fc{layer}"
        if size != (1, 1) or draw(st.booleans()):
            nodes[f"flat{layer}"] = IntegerFlatten(f"flat{layer}")
            links.append((before, f"flat{layer}"))
            before = f"flat{layer}"
        nodes[name] = IntegerDense(name, even_weights(rng, width, channels * size[0] * size[1], limit=254))
        links.append((before, name))
        lif(f"fc_lif{layer}", width, [name])
        before, channels, size = f"fc_lif{layer}", width, (1, 1)
    out = draw(st.integers(1, 3))
    nodes["last"] = IntegerConv("last", even_weights(rng, out, channels, 1, 1, limit=254), (draw(st.integers(1, 2)), 2))
    nodes["output"] = IntegerReadout("output", rng.integers(-999, 999, out))
    links += [(before, "last"), ("last", "output")]
    return IntegerNetwork(nodes, tuple(links), HostSide(steps=steps)), rng.integers(-60, 61, shape)


@st.composite
def networks_in_time(draw: st.DrawFn) -> tuple[IntegerNetwork, np.ndarray]:
    """Levels as bursts or digits: codes and ticks in some steps alone, layers that are silent in most."""
    net, codes = draw(burstable(most=15))
    return draw(st.sampled_from((in_bursts, in_digits)))(net).net, codes


@st.composite
def windows(draw: st.DrawFn, height: int, width: int) -> tuple[slice, slice]:
    """Some rows and columns, at least one of each."""
    rows, columns = (sorted((draw(st.integers(0, size - 1)), draw(st.integers(1, size)))) for size in (height, width))
    return slice(rows[0], max(rows[1], rows[0] + 1)), slice(columns[0], max(columns[1], columns[0] + 1))
