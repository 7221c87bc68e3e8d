"""Writing the netx file, Lava's HDF5 description of a chain.

The layout is stated on one page, ``export/lava/README.md``. Every value is a dataset; the bytes depend on the network
alone (no times, fixed order). Weights and biases are float32 that hold exact integers, because netx truncates them.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import InternalError
from neurodeploy.quantize.network import IntArray, IntegerConv, IntegerNetwork
from neurodeploy.targets.lava_chain import HINTS, Block, blocks


def write_net(path: Path, net: IntegerNetwork, shapes: Mapping[str, tuple[int, int, int]]) -> None:
    """Writes a chain as ``network.net``.

    Args:
        path: The file, replaced if it exists.
        net: An expanded network without findings of :mod:`neurodeploy.targets.lava_chain`.
        shapes: Node name -> (C, h, w) of its output.
    """
    # by way of memory: HDF5 ends the process where it cannot write to the disk itself
    content = io.BytesIO()
    with h5py.File(content, "w", libver="earliest") as file:
        _put(file, HINTS, np.bytes_(json.dumps(_hints(net), sort_keys=True)))
        layers = file.create_group("layer")
        number = 0
        group = layers.create_group(str(number))
        _put(group, "type", np.array([b"input"], "S10"))
        _put(group, "shape", np.array(shapes[net.input.name], np.int64))
        for block in blocks(net):
            if block.flattened:
                number += 1
                _put(layers.create_group(str(number)), "type", np.array([b"flatten"], "S10"))
            number += 1
            _put_block(layers.create_group(str(number)), block, shapes[block.neuron.name])
    path.write_bytes(content.getbuffer())


def _hints(net: IntegerNetwork) -> dict[str, Any]:
    return {
        "arithmetic": net.arithmetic,
        "host": net.host.model_dump(mode="json"),
        "names": list(net.nodes),
        "units": dict(net.units),
    }


def _put(group: h5py.Group, key: str, value: NDArray[Any] | np.generic) -> None:
    group.create_dataset(key, data=value, track_times=False)


def _put_block(group: h5py.Group, block: Block, shape: tuple[int, int, int]) -> None:
    weight = block.weights.weight
    conv = isinstance(block.weights, IntegerConv)
    _put(group, "type", np.array([b"conv" if conv else b"dense"], "S10"))
    _put(group, "shape", np.array(shape if conv else shape[:1], np.int64))
    _put(group, "weight", exact_float32(weight))
    _put(group, "bias", exact_float32(block.neuron.bias))
    if isinstance(block.weights, IntegerConv):
        node = block.weights
        for key, pair in (("stride", node.stride), ("padding", node.padding), ("dilation", node.dilation)):
            _put(group, key, np.array(pair, np.int64))
        _put(group, "groups", np.int64(node.groups))
        _put(group, "inChannels", np.int64(weight.shape[1] * node.groups))
        _put(group, "outChannels", np.int64(len(weight)))
        _put(group, "kernelSize", np.array(weight.shape[2:], np.int64))
    else:
        _put(group, "inFeatures", np.int64(weight.shape[1]))
        _put(group, "outFeatures", np.int64(len(weight)))
    neuron = group.create_group("neuron")
    _put(neuron, "type", np.bytes_("CUBA"))
    for key, value in (("iDecay", block.i_decay), ("vDecay", block.v_decay), ("vThMant", block.vth)):
        _put(neuron, key, np.asarray(value, np.int64))
    _put(neuron, "refDelay", np.int64(1))
    _put(neuron, "gradedSpike", np.bool_(False))


def exact_float32(values: IntArray) -> NDArray[np.float32]:
    """The integers as float32.

    Raises:
        InternalError: One of them has no exact float32.
    """
    floats = values.astype(np.float32)
    if not np.array_equal(floats.astype(np.int64), values):
        raise InternalError("an integer beyond 24 bits cannot be written as float32")
    return floats
