"""The proof in a bundle: a small input, every layer's spikes, the output, and how near a threshold anything came."""

from __future__ import annotations

import io
import math
import struct
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.files import npy_header
from neurodeploy.graph.spec import DECAY_ONE, HostSide, threshold_offset
from neurodeploy.quantize.network import IntArray, IntegerLif, IntegerNetwork
from neurodeploy.simulate.observe import LayerTrace, Trace
from neurodeploy.simulate.reference import LIMIT, decay, run
from neurodeploy.targets.manifest import ProofLayer

Arrays = Mapping[str, NDArray[Any]]
Spikes = NDArray[np.bool_]

LARGEST_ARRAY = 1 << 30
"""Bytes of one array of a proof."""


@dataclass(frozen=True)
class IntegerRun:
    """What the reference simulator gives on the proof input.

    Attributes:
        image: (C, H, W) float32.
        codes: (C, h, w).
        spikes: Layer -> (T, D * C, h, w), populations as channels.
        margins: Layer -> smallest distance from the threshold that was met, in units of current.
        readout: (C, h', w'), sum over the time steps.
        restored: (C, H, W) float64; None where the output has another shape than the input.
    """

    image: NDArray[np.float32]
    codes: IntArray
    spikes: Mapping[str, Spikes]
    margins: Mapping[str, float]
    readout: IntArray
    restored: NDArray[np.float64] | None

    def layers(self) -> list[ProofLayer]:
        """The layers as the manifest lists them."""
        return [proof_layer(name, spikes, self.margins[name]) for name, spikes in self.spikes.items()]


@dataclass(frozen=True)
class FloatRun:
    """What the float interpretation of a NIR graph gives on the proof input.

    Attributes:
        spikes: Layer -> (T, C, h, w).
        margins: Layer -> smallest ``|v - threshold|`` before the reset, in units of the graph.
        output: (C, h', w') float64, mean over the time steps of the output node.
    """

    spikes: Mapping[str, Spikes]
    margins: Mapping[str, float]
    output: NDArray[np.float64]

    def layers(self) -> list[ProofLayer]:
        """The layers as the manifest lists them."""
        return [proof_layer(name, spikes, self.margins[name]) for name, spikes in self.spikes.items()]


def proof_layer(name: str, spikes: Spikes, margin: float) -> ProofLayer:
    """One row of the manifest."""
    steps, channels, height, width = spikes.shape
    return ProofLayer(name=name, shape=(steps, channels, height, width), spikes=int(spikes.sum()), margin=margin)


def integer_run(net: IntegerNetwork, image: NDArray[np.floating[Any]]) -> IntegerRun:
    """Runs the reference simulator on an image and keeps every spike.

    Args:
        net: The network in its compact form.
        image: (C, H, W) in [0, 1].
    """
    exact = image.astype(np.float32)
    codes = net.host.encode(exact)
    trace = Trace(net.host.steps)
    readout = run(net, codes, observer=trace)
    spikes, margins = {}, {}
    for node in net.lifs():
        kept = trace.layers[node.name]
        spikes[node.name] = kept.fired.reshape(len(kept.fired), -1, *kept.fired.shape[3:])
        margins[node.name] = smallest_margin(node, kept)
    restored = None
    if readout.shape == net.host.output_shape(codes):
        restored = net.host.decode(readout * (net.units.get(net.readout.name, 1.0) / net.host.steps), exact)
    return IntegerRun(exact, codes, spikes, margins, readout, restored)


def smallest_margin(node: IntegerLif, trace: LayerTrace) -> float:
    """Smallest distance of a membrane, before its reset, from where the real threshold lies.

    ``min |v / 64 - (vth + o)|`` over neurons, populations and steps, in units of current. Where membranes hold whole
    units, o is 1/2, and so is the least that can come out; elsewhere o is that of
    :func:`neurodeploy.graph.spec.threshold_offset`, between two values that the chip can hold.
    """
    bias = np.add.outer(np.asarray(node.levels, np.int64), node.bias)[:, :, None, None]
    v_decay = node.v_decay if isinstance(node.v_decay, int) else np.reshape(node.v_decay, (-1, 1, 1))
    whole = np.all(np.isin(node.v_decay, (0, DECAY_ONE))) and np.all(np.asarray(node.i_decay) == DECAY_ONE)
    threshold = (node.vth + threshold_offset(1.0 if whole else 0.5)) * 64
    before = np.zeros_like(trace.v[0])
    smallest = math.inf
    for u, v in zip(trace.u, trace.v, strict=True):
        reached = np.clip(decay(before, v_decay) + u + (bias << 6), 1 - LIMIT, LIMIT - 1)
        smallest = min(smallest, float(np.abs(reached - threshold).min()) / 64)
        before = v
    return smallest


def synthetic_image(host: HostSide, size: tuple[int, int]) -> NDArray[np.float32]:
    """A made-up picture for networks that come without one: a ramp, an edge, a fine pattern and noise.

    Returns:
        (C, H, W) float32, a pure function of the arguments; every value is a multiple of 1/1024.
    """
    rows, columns = np.mgrid[0 : size[0], 0 : size[1]]
    ramp = (rows + 2 * columns) / (size[0] + 2 * size[1])
    edge = np.where(columns > rows, 0.3, -0.1)
    pattern = 0.15 * ((rows // 2 + columns // 3) % 2)
    noise = np.random.RandomState(0).uniform(-0.2, 0.2, (host.channels, *size))
    picture = 0.25 + 0.4 * ramp + edge + pattern + noise
    whole: NDArray[np.float32] = (np.rint(picture * 1024) / 1024).astype(np.float32)
    return whole


def proof_arrays(result: IntegerRun, floats: FloatRun | None = None) -> dict[str, NDArray[Any]]:
    """The arrays of ``proof.npz``, spikes packed eight a byte; those of the float interpretation where they differ."""
    arrays: dict[str, NDArray[Any]] = {
        "image": result.image,
        "codes": result.codes.astype(np.int32),
        "readout": result.readout.astype(np.int64),
    }
    if result.restored is not None:
        arrays["restored"] = result.restored
    arrays |= {f"spikes/{name}": np.packbits(spikes) for name, spikes in result.spikes.items()}
    if floats is not None:
        arrays["float_output"] = floats.output
        arrays |= {f"float_spikes/{name}": np.packbits(spikes) for name, spikes in floats.spikes.items()}
    return arrays


def unpack(packed: NDArray[np.uint8], shape: tuple[int, ...]) -> Spikes:
    """Spikes (T, C, h, w) from eight a byte."""
    return np.unpackbits(packed, count=math.prod(shape)).reshape(shape).astype(np.bool_)


def npz_bytes(arrays: Arrays) -> bytes:
    """An ``.npz`` file that depends on the arrays alone: in the order given, not compressed, dated 1980-01-01."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            entry = zipfile.ZipInfo(f"{name}.npy", date_time=(1980, 1, 1, 0, 0, 0))
            entry.external_attr = 0o644 << 16
            entry.create_system = 3
            member = io.BytesIO()
            np.lib.format.write_array(member, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
            archive.writestr(entry, member.getvalue())
    return out.getvalue()


def read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a proof; nothing compressed, no objects, no array larger than its own bytes.

    Raises:
        UserError: Not such a file.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for entry in archive.infolist():
                if entry.compress_type != zipfile.ZIP_STORED or not entry.filename.endswith(".npy"):
                    raise UserError("holds a member that is compressed or no array", node=f"{path}: {entry.filename}")
                if entry.file_size > path.stat().st_size:
                    raise UserError("holds a member that is larger than it", node=f"{path}: {entry.filename}")
                arrays[entry.filename.removesuffix(".npy")] = _array(archive.read(entry), f"{path}: {entry.filename}")
    # zipfile raises RuntimeErrors for other versions and encrypted members, and what struct raises
    except (OSError, zipfile.BadZipFile, ValueError, EOFError, RuntimeError, struct.error) as error:
        raise UserError(f"cannot be read as the arrays of a proof: {error}", node=str(path)) from error
    return arrays


def _array(data: bytes, where: str) -> NDArray[Any]:
    stream = io.BytesIO(data)
    if data[6:8] != b"\x01\x00":
        raise UserError("is of another version of the npy format", node=where, limit="1.0")
    shape, fortran, dtype = npy_header(stream)
    size = math.prod(shape) * dtype.itemsize
    if dtype.hasobject or fortran or size > LARGEST_ARRAY or size != len(data) - stream.tell():
        raise UserError("holds objects, or another number of bytes than its shape wants", node=where)
    return np.frombuffer(data, dtype, offset=stream.tell()).reshape(shape)
