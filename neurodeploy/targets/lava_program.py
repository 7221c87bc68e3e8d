"""The program form of target ``lava``: Python on lava-nc processes, its arrays beside it, and the network as JSON.

``program.py`` is for reading and running; ``network.json`` and ``weights.npz`` hold the same network as data, which is
what is read back. Nothing of a bundle is ever executed here: :func:`program_text` makes the program anew.
"""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neurodeploy.errors import InternalError, UserError
from neurodeploy.graph.spec import HostSide
from neurodeploy.hardware.shapes import Shape, Size
from neurodeploy.quantize.levels import fold_levels
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.shipped import shipped
from neurodeploy.targets.lava_chain import READOUT_VTH
from neurodeploy.targets.lava_plan import Hop, Plan, Stage, graph_findings, plan
from neurodeploy.targets.proof import npz_bytes, read_npz

PROGRAM, WEIGHTS, NETWORK = "program.py", "weights.npz", "network.json"
FILES = (PROGRAM, WEIGHTS, NETWORK)
LARGEST_NETWORK = 8 << 20

_STRICT = ConfigDict(extra="forbid", frozen=True)
_Pair = tuple[Annotated[int, Field(ge=0, le=127)], Annotated[int, Field(ge=0, le=127)]]


class _Input(BaseModel):
    model_config = _STRICT
    kind: Literal["input"] = "input"
    name: str
    channels: int = Field(ge=1)


class _Conv(BaseModel):
    model_config = _STRICT
    kind: Literal["conv"] = "conv"
    name: str
    stride: _Pair
    padding: _Pair
    dilation: _Pair
    groups: int = Field(ge=1, le=127)


class _Plain(BaseModel):
    model_config = _STRICT
    kind: Literal["dense", "flatten", "readout"]
    name: str


class _Neurons(BaseModel):
    model_config = _STRICT
    name: str
    vth: int = Field(ge=0, lt=1 << 17)
    i_decay: Annotated[int, Field(ge=0, le=4096)] | Literal["channels"]
    v_decay: Annotated[int, Field(ge=0, le=4096)] | Literal["channels"]


class _Lif(_Neurons):
    kind: Literal["lif"] = "lif"


class _Digit(_Neurons):
    """Neurons that send one digit of what another layer counts to."""

    kind: Literal["digit"] = "digit"
    of: str = Field(min_length=1)
    digit: int = Field(ge=1, le=128)


_Row = _Input | _Conv | _Plain | _Lif | _Digit


class _File(BaseModel):
    """``network.json``; populations stand as channels."""

    model_config = _STRICT
    format: Literal["neurodeploy-network"] = "neurodeploy-network"
    schema_version: Literal[1] = 1
    arithmetic: str
    host: HostSide
    units: dict[str, float]
    nodes: list[Annotated[_Row, Field(discriminator="kind")]] = Field(max_length=1000)
    edges: list[tuple[str, str]] = Field(max_length=10000)


def write_program(
    folder: Path, net: IntegerNetwork, shapes: Mapping[str, Shape], size: Size, message_bits: int
) -> None:
    """Writes the three files.

    Args:
        folder: Where they go.
        net: An expanded network without findings of :mod:`neurodeploy.targets.lava_plan`.
        shapes: Node name -> (C, h, w) of its output.
        size: (H, W) of the image.
        message_bits: Bits of the graded input.
    """
    text = program_text(net, shapes, size, message_bits)
    (folder / PROGRAM).write_text(text, encoding="utf-8", newline="\n")
    (folder / WEIGHTS).write_bytes(npz_bytes(_arrays(net)))
    data = _File(
        arithmetic=net.arithmetic,
        host=net.host,
        units=dict(net.units),
        nodes=[_row(node) for node in net.nodes.values()],
        edges=list(net.edges),
    )
    content = json.dumps(data.model_dump(mode="json"), indent=2, ensure_ascii=False, allow_nan=False)
    (folder / NETWORK).write_text(content + "\n", encoding="utf-8", newline="\n")


def _row(node: IntegerNode) -> _Row:
    if isinstance(node, IntegerInput):
        return _Input(name=node.name, channels=node.channels)
    if isinstance(node, IntegerConv):
        return _Conv(
            name=node.name, stride=node.stride, padding=node.padding, dilation=node.dilation, groups=node.groups
        )
    if isinstance(node, IntegerLif):
        i_decay, v_decay = (int(value) if np.ndim(value) == 0 else "channels" for value in (node.i_decay, node.v_decay))
        values = {"name": node.name, "vth": node.vth, "i_decay": i_decay, "v_decay": v_decay}
        if node.digit_of:
            return _Digit.model_validate({**values, "of": node.digit_of, "digit": node.digit})
        return _Lif.model_validate(values)
    kinds = {IntegerDense: "dense", IntegerFlatten: "flatten", IntegerReadout: "readout"}
    return _Plain.model_validate({"kind": kinds[type(node)], "name": node.name})


def _arrays(net: IntegerNetwork) -> dict[str, NDArray[Any]]:
    """``<weights>``: int16; ``<neurons>.bias``: int32 (C,); ``<neurons>.i_decay``, ``.v_decay``: the same."""
    arrays: dict[str, NDArray[Any]] = {}
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv | IntegerDense):
            arrays[name] = node.weight.astype(np.int16)
        elif isinstance(node, IntegerLif | IntegerReadout):
            arrays[f"{name}.bias"] = node.bias.astype(np.int32)
        if isinstance(node, IntegerLif):
            for key, value in (("i_decay", node.i_decay), ("v_decay", node.v_decay)):
                if np.ndim(value):
                    arrays[f"{name}.{key}"] = np.asarray(value, np.int32)
    return arrays


def program_text(net: IntegerNetwork, shapes: Mapping[str, Shape], size: Size, message_bits: int) -> str:
    """``program.py`` for an expanded network; see :func:`write_program`."""
    context = _Context(net, shapes, plan(net), message_bits)
    return _template().render(size=size, steps=net.host.steps, **context.values())


@cache
def _template() -> Template:
    environment = Environment(
        loader=FileSystemLoader(shipped("export")), undefined=StrictUndefined, keep_trailing_newline=True
    )
    environment.filters["repr"] = repr
    return environment.get_template("lava/program.py.j2")


_TAKEN = {
    *keyword.kwlist,
    *("codes", "layers", "conv", "dense", "neurons", "relays", "codes_later", "build", "np", "Path", "Conv", "Dense"),
    *("Gate", "GateModel", "Source", "LIF", "LIFReset", "SignMode", "ARRAYS", "T", "HOPS", "range", "print"),
}
"""Names that a layer's variable must not hide."""


class _Context:
    """What the template is filled with."""

    def __init__(self, net: IntegerNetwork, shapes: Mapping[str, Shape], planned: Plan, message_bits: int) -> None:
        self.net = net
        self.shapes = shapes
        self.plan = planned
        self.message_bits = message_bits
        self.variables: dict[str, str] = {}

    def values(self) -> dict[str, Any]:
        inputs = sorted({hop.delay for stage in self.plan.stages for hop in stage.hops if self._graded(hop)})
        for delay in inputs:
            self._variable(f"{self.net.input.name}_{delay}", "source" if delay == 0 else f"source_{delay}_later")
        stages = [self._stage(stage) for stage in self.plan.stages]
        relays = [f"{stage['variable']} {stage['relays']}" for stage in stages if stage["relays"]]
        return {
            "hops": self.plan.hops,
            "stages": stages,
            "relays": ", ".join(relays),
            "any_gate": any(hop["gate"] for stage in stages for hop in stage["hops"]),
            "any_dense": any(hop["dense"] for stage in stages for hop in stage["hops"]),
            "late_inputs": [
                {"variable": self.variables[f"{self.net.input.name}_{delay}"], "delay": delay} for delay in inputs
            ],
        }

    def _graded(self, hop: Hop) -> bool:
        return hop.source == self.net.input.name

    def _variable(self, key: str, wish: str) -> str:
        """A Python name for a process: the node's own where that is one."""
        if key not in self.variables:
            name = re.sub(r"[^0-9A-Za-z_]", "_", wish)
            name = f"layer_{name}" if not name or name[0].isdecimal() else name
            while name in _TAKEN or name in self.variables.values():
                name += "_"
            self.variables[key] = name
        return self.variables[key]

    def _axes(self, name: str) -> tuple[int, int, int]:
        """Shape (W, H, C) in the order of Lava's axes."""
        channels, height, width = self.shapes[name]
        return (width, height, channels)

    def _stage(self, stage: Stage) -> dict[str, Any]:
        node = stage.neuron
        # a readout keeps everything in its membrane and nothing in its current
        neuron = node if isinstance(node, IntegerLif) else IntegerLif(node.name, READOUT_VTH, node.bias, v_decay=0)
        late = self.plan.delays(node.name)
        return {
            "name": node.name,
            "variable": self._variable(node.name, node.name),
            "depth": stage.depth,
            "shape": self._axes(node.name),
            "vth": neuron.vth,
            "current_decay": self._decay(node.name, "i_decay", neuron.i_decay),
            "membrane_decay": self._decay(node.name, "v_decay", neuron.v_decay),
            "hops": [self._hop(hop) for hop in stage.hops],
            "relays": late,
            "late": self._variable(f"late {node.name}", f"{node.name}_late") if late else "",
        }

    def _decay(self, name: str, key: str, value: int | IntArray) -> str:
        return str(value) if np.ndim(value) == 0 else f"ARRAYS[{f'{name}.{key}'!r}]"

    def _hop(self, hop: Hop) -> dict[str, Any]:
        node = self.net.nodes[hop.weights]
        graded = self._graded(hop)
        if graded:
            source = self.variables[f"{hop.source}_{hop.delay}"]
        else:
            late = f"late {hop.source}"
            source = f"{self.variables[late]}[{hop.delay}]" if hop.delay else self.variables[hop.source]
        return {
            "variable": self._variable(f"process {hop.process}", hop.process),
            "weights": hop.weights,
            "source": source,
            "gate": self._variable(f"gate {hop.process}", f"gate_{hop.process}") if hop.gated else "",
            "source_shape": self._axes(hop.source),
            "dense": isinstance(node, IntegerDense),
            "message_bits": f", message_bits={self.message_bits}" if graded else "",
            "geometry": _geometry(node),
        }


def _geometry(node: IntegerNode) -> str:
    """Keyword arguments of a convolution that are not the plain ones, pairs in Lava's order (columns, rows)."""
    if not isinstance(node, IntegerConv):
        return ""
    plain = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    said = {key: getattr(node, key) for key in plain}
    words = {key: value if key == "groups" else value[::-1] for key, value in said.items() if value != plain[key]}
    return "".join(f", {key}={value}" for key, value in words.items())


def read_program(folder: Path) -> IntegerNetwork:
    """The integer network of ``network.json`` and ``weights.npz``, in its compact form.

    Raises:
        UserError: They cannot be read, or do not belong together.
    """
    path = folder / NETWORK
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_NETWORK + 1)
        if len(content) > LARGEST_NETWORK:
            raise UserError("is too large for the description of a network", node=str(path))
        data = _File.model_validate_json(content)
    except (OSError, ValidationError) as error:
        first = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(f"cannot be read as the description of a network: {first}", node=str(path)) from error
    arrays = read_npz(folder / WEIGHTS)
    nodes: dict[str, IntegerNode] = {}
    for row in data.nodes:
        if row.name in nodes:
            raise UserError("stands twice in the network", node=f"{path}: {row.name}")
        nodes[row.name] = _node(row, arrays, path)
    kinds = [type(node) for node in nodes.values()]
    try:
        net = IntegerNetwork(nodes, tuple(data.edges), data.host, data.units, data.arithmetic)
    except InternalError as error:
        raise UserError(f"its edges make no network: {error}", node=str(path)) from error
    if kinds.count(IntegerInput) != 1 or kinds.count(IntegerReadout) != 1 or graph_findings(net):
        raise UserError("wants one input, one output, and edges that run forward or feed a layer back", node=str(path))
    return fold_levels(net)


def _node(row: _Row, arrays: Mapping[str, NDArray[Any]], path: Path) -> IntegerNode:
    def take(key: str, dims: int) -> IntArray:
        values = arrays.get(key)
        if values is None or values.ndim != dims or values.dtype.kind != "i" or 0 in values.shape:
            raise UserError(f"{WEIGHTS} has no integers of {dims} axes for it", node=f"{path}: {key}")
        return values.astype(np.int64)

    if isinstance(row, _Input):
        return IntegerInput(row.name, row.channels)
    if isinstance(row, _Conv):
        return IntegerConv(row.name, take(row.name, 4), row.stride, row.padding, row.dilation, row.groups)
    if isinstance(row, _Lif | _Digit):
        i_decay, v_decay = (
            take(f"{row.name}.{key}", 1) if value == "channels" else int(value)
            for key, value in (("i_decay", row.i_decay), ("v_decay", row.v_decay))
        )
        made = IntegerLif(row.name, row.vth, take(f"{row.name}.bias", 1), v_decay, i_decay)
        return replace(made, digit_of=row.of, digit=row.digit) if isinstance(row, _Digit) else made
    if row.kind == "dense":
        return IntegerDense(row.name, take(row.name, 2))
    return IntegerFlatten(row.name) if row.kind == "flatten" else IntegerReadout(row.name, take(f"{row.name}.bias", 1))
