"""Random integer networks of every shape that Lava runs, for hypothesis.

Strides, dilation, groups, decays, levels, skip sums, dense tails. Every choice of the structure is drawn, so that what
fails shrinks to a small network; the numbers in it follow seeds that are drawn, too.
"""

from __future__ import annotations

import hashlib
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.levels import expand_levels
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
from neurodeploy.targets import lava

Shape = tuple[int, int, int]
T = TypeVar("T")

WIDTHS = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24)
"""Channels of a layer: as many small ones as large ones."""

MATRIX = 1 << 14
"""Weights of a dense layer of more than one neuron, at most."""

VTH_MAX = (1 << 17) - 1


@dataclass(frozen=True, repr=False)
class Case:
    """A network, what it runs on, and how it is handed to Lava.

    Attributes:
        net: Compact: levels are not written as channels.
        codes: (M, C, h, w), images that follow one another.
        form: ``netx`` or ``program``.
    """

    net: IntegerNetwork
    codes: NDArray[np.int64]
    form: str

    @property
    def size(self) -> tuple[int, int]:
        """(H, W) of the image."""
        factor = self.net.host.unshuffle
        return self.codes.shape[-2] * factor, self.codes.shape[-1] * factor

    @property
    def levels(self) -> int:
        """Populations of a layer."""
        return max(len(node.levels) for node in self.lifs)

    @property
    def lifs(self) -> list[IntegerLif]:
        """The spiking layers."""
        return list(self.net.lifs())

    def key(self) -> str:
        """The same for equal cases."""
        return hashlib.sha256(pickle.dumps((self.net, self.codes, self.form))).hexdigest()

    def nodes(self, kind: type[T]) -> list[T]:
        """The nodes of a kind."""
        return [node for node in self.net.nodes.values() if isinstance(node, kind)]

    def __repr__(self) -> str:
        lines = [f"Case: {len(self.codes)} x {self.codes.shape[1:]}, T = {self.net.host.steps}, {self.form}"]
        for name, node in self.net.nodes.items():
            parts = {k: v for k, v in vars(node).items() if k not in ("name", "weight", "bias")}
            weight = getattr(node, "weight", None)
            shape = "" if weight is None else f"{weight.shape} {weight.tolist() if weight.size <= 18 else ''} "
            said = ", ".join(f"{k} {v.tolist() if isinstance(v, np.ndarray) else v}" for k, v in parts.items())
            lines.append(f"  {name} <- {', '.join(self.net.sources(name)) or '-'}: {shape}{said}")
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What hypothesis prints of a case that fails."""
        printer.text(repr(self))


@dataclass
class _Draft:
    """A network that grows, and the shapes of what is there."""

    draw: st.DrawFn
    levels: int
    nodes: dict[str, IntegerNode] = field(default_factory=dict)
    edges: list[tuple[str, str]] = field(default_factory=list)
    shapes: dict[str, Shape] = field(default_factory=dict)

    def add(self, node: IntegerNode, sources: Sequence[str], shape: Shape) -> None:
        self.nodes[node.name] = node
        self.edges += [(source, node.name) for source in sources]
        self.shapes[node.name] = shape

    def chance(self, tenths: int) -> bool:
        """So many tenths of a chance; what shrinks becomes false."""
        return self.draw(st.sampled_from([False] * (10 - tenths) + [True] * tenths))

    def one_of(self, *values: T) -> T:
        """Any of these; what shrinks becomes the first."""
        return self.draw(st.sampled_from(values))

    def rng(self) -> np.random.RandomState:
        """Numbers of their own for what is made next: they stay when what stands before it goes."""
        return np.random.RandomState(self.draw(st.integers(0, 255)))

    def weights(self, *shape: int, limit: int = 256) -> NDArray[np.int64]:
        """Even, mixed signs, within 8 bits; some of them 0."""
        rng, half = self.rng(), max(1, min(127, limit // 2))
        weight = 2 * rng.randint(-half, half + 1, shape).astype(np.int64)
        return weight * (rng.rand(*shape) < 0.9)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A network of 1 to 6 spiking layers, most of them with spikes, on one to three images of 8 to 32 pixels."""
    draft = _Draft(draw, draw(st.sampled_from([1, 1, 1, 2, 3])))
    images, unshuffle = draw(st.integers(1, 3)), draw(st.sampled_from([1, 2]))
    height, width = (draw(st.integers(8, 32)) // unshuffle for _ in range(2))
    draft.add(IntegerInput("input", unshuffle**2), [], (unshuffle**2, height, width))
    steps, depth = draw(st.sampled_from([1, 2, 3, 4, 6])), draw(st.sampled_from([1, 2, 3, 4, 5, 6, 4, 3]))
    tail = draw(st.integers(1, 2)) if draft.chance(4) else 0
    before = "input"
    for layer in range(depth):
        before = draw(_layers(draft, layer, before, layer >= max(depth - tail, 1)))
    _readout(draft, before, steps)
    scale = draft.one_of(63.75, 255.0)
    host = HostSide(channels=1, unshuffle=unshuffle, steps=steps, input_scale=scale)
    net = IntegerNetwork(draft.nodes, tuple(draft.edges), host)
    size = (height * unshuffle, width * unshuffle)
    codes = _codes(net, size, images, draft.rng())
    net = _with_thresholds(_with_levels(net, draft.levels), lambda: draw(st.integers(10, 18)) / 20, codes[0])
    netx = lava.form_findings(expand_levels(net), "netx") == [] and draft.one_of(True, False)
    return Case(net, codes, "netx" if netx else "program")


@st.composite
def _layers(draw: st.DrawFn, draft: _Draft, layer: int, before: str, dense: bool) -> str:
    """One more layer; a strategy, so that hypothesis takes one out as a whole."""
    return (_dense_layer if dense else _conv_layer)(replace(draft, draw=draw), layer, before)


def _conv_layer(draft: _Draft, layer: int, before: str) -> str:
    out = draft.one_of(*WIDTHS[: 6 if draft.levels > 1 else None])
    channels, height, width = draft.shapes[before]
    kernel = draft.one_of((1, 1), (3, 3), (3, 3), (3, 3), (5, 5), (1, 3))
    dilation = (2, 2) if draft.chance(2) else (1, 1)
    reach = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
    less = draft.draw(st.integers(0, 2)) if draft.chance(3) else 0
    padding = tuple(max(0, side // 2 - less) for side in reach)
    stride = (2, 2) if min(height, width) >= 8 and draft.chance(3) else (1, 1)
    rows, columns = (
        (side + 2 * padding[axis] - reach[axis] - 1) // stride[axis] + 1 for axis, side in enumerate((height, width))
    )
    if min(rows, columns) < 2:
        kernel, dilation, padding, stride, rows, columns = (1, 1), (1, 1), (0, 0), (1, 1), height, width
    how: dict[str, Any] = {"padding": padding, "stride": stride, "dilation": dilation}
    groups = int(np.gcd(channels, out)) if draft.levels == 1 and draft.chance(6) else 1
    name = f"conv{layer}"
    weight = draft.weights(out, channels // groups, *kernel, limit=12 if before == "input" else 256)
    sources = [before]
    if groups == 1 and before != "input":
        # a convolution of the sum of two layers' spikes
        sources += _perhaps(draft, 6, [other for other in _alike(draft, before, IntegerLif) if other != before])
    draft.add(IntegerConv(name, weight, groups=groups, **how), sources, (out, rows, columns))
    meeting = [name, *_skip(draft, layer, before, out, kernel, how)]
    # the output of an earlier convolution, once more
    convs = [other for other in _alike(draft, name, IntegerConv) if other not in meeting]
    meeting += _perhaps(draft, 7, convs)
    draft.add(_lif(draft, f"lif{layer}", out), meeting, (out, rows, columns))
    return f"lif{layer}"


def _perhaps(draft: _Draft, tenths: int, names: list[str]) -> list[str]:
    return [draft.one_of(*names)] if names and draft.chance(tenths) else []


def _alike(draft: _Draft, name: str, kind: type[IntegerNode]) -> list[str]:
    """Nodes of a kind with the shape of another."""
    shape = draft.shapes[name]
    return [other for other, node in draft.nodes.items() if isinstance(node, kind) and draft.shapes[other] == shape]


def _skip(draft: _Draft, layer: int, before: str, out: int, kernel: tuple[int, int], how: dict[str, Any]) -> list[str]:
    """A convolution of its own from an earlier layer, or the input, of the same grid."""
    grid = draft.shapes[before][1:]
    layers = [name for name, node in draft.nodes.items() if isinstance(node, IntegerLif)]
    earlier = [name for name in ("input", *layers) if name != before and draft.shapes[name][1:] == grid]
    source = _perhaps(draft, 8, earlier)
    name = f"skip{layer}"
    if source:
        limit = 12 if source == ["input"] else 200
        weight = draft.weights(out, draft.shapes[source[0]][0], *kernel, limit=limit)
        draft.add(IntegerConv(name, weight, **how), source, (out, *draft.shapes[f"conv{layer}"][1:]))
    return [name] if source else []


def _dense_layer(draft: _Draft, layer: int, before: str) -> str:
    places = int(np.prod(draft.shapes[before]))
    out = draft.one_of(1, *(width for width in WIDTHS[1:] if width * places <= MATRIX))
    source = f"flatten{layer}"
    draft.add(IntegerFlatten(source), [before], (places, 1, 1))
    name = f"dense{layer}"
    draft.add(IntegerDense(name, draft.weights(out, places, limit=100)), [source], (out, 1, 1))
    draft.add(_lif(draft, f"lif{layer}", out), [name], (out, 1, 1))
    return f"lif{layer}"


def _decay(draft: _Draft, channels: int) -> int | NDArray[np.int64]:
    kind = draft.one_of(4096, 4096, 0, 1, 163, 1024, 2048, 4095, -1)
    return kind if kind >= 0 else draft.rng().randint(0, 4097, channels).astype(np.int64)


def _lif(draft: _Draft, name: str, channels: int) -> IntegerLif:
    bias = draft.rng().randint(-200, 201, channels) if draft.chance(7) else np.zeros(channels)
    i_decay = _decay(draft, channels) if draft.chance(3) else 4096
    return IntegerLif(name, VTH_MAX, bias.astype(np.int64), v_decay=_decay(draft, channels), i_decay=i_decay)


def _readout(draft: _Draft, before: str, steps: int) -> None:
    channels, height, width = draft.shapes[before]
    out = draft.draw(st.integers(1, 4))
    flat = isinstance(draft.nodes[next(source for source, target in draft.edges if target == before)], IntegerDense)
    limit = min(256, (1 << 16) // (draft.levels * steps * channels * (1 if flat else 9)))
    if flat:
        draft.add(IntegerDense("last", draft.weights(out, channels, limit=limit)), [before], (out, 1, 1))
    else:
        conv = IntegerConv("last", draft.weights(out, channels, 3, 3, limit=limit), padding=(1, 1))
        draft.add(conv, [before], (out, height, width))
    bias = draft.rng().randint(-50, 51, out).astype(np.int64)
    draft.add(IntegerReadout("output", bias), ["last"], (out, *draft.shapes["last"][1:]))


def _with_levels(net: IntegerNetwork, levels: int) -> IntegerNetwork:
    """Every layer with so many populations, where those can be written as channels; their distances come later."""
    made = {node.name: replace(node, levels=(0,) * levels) for node in net.lifs()}
    several = replace(net, nodes={**net.nodes, **made})
    try:
        expand_levels(several)
    except UserError:
        return net
    return several


def _with_thresholds(net: IntegerNetwork, share: Callable[[], float], codes: NDArray[np.int64]) -> IntegerNetwork:
    """Thresholds at a quantile of what membranes reach, 0.5 to 0.9, layer after layer; levels a third of it apart."""
    for node in net.lifs():
        trace = Trace(net.host.steps)
        run(net, codes, observer=trace)
        vth = int(np.clip(np.quantile(trace.layers[node.name].v / 64, share()), 0, VTH_MAX))
        apart = min(1000, max(1, vth // 3))
        made = replace(node, vth=vth, levels=tuple(-apart * place for place in range(len(node.levels))))
        net = replace(net, nodes={**net.nodes, node.name: made})
    return net


def _codes(net: IntegerNetwork, size: tuple[int, int], images: int, rng: np.random.RandomState) -> NDArray[np.int64]:
    """(M, C, h, w): codes of smooth noisy pictures."""
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    frames = []
    for _ in range(images):
        wave = 0.5 + 0.4 * np.sin(rng.uniform(0.1, 1) * rows + rng.uniform(0.1, 1) * columns + rng.uniform(0, 6))
        frames.append(net.host.encode((wave + rng.uniform(-0.2, 0.2, size))[None]))
    return np.stack(frames)
