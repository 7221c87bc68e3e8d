"""From an integer network to an ONNX graph: unrolled over the time steps, or one step with its state outside.

Names are part of the format: ``LAYER.spikes.tT.dD`` (bool) is what population D of a layer put out in step T; a runtime
gives it where it is made an output.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodeploy.graph.spec import NOISE_GAIN, NOISE_SCALE, HostSide
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.targets.described import described
from neurodeploy.targets.onnx_float import FloatForm
from neurodeploy.targets.onnx_graph import Dims, Graph
from neurodeploy.targets.onnx_integer import IntegerForm, State

Form = IntegerForm | FloatForm

METADATA = "neurodeploy"
CODES, IMAGE, RESTORED = "codes", "image", "restored"


@dataclass(frozen=True)
class Shape:
    """What the graph is to be like.

    Attributes:
        form: ``"integer"`` or ``"float"``.
        time: ``"unrolled"`` or ``"state"``.
        host: ``"outside"`` or ``"inside"``: where pixel-unshuffle and -shuffle, scales and the residual are.
    """

    form: str = "integer"
    time: str = "unrolled"
    host: str = "outside"

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Shape:
        """The shape that the options of an export ask for."""
        return cls(**{key: options[key] for key in ("form", "time", "host") if key in options})

    @property
    def output(self) -> str:
        """Name of the output: the integer sum over the steps, or the float mean."""
        return "readout" if self.form == "integer" else "output"


def spike_names(net: IntegerNetwork, shape: Shape) -> dict[str, list[list[str]]]:
    """Layer -> step -> the names of its populations' spikes, those of the one step where the state is outside."""
    steps = net.host.steps if shape.time == "unrolled" else 1
    return {
        node.name: [[f"{node.name}.spikes.t{t}.d{d}" for d in range(len(node.levels))] for t in range(steps)]
        for node in net.lifs()
    }


def build_model(net: IntegerNetwork, size: tuple[int, int], shape: Shape) -> Any:
    """The ``onnx.ModelProto`` of a network.

    Args:
        net: The network in its compact form.
        size: (H, W) of the image; it only matters for matrix products, everything else takes any size.
        shape: What the graph is to be like.

    Raises:
        UserError: The package onnx is not installed.
        FindingsError: The float form, and NIR cannot say the network.
    """
    return _Builder(net, size, shape).build()


class _Builder:
    def __init__(self, net: IntegerNetwork, size: tuple[int, int], shape: Shape) -> None:
        self.net, self.size, self.shape = net, size, shape
        self.graph = Graph()
        self.form: Form = IntegerForm(self.graph, net) if shape.form == "integer" else FloatForm(self.graph, net, size)
        self.fixed: dict[str, str] = {}
        """Values that are the same in every step: what the codes alone lead to."""
        self.before: dict[str, str] = {}
        """Values of the previous step, which feedback edges carry."""

    def build(self) -> Any:
        host = self.net.host
        if self.shape.host == "inside":
            channels = host.channels
            image = self.graph.input(IMAGE, "FLOAT", ["batch", channels, "image_height", "image_width"])
            codes = encode(self.graph, image, host)
        else:
            codes = self.graph.input(CODES, "INT32", self._dims(self.net.input.channels))
        self.fixed[self.net.input.name] = self.form.start(codes)
        total = self._unrolled() if self.shape.time == "unrolled" else self._one_step()
        self._name(total)
        if self.shape.host == "inside":
            mean = self.form.mean(total, "mean") if self.shape.form == "integer" else self.shape.output
            decode(self.graph, mean, IMAGE, host)
            self.graph.output(RESTORED, "DOUBLE", ["batch", host.channels, "image_height", "image_width"])
        else:
            dims = ["output_height", "output_width"] if self._is_spatial() else [1, 1]
            self.graph.output(self.shape.output, self.form.kind, ["batch", self._output_channels(), *dims])
        return self.graph.model("network", {METADATA: json.dumps(self._described(), sort_keys=True)})

    def _described(self) -> dict[str, Any]:
        """What the file says of itself: everything but the weights, which its initializers hold."""
        shape = self.shape
        return {"format": 1, "form": shape.form, "time": shape.time, "host": shape.host, **described(self.net)}

    def _name(self, total: str) -> None:
        """Gives the output its name: the sum over the steps, or the mean where floats have all of them."""
        if self.shape.form == "float" and self.shape.time == "unrolled":
            self.form.mean(total, self.shape.output)
        else:
            self.form.finish(total, self.shape.output)

    def _output_channels(self) -> int:
        return layer_shapes(self.net, self.size)[self.net.readout.name][0]

    def _is_spatial(self) -> bool:
        return not any(isinstance(node, IntegerDense | IntegerFlatten) for node in self.net.nodes.values())

    def _dims(self, channels: int) -> Dims:
        if self._is_spatial():
            return ["batch", channels, "height", "width"]
        factor = self.net.host.unshuffle
        return ["batch", channels, *(-(-side // factor) for side in self.size)]

    def _unrolled(self) -> str:
        states: dict[str, State] = {}
        outputs = [self._step(f"t{t}", states) for t in range(self.net.host.steps)]
        return self.form.sum(outputs, self.form.summed)

    def _one_step(self) -> str:
        lifs = {node.name: node for node in self.net.lifs() if self.form.state_channels(node)}
        states: dict[str, State] = {}
        for name, node in lifs.items():
            states[name] = {
                key: self.graph.input(f"{name}.{key}", self.form.state_kind, _state_dims(name, channels))
                for key, channels in self.form.state_channels(node).items()
            }
        output = self._step("t0", states)
        for name, node in lifs.items():
            for key, channels in self.form.state_channels(node).items():
                after = self.graph.add("Identity", [states[name][key]], f"{name}.{key}.after")
                self.graph.output(after, self.form.state_kind, _state_dims(name, channels))
        return output

    def _step(self, step: str, states: dict[str, State]) -> str:
        """One time step; ``states`` is brought up to date. Gives what the step adds to the output."""
        net, form, values = self.net, self.form, dict(self.fixed)
        output = ""
        for name, node in net.nodes.items():
            if isinstance(node, IntegerInput) or name in values:
                continue
            sources = net.sources(name)
            parts = [values[source] for source in net.forward_sources(name)]
            parts += [self.before[s] for s in sources if (s, name) in net.feedback and s in self.before]
            # what does not change from step to step stands once, without a step in its name
            fixed = not isinstance(node, IntegerLif) and all(source in self.fixed for source in sources)
            tensor = f"{name}.fixed" if fixed else f"{name}.{step}"
            if isinstance(node, IntegerConv):
                values[name] = form.linear(node, form.sum(parts, f"{tensor}.x"), tensor)
            elif isinstance(node, IntegerDense):
                values[name] = self._dense(node, form.sum(parts, f"{tensor}.x"), tensor)
            elif isinstance(node, IntegerFlatten):
                values[name] = self._column(form.sum(parts, f"{tensor}.x"), tensor)
            elif isinstance(node, IntegerReadout):
                output = form.read(node, form.arriving(parts, f"{tensor}.x"), tensor)
            else:
                current = form.arriving(parts, f"{tensor}.current")
                fired = form.fire(node, current, states.get(name), f"{name}.spikes.{step}")
                states[name] = fired.state
                values[name] = fired.count
                if not fired.state:
                    del states[name]
            if fixed and not isinstance(node, IntegerReadout):
                self.fixed[name] = values[name]
        self.before = values
        return output

    def _dense(self, node: IntegerDense, x: str, name: str) -> str:
        flat = self.graph.add("Flatten", [x], f"{name}.row", axis=1)
        self.form.reshaped(x, flat)
        return self._unsqueezed(self.form.linear(node, flat, f"{name}.product"), name)

    def _column(self, x: str, name: str) -> str:
        """(N, C, h, w) -> (N, C * h * w, 1, 1)."""
        return self._unsqueezed(self.graph.add("Flatten", [x], f"{name}.row", axis=1), name, x)

    def _unsqueezed(self, x: str, name: str, like: str | None = None) -> str:
        column = self.graph.add("Unsqueeze", [x, self.graph.constant(np.array([2, 3], np.int64))], f"{name}.column")
        self.form.reshaped(like or x, column)
        return column


def _state_dims(layer: str, channels: int) -> Dims:
    return ["batch", channels, f"{layer}.height", f"{layer}.width"]


def encode(graph: Graph, image: str, host: HostSide) -> str:
    """The nodes of :meth:`HostSide.encode`: float64 up to the codes, as numpy computes them."""
    factor = host.unshuffle
    wide = graph.add("Cast", [image], "encode.wide", to=graph.types.DOUBLE)
    scaled = graph.add("Mul", [wide, graph.constant(np.float64(host.input_scale))], "encode.scaled")
    bounds = [graph.constant(np.float64(edge)) for edge in (host.input_min, host.input_max)]
    codes = graph.add("Clip", [graph.add("Round", [scaled], "encode.whole"), *bounds], "encode.clipped")
    if factor > 1:
        codes = graph.add("Pad", [codes, _padding(graph, image, factor)], "encode.padded", mode="edge")
        codes = graph.add("SpaceToDepth", [codes], "encode.blocks", blocksize=factor)
        if host.channels > 1:
            # SpaceToDepth puts the place in the block first, torch and this program the channel
            order = np.arange(host.channels * factor**2).reshape(factor**2, host.channels).T.reshape(-1)
            codes = graph.add("Gather", [codes, graph.constant(order.astype(np.int64))], "encode.ordered", axis=1)
    if host.noise_map:
        codes = graph.add("Concat", [codes, _noise_map(graph, wide, codes, host)], "encode.told", axis=1)
    return graph.add("Cast", [codes], CODES, to=graph.types.INT32)


def _noise_map(graph: Graph, wide: str, codes: str, host: HostSide) -> str:
    """The nodes of :meth:`HostSide.noise_code`: a channel as large as the codes."""

    def whole(*values: int) -> str:
        return graph.constant(np.array(values, np.int64))

    scaled = graph.add("Mul", [wide, graph.constant(np.float64(NOISE_SCALE))], "noise.scaled")
    sides = graph.add("Shape", [wide], "noise.shape", start=2)
    odd = graph.add("Mod", [sides, whole(2)], "noise.odd")
    even = graph.add(
        "Slice", [scaled, whole(0, 0), graph.add("Sub", [sides, odd], "noise.sides"), whole(2, 3)], "noise.even"
    )
    blocks = graph.add("SpaceToDepth", [graph.add("Round", [even], "noise.fine")], "noise.blocks", blocksize=2)
    signs = graph.constant(np.repeat([1.0, -1.0, -1.0, 1.0], host.channels).reshape(1, 4, host.channels, 1))
    parts = graph.add("Reshape", [blocks, whole(0, 4, host.channels, -1)], "noise.parts")
    detail = graph.add(
        "ReduceSum", [graph.add("Mul", [parts, signs], "noise.signed"), whole(1)], "noise.detail", keepdims=0
    )
    values = graph.add("Reshape", [graph.add("Abs", [detail], "noise.sizes"), whole(0, -1)], "noise.values")
    count = graph.add("Shape", [values], "noise.count", start=1)
    half = graph.add("Div", [graph.add("Add", [count, whole(1)], "noise.more"), whole(2)], "noise.half")
    median = graph.smallest(values, half, "noise.median")
    gain = graph.add("Mul", [median, graph.constant(np.float64(NOISE_GAIN * host.input_scale))], "noise.gained")
    code = graph.add(
        "Round", [graph.add("Div", [gain, graph.constant(np.float64(NOISE_SCALE))], "noise.divided")], "noise.whole"
    )
    held = graph.add(
        "Clip",
        [code, graph.constant(np.float64(host.input_min)), graph.constant(np.float64(host.input_max))],
        "noise.code",
    )
    place = graph.add("Unsqueeze", [held, whole(2, 3)], "noise.place")
    size = graph.add("Concat", [whole(1, 1), graph.add("Shape", [codes], "noise.grid", start=2)], "noise.size", axis=0)
    return graph.add("Expand", [place, size], "noise.map")


def _padding(graph: Graph, image: str, factor: int) -> str:
    """The operand of ``Pad``: rows and columns up to a multiple of ``factor``, at the bottom and at the right."""
    shape = graph.add("Shape", [image], "encode.shape", start=2)
    lacking = graph.add(
        "Mod",
        [graph.add("Neg", [shape], "encode.negative"), graph.constant(np.int64(factor))],
        "encode.lacking",
    )
    return graph.add("Concat", [graph.constant(np.zeros(6, np.int64)), lacking], "encode.pads", axis=0)


def decode(graph: Graph, mean: str, image: str, host: HostSide) -> str:
    """The nodes of :meth:`HostSide.decode`, in its order of operations."""
    out = mean
    if host.unshuffle > 1:
        out = graph.add("DepthToSpace", [out], "decode.shuffled", blocksize=host.unshuffle, mode="CRD")
        starts, axes = (graph.constant(np.array(v, np.int64)) for v in ([0, 0], [2, 3]))
        ends = graph.add("Shape", [image], "decode.shape", start=2)
        out = graph.add("Slice", [out, starts, ends, axes], "decode.cut")
    scale = graph.constant(np.float64(host.output_scale))
    if not host.residual:
        return graph.add("Mul", [scale, out], RESTORED)
    scaled = graph.add("Mul", [scale, out], "decode.scaled")
    wide = graph.add("Cast", [image], "decode.image", to=graph.types.DOUBLE)
    return graph.add("Sub", [wide, scaled], RESTORED)
