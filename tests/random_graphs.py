"""Random integer networks of every shape that Lava runs: strides, dilation, groups, decays, skip sums, dense tails."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.graph.spec import HostSide
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
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run

Shape = tuple[int, int, int]


@dataclass
class _Draft:
    """A network that grows, and the shapes of what is there."""

    rng: np.random.RandomState
    nodes: dict[str, IntegerNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def add(self, node: IntegerNode, sources: list[str], shape: Shape) -> None:
        self.nodes[node.name] = node
        self.edges += [(source, node.name) for source in sources]
        self.shapes[node.name] = shape

    def chance(self, probability: float) -> bool:
        return bool(self.rng.rand() < probability)

    def weights(self, *shape: int, limit: int = 256) -> NDArray[np.int64]:
        """Even, mixed signs, within 8 bits; some of them 0."""
        half = max(1, min(127, limit // 2))
        weight = 2 * self.rng.randint(-half, half + 1, shape).astype(np.int64)
        return weight * (self.rng.rand(*shape) < 0.9)


def random_graph(seed: int) -> tuple[IntegerNetwork, tuple[int, int]]:
    """A network of 1 to 6 spiking layers, most of them with spikes, and (H, W) of its image; both follow the seed."""
    rng = np.random.RandomState(seed)
    draft = _Draft(rng)
    unshuffle = int(rng.choice([1, 2]))
    height, width = (int(8 * 4 ** rng.rand()) // unshuffle for _ in range(2))
    channels = unshuffle**2
    draft.add(IntegerInput("input", channels), [], (channels, height, width))
    steps = int(rng.choice([1, 2, 3, 4, 6]))
    depth = rng.randint(1, 7)
    flat_from = depth - rng.randint(1, 3) if draft.chance(0.3) else depth
    before = "input"
    for layer in range(depth):
        add = _dense_layer if layer >= max(flat_from, 1) else _conv_layer
        before = add(draft, layer, before)
    _readout(draft, before, steps)
    host = HostSide(channels=1, unshuffle=unshuffle, steps=steps, input_scale=float(rng.choice([63.75, 255.0])))
    net = IntegerNetwork(draft.nodes, tuple(draft.edges), host)
    size = (height * unshuffle, width * unshuffle)
    return _with_thresholds(net, rng, size), size


def _conv_layer(draft: _Draft, layer: int, before: str) -> str:
    rng = draft.rng
    out = int(24 ** rng.rand() + 0.5)
    channels, height, width = draft.shapes[before]
    kernel = (int(rng.choice([1, 3, 3, 3, 5])),) * 2 if draft.chance(0.8) else (1, 3)
    dilation = (2, 2) if draft.chance(0.2) else (1, 1)
    reach = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
    padding = tuple(side // 2 if draft.chance(0.8) else int(rng.randint(0, side // 2 + 1)) for side in reach)
    stride = (2, 2) if min(height, width) >= 8 and draft.chance(0.2) else (1, 1)
    rows, columns = (
        (side + 2 * padding[axis] - reach[axis] - 1) // stride[axis] + 1 for axis, side in enumerate((height, width))
    )
    if min(rows, columns) < 2:
        kernel, dilation, padding, stride, rows, columns = (1, 1), (1, 1), (0, 0), (1, 1), height, width
    how: dict[str, Any] = {"padding": padding, "stride": stride, "dilation": dilation}
    groups = int(np.gcd(channels, out)) if draft.chance(0.2) else 1
    limit = 12 if before == "input" else 256
    name = f"conv{layer}"
    weight = draft.weights(out, channels // groups, *kernel, limit=limit)
    sources = [before]
    if groups == 1 and before != "input" and draft.chance(0.3):
        # a convolution of the sum of two layers' spikes
        same = [other for other in _layers(draft) if draft.shapes[other] == draft.shapes[before]]
        sources += [other for other in same if other != before][:1]
    draft.add(IntegerConv(name, weight, groups=groups, **how), sources, (out, rows, columns))
    meeting = [name]
    if draft.chance(0.5):
        meeting += _skip(draft, layer, before, out, kernel, how)
    if draft.chance(0.4):
        # the output of an earlier convolution, once more
        convs = [other for other, node in draft.nodes.items() if isinstance(node, IntegerConv)]
        alike = [other for other in convs if draft.shapes[other] == (out, rows, columns)]
        meeting += [other for other in alike if other not in meeting][:1]
    lif = f"lif{layer}"
    draft.add(_lif(draft, lif, out), meeting, (out, rows, columns))
    return lif


def _layers(draft: _Draft) -> list[str]:
    return [name for name, node in draft.nodes.items() if isinstance(node, IntegerLif)]


def _skip(draft: _Draft, layer: int, before: str, out: int, kernel: tuple[int, int], how: dict[str, Any]) -> list[str]:
    """A convolution of its own from an earlier layer, or the input, of the same grid."""
    grid = draft.shapes[before][1:]
    earlier = [name for name in ("input", *_layers(draft)) if name != before and draft.shapes[name][1:] == grid]
    if not earlier:
        return []
    source = earlier[draft.rng.randint(len(earlier))]
    weight = draft.weights(out, draft.shapes[source][0], *kernel, limit=12 if source == "input" else 200)
    draft.add(IntegerConv(f"skip{layer}", weight, **how), [source], (out, *draft.shapes[f"conv{layer}"][1:]))
    return [f"skip{layer}"]


def _dense_layer(draft: _Draft, layer: int, before: str) -> str:
    out = int(24 ** draft.rng.rand() + 0.5)
    places = int(np.prod(draft.shapes[before]))
    source = before
    if draft.shapes[before][1:] != (1, 1) or not draft.nodes[before].name.startswith("flat"):
        source = f"flatten{layer}"
        draft.add(IntegerFlatten(source), [before], (places, 1, 1))
    draft.add(IntegerDense(f"dense{layer}", draft.weights(out, places, limit=100)), [source], (out, 1, 1))
    draft.add(_lif(draft, f"lif{layer}", out), [f"dense{layer}"], (out, 1, 1))
    return f"lif{layer}"


def _decay(draft: _Draft, channels: int, plain: int) -> int | NDArray[np.int64]:
    if draft.chance(0.4):
        return plain
    if draft.chance(0.3):
        return draft.rng.randint(0, 4097, channels).astype(np.int64)
    return int(draft.rng.choice([0, 1, 163, 1024, 2048, 4095]))


def _lif(draft: _Draft, name: str, channels: int) -> IntegerLif:
    bias = draft.rng.randint(-200, 201, channels).astype(np.int64) * draft.chance(0.7)
    i_decay = _decay(draft, channels, 4096) if draft.chance(0.3) else 4096
    return IntegerLif(name, (1 << 17) - 1, bias, v_decay=_decay(draft, channels, 4096), i_decay=i_decay)


def _readout(draft: _Draft, before: str, steps: int) -> None:
    rng = draft.rng
    channels, height, width = draft.shapes[before]
    out = rng.randint(1, 5)
    flat = isinstance(draft.nodes[next(s for s, t in draft.edges if t == before)], IntegerDense)
    fan_in = channels * (1 if flat else 9)
    limit = min(256, (1 << 16) // (steps * fan_in))
    if flat:
        draft.add(IntegerDense("last", draft.weights(out, channels, limit=limit)), [before], (out, 1, 1))
    else:
        conv = IntegerConv("last", draft.weights(out, channels, 3, 3, limit=limit), padding=(1, 1))
        draft.add(conv, [before], (out, height, width))
    bias = rng.randint(-50, 51, out).astype(np.int64)
    draft.add(IntegerReadout("output", bias), ["last"], (out, *draft.shapes["last"][1:]))


def _with_thresholds(net: IntegerNetwork, rng: np.random.RandomState, size: tuple[int, int]) -> IntegerNetwork:
    """Thresholds at the 50th to 90th percentile of what membranes reach, layer after layer."""
    codes = random_codes(net, size, 1, rng)[0]
    for name in [node.name for node in net.lifs()]:
        trace = Trace(net.host.steps)
        run(net, codes, observer=trace)
        node = net.nodes[name]
        assert isinstance(node, IntegerLif)
        vth = int(np.quantile(trace.layers[name].v / 64, rng.uniform(0.5, 0.9)))
        net = replace(net, nodes={**net.nodes, name: replace(node, vth=int(np.clip(vth, 0, (1 << 17) - 1)))})
    return net


def random_codes(
    net: IntegerNetwork, size: tuple[int, int], images: int, rng: np.random.RandomState
) -> NDArray[np.int64]:
    """(M, C, h, w): codes of smooth noisy pictures."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    frames = []
    for _ in range(images):
        wave = 0.5 + 0.4 * np.sin(rng.uniform(0.1, 1) * rows + rng.uniform(0.1, 1) * columns + rng.uniform(0, 6))
        frames.append(net.host.encode((wave + rng.uniform(-0.2, 0.2, size))[None]))
    return np.stack(frames)
