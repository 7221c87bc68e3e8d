"""Reading netx files, our own and those of others, into integer networks.

Lava's own loader skips a layer type it does not know, ignores delays of convolutions and checks no link or size; this
reader refuses each of them by name, all at once. What it returns is the zero-delay network: the delay of a step a hop
and the staggered resets of a run on Lava are the runner's affair.
"""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import h5py
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from neurodeploy.errors import Finding, FindingsError, UserError
from neurodeploy.graph.hdf5 import check_objects, first_line
from neurodeploy.graph.spec import HostSide
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.levels import fold_levels
from neurodeploy.quantize.network import (
    IntArray,
    IntegerConv,
    IntegerDense,
    IntegerLif,
    IntegerNetwork,
)
from neurodeploy.targets.lava_chain import HINTS
from neurodeploy.targets.lava_parts import Chain, Read, Shape, plain_host, three

LARGEST_DATASET = 1 << 26
"""Elements of one dataset; the largest layer of a chip has hundreds of times fewer weights."""
MOST_LAYERS = 1000
NEURONS = ("CUBA", "LOIHI")
LAYERS = ("input", "conv", "dense", "flatten")


class _Hints(BaseModel):
    """What our own files say beside what netx reads."""

    model_config = ConfigDict(extra="forbid")

    arithmetic: str
    host: HostSide
    names: list[str]
    units: dict[str, float]


@dataclass(frozen=True)
class NetFile:
    """What a netx file holds.

    Attributes:
        network: The chain. Its host side is that of the file's hints, or a plain one where the file has none: one
            step, no residual, codes that are the pixels.
        input_shape: (C, h, w) that the arrays of the file were written for.
        hinted: Whether the file carries the hints that the program writes.
    """

    network: IntegerNetwork
    input_shape: tuple[int, int, int]
    hinted: bool


def read_net(path: str | Path) -> IntegerNetwork:
    """The integer network of a netx file; in its compact form where the program wrote it. See :func:`read_net_file`."""
    found = read_net_file(path)
    return fold_levels(found.network) if found.hinted else found.network


def read_net_file(path: str | Path) -> NetFile:
    """Reads a netx file of convolutions, dense layers, flattens and current-based LIF neurons.

    A file whose last block cannot spike (vDecay 0, vThMant 131071) ends in a readout of its membrane; any other file
    gets a readout that counts the spikes of its last layer. A spiking input layer is driven by its bias in Lava; here
    the codes are its current, which is the same with iDecay 4096.

    Raises:
        UserError: Not an HDF5 file, or (as FindingsError) holds what the chain form or the arithmetic does not have.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such file", node=str(path))
    try:
        with h5py.File(path, "r") as file:
            return _Reader(path, file).read()
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as a netx file: {first_line(error)}", node=str(path)) from error


class _Reader:
    """One file, and the findings gathered on the way."""

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self.file = file
        self.findings: list[Finding] = []

    def read(self) -> NetFile:
        """The whole file."""
        check_objects(self.path, self.file)
        layers = self.file.get("layer")
        if not isinstance(layers, h5py.Group) or not len(layers):
            self.findings.append(Finding("layer", "is missing: not a netx file"))
        self._raise()
        order = sorted(layers, key=lambda name: (not name.isdecimal(), int(name) if name.isdecimal() else 0, name))
        if order != [str(number) for number in range(len(order))] or len(order) > MOST_LAYERS:
            have = f"{', '.join(order[:5])} ... {len(order)} in all"
            self.findings.append(Finding("layer", "layers must be numbered without gaps from 0", have))
            self._raise()
        chain = Chain()
        for name in order:
            self._layer(f"layer/{name}", layers[name], chain)
        self._raise()
        return self._finish(chain)

    def _raise(self) -> None:
        if self.findings:
            raise FindingsError(f"{self.path}: not a usable netx file", self.findings, exit_code=2)

    def _layer(self, where: str, group: h5py.Group | h5py.Dataset, chain: Chain) -> None:
        if not isinstance(group, h5py.Group):
            self.findings.append(Finding(where, "is no layer"))
            return
        kind = self._text(where, group, "type")
        if kind == "flatten":
            chain.flattened = True
        elif kind == "input":
            self._input(where, group, chain)
        elif kind in ("conv", "dense"):
            self._block(where, group, chain, "conv" if kind == "conv" else "dense")
        elif kind is not None:
            have, limit = repr(kind), ", ".join(LAYERS)
            self.findings.append(Finding(f"{where}/type", "unknown layer (netx would skip it silently)", have, limit))

    def _text(self, where: str, group: h5py.Group, key: str) -> str | None:
        item = group.get(key)
        if not isinstance(item, h5py.Dataset) or item.size != 1:
            self.findings.append(Finding(f"{where}/{key}", "is missing or not one string"))
            return None
        value = np.asarray(item[()]).reshape(-1)[0]
        return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)

    def _integers(self, where: str, group: h5py.Group, key: str) -> IntArray | None:
        """A dataset of integers; floats must hold exact ones, because netx truncates them."""
        item = group.get(key)
        if not isinstance(item, h5py.Dataset):
            self.findings.append(Finding(f"{where}/{key}", "is missing"))
            return None
        if item.size > LARGEST_DATASET:
            have, limit = str(item.shape), f"{LARGEST_DATASET} elements"
            self.findings.append(Finding(f"{where}/{key}", "is too large", have, limit))
            return None
        values = np.asarray(item[()])
        if values.dtype.kind not in "iufb" or not np.isfinite(values).all():
            self.findings.append(Finding(f"{where}/{key}", "holds no finite numbers", have=str(values.dtype)))
            return None
        whole = values.astype(np.int64)
        if not np.array_equal(whole, values):
            self.findings.append(Finding(f"{where}/{key}", "holds values that are no integers"))
            return None
        return whole

    def _pair(self, where: str, group: h5py.Group, key: str) -> tuple[int, int]:
        values = self._integers(where, group, key)
        if values is None:
            return (1, 1)
        if values.size not in (1, 2):
            self.findings.append(Finding(f"{where}/{key}", "wants one or two values", str(values.tolist())))
            return (1, 1)
        flat = values.reshape(-1).tolist()
        return (int(flat[0]), int(flat[-1]))

    def _shape(self, where: str, group: h5py.Group) -> Shape | None:
        """(C, h, w) of a layer."""
        values = self._integers(where, group, "shape")
        if values is None:
            return None
        if not 1 <= values.size <= 3 or values.min() < 1 or math.prod(values.reshape(-1).tolist()) > LARGEST_DATASET:
            self.findings.append(Finding(f"{where}/shape", "is no shape", str(values.tolist())[:80], "1 to 3 numbers"))
            return None
        return three(tuple(values.reshape(-1).tolist()))

    def _input(self, where: str, group: h5py.Group, chain: Chain) -> None:
        shape = self._shape(where, group)
        if chain.blocks or chain.input_shape:
            self.findings.append(Finding(where, "stands behind another layer", limit="the first"))
        elif shape is not None:
            chain.input_shape = shape
        if "neuron" in group and chain.input_shape:
            neuron = self._neuron(where, group, np.zeros(chain.input_shape[0], np.int64))
            if neuron is not None and np.any(np.asarray(neuron.i_decay) != 4096):
                have = str(neuron.i_decay)
                self.findings.append(Finding(f"{where}/neuron/iDecay", "a spiking input needs 4096", have))
            chain.blocks.append(Read(where, None, neuron, chain.input_shape))

    def _block(self, where: str, group: h5py.Group, chain: Chain, kind: Literal["conv", "dense"]) -> None:
        weight = self._integers(where, group, "weight")
        outputs = self._shape(where, group)
        delay = self._integers(where, group, "delay") if "delay" in group else None
        if delay is not None and np.any(delay):
            self.findings.append(Finding(f"{where}/delay", "delays are not part of the chain form"))
        if weight is None or outputs is None:
            return
        node = self._conv(where, group, weight) if kind == "conv" else self._dense(where, weight, math.prod(outputs))
        if node is None:
            return
        channels = outputs[0] if kind == "conv" else math.prod(outputs)
        neuron = self._neuron(where, group, self._bias(where, group, channels, outputs))
        shape3 = outputs if kind == "conv" else (channels, 1, 1)
        chain.blocks.append(Read(where, node, neuron, shape3, chain.flattened))
        chain.flattened = False

    def _conv(self, where: str, group: h5py.Group, weight: IntArray) -> IntegerConv | None:
        if weight.ndim == 5 and weight.shape[4] == 1:
            weight = weight[..., 0]
        if weight.ndim != 4 or 0 in weight.shape:
            self.findings.append(Finding(f"{where}/weight", "wants (out, in, rows, columns)", str(weight.shape)))
            return None
        groups = self._integers(where, group, "groups")
        stride, padding, dilation = (self._pair(where, group, key) for key in ("stride", "padding", "dilation"))
        count = int(groups.reshape(-1)[0]) if groups is not None and groups.size == 1 else 0
        if not 1 <= count <= 127 or len(weight) % max(count, 1):
            self.findings.append(Finding(f"{where}/groups", "is out of range", str(count), "1..127"))
            return None
        if min(stride) < 1 or min(dilation) < 1 or min(padding) < 0:
            self.findings.append(Finding(where, "stride, dilation or padding is out of range"))
            return None
        return IntegerConv("", weight, stride, padding, dilation, count)

    def _dense(self, where: str, weight: IntArray, outputs: int) -> IntegerDense | None:
        if weight.ndim == 1 and outputs and weight.size % outputs == 0:
            weight = weight.reshape(outputs, -1)
        if weight.ndim != 2 or len(weight) != outputs:
            self.findings.append(Finding(f"{where}/weight", "wants (out, in)", str(weight.shape), f"out = {outputs}"))
            return None
        return IntegerDense("", weight)

    def _bias(self, where: str, group: h5py.Group, channels: int, shape: tuple[int, int, int]) -> IntArray:
        zero = np.zeros(channels, np.int64)
        if "bias" not in group:
            return zero
        bias = self._integers(where, group, "bias")
        if bias is None:
            return zero
        if bias.shape == (channels,):
            return bias
        if bias.size == 1:
            return np.full(channels, int(bias.reshape(-1)[0]))
        if bias.shape == shape[::-1] and np.array_equal(bias, np.broadcast_to(bias[0, 0], bias.shape)):
            return np.ascontiguousarray(bias[0, 0])
        self.findings.append(Finding(f"{where}/bias", "is not one value a channel", str(bias.shape), f"({channels},)"))
        return zero

    def _neuron(self, where: str, group: h5py.Group, bias: IntArray) -> IntegerLif | None:
        neuron = group.get("neuron")
        where = f"{where}/neuron"
        if not isinstance(neuron, h5py.Group):
            self.findings.append(Finding(where, "is missing"))
            return None
        kind = self._text(where, neuron, "type")
        if kind is None:
            return None
        if kind not in NEURONS:
            self.findings.append(Finding(f"{where}/type", "unknown neuron", repr(kind), " or ".join(NEURONS)))
            return None
        decays = [self._decay(where, neuron, key, len(bias)) for key in ("iDecay", "vDecay")]
        vth = self._integers(where, neuron, "vThMant")
        if vth is None or vth.size == 0 or vth.min() != vth.max():
            self.findings.append(Finding(f"{where}/vThMant", "wants one threshold a layer"))
            return None
        return IntegerLif("", int(vth.reshape(-1)[0]), bias, v_decay=decays[1], i_decay=decays[0])

    def _decay(self, where: str, group: h5py.Group, key: str, channels: int) -> int | IntArray:
        values = self._integers(where, group, key)
        if values is None:
            return 4096
        if values.size not in (1, channels) or values.min() < 0 or values.max() > 4096:
            self.findings.append(Finding(f"{where}/{key}", "is out of range", str(values.tolist())[:80], "0..4096"))
            return 4096
        flat = values.reshape(-1)
        return int(flat[0]) if flat.min() == flat.max() else flat

    def _finish(self, chain: Chain) -> NetFile:
        if not chain.input_shape or not chain.blocks:
            self.findings.append(Finding("layer/0", "no input shape, or no layer behind the input"))
            self._raise()
        hints = self._hints()
        nodes = list(chain.nodes())
        if hints is not None and len(hints.names) == len(nodes) == len(set(hints.names)):
            nodes = [replace(node, name=name) for node, name in zip(nodes, hints.names, strict=True)]
        names = [node.name for node in nodes]
        shape = chain.input_shape or (1, 1, 1)
        network = IntegerNetwork(
            nodes=dict(zip(names, nodes, strict=True)),
            edges=tuple(itertools.pairwise(names)),
            host=hints.host if hints else plain_host(shape[0]),
            units={name: value for name, value in hints.units.items() if name in names} if hints else {},
            arithmetic=hints.arithmetic if hints else "loihi2",
        )
        self._check_shapes(network, chain)
        return NetFile(network, shape, hinted=hints is not None)

    def _check_shapes(self, network: IntegerNetwork, chain: Chain) -> None:
        """Whether every block's weights lead to the shape that the file says it has."""
        _, height, width = chain.input_shape or (1, 1, 1)
        factor = network.host.unshuffle
        try:
            shapes = layer_shapes(network, (height * factor, width * factor))
        except UserError as error:
            self.findings.append(Finding(error.node, error.message, error.have, error.limit, error.instead))
            self._raise()
            raise
        weighted = [name for name, node in network.nodes.items() if isinstance(node, IntegerConv | IntegerDense)]
        blocks = [block for block in chain.blocks if block.weights is not None]
        for name, block in zip(weighted, blocks, strict=True):
            if shapes[name] != block.shape:
                have, limit = str(block.shape), str(shapes[name])
                self.findings.append(Finding(f"{block.where}/shape", "its weights lead to another shape", have, limit))
        self._raise()

    def _hints(self) -> _Hints | None:
        item = self.file.get(HINTS)
        if not isinstance(item, h5py.Dataset):
            return None
        try:
            return _Hints.model_validate(json.loads(bytes(item[()])))
        except (ValidationError, ValueError, TypeError) as error:
            first = str(error).splitlines()[0]
            raise UserError(f"its hints are refused: {first}", node=f"{self.path}: {HINTS}") from error
