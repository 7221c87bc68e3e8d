"""Target ``onnx``: the network as an ONNX graph that any ONNX runtime computes to the last bit.

Option ``form``: ``integer`` (the chip's integers) or ``float`` (what the NIR graph says). Option ``time``: ``unrolled``
(all steps in one graph) or ``state`` (one step; currents and membranes go in and come out). Option ``host``:
``outside`` (codes in, sums out) or ``inside`` (image in, restored image out).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.errors import Finding, UserError
from neurodeploy.extras import require
from neurodeploy.graph.portable import UNIT
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.network import IntArray, IntegerNetwork, IntegerNode
from neurodeploy.targets.base import Job, Written, feedback_findings, gathered
from neurodeploy.targets.described import rebuilt
from neurodeploy.targets.manifest import Manifest
from neurodeploy.targets.onnx_build import METADATA, Shape, build_model
from neurodeploy.targets.onnx_float import float_findings
from neurodeploy.targets.onnx_integer import WEIGHT_BASE, integer_findings

name = "onnx"
summary = "network.onnx, in integers or floats, equal in onnxruntime to the last bit; teachers export to it, too"
option_values: Mapping[str, tuple[str, ...]] = {
    "form": ("integer", "float"),
    "time": ("unrolled", "state"),
    "host": ("outside", "inside"),
}
profile: str | None = None
template = "onnx/run.py.j2"

NETWORK = "network.onnx"
LARGEST = 1 << 30
"""Bytes of a file that is read."""


def supports(node: IntegerNode) -> Finding | None:
    """Nothing that an integer network holds is beyond the integer form."""
    del node
    return None


def check(job: Job) -> list[Finding]:
    """Sums that are too wide, combinations of options, and for the float form what NIR cannot say."""
    shape = Shape.of(job.options)
    if shape.form == "float":
        findings = gathered(lambda: _expressible(job), NETWORK) + float_findings(job.network)
    else:
        findings = integer_findings(job.network)
    if shape.time == "state":
        why = "a graph of one step does not hand on what is fed back"
        findings += feedback_findings(job.network, why, "option time=unrolled")
    if shape.host == "inside" and shape.time == "state":
        findings.append(
            Finding(
                "option host",
                "the image can only be restored inside of the graph where all time steps are",
                have="host=inside, time=state",
                instead="time=unrolled",
            )
        )
    picture = (job.network.host.network_channels, *job.shapes[job.network.input.name][1:])
    if shape.host == "inside" and job.shapes[job.network.readout.name] != picture:
        findings.append(Finding("option host", "the network's output is no image", instead="host=outside"))
    if any(find_spec(package) is None for package in ("onnx", "onnxruntime")):
        rule = "onnx and onnxruntime are not both installed; without them no file can be written and compared"
        findings.append(Finding(NETWORK, rule, instead="pip install 'neurodeploy[onnx]'", severity="warning"))
    return findings


def _expressible(job: Job) -> list[Finding]:
    grid_network(job.network, job.size)
    return []


def write(job: Job, folder: Path) -> Written:
    """Writes ``network.onnx`` after onnx's own checker has passed it.

    Raises:
        UserError: The package onnx is not installed.
    """
    shape = Shape.of(job.options)
    model = build_model(job.network, job.size, shape)
    require("onnx").checker.check_model(model, full_check=True)
    (folder / NETWORK).write_bytes(model.SerializeToString(deterministic=True))
    return Written(files=(NETWORK,), float_form=shape.form == "float")


def read(folder: Path, manifest: Manifest) -> Mapping[str, IntegerNetwork]:
    """The integer network that ``network.onnx`` holds.

    Its parts are taken from the file, put together again as ``write`` does it, and have to give the file's very bytes:
    nothing in the graph can say something else than the network that comes back.

    Raises:
        UserError: The file is not such a graph.
    """
    net, shape, model = parse_model(folder / NETWORK, manifest)
    again = build_model(net, manifest.image_size, shape)
    if again.SerializeToString(deterministic=True) != model.SerializeToString(deterministic=True):
        raise UserError(
            "is not the graph that its own description gives",
            node=str(folder / NETWORK),
            instead="export it again with this version",
        )
    return {NETWORK: net}


def parse_model(path: Path, manifest: Manifest) -> tuple[IntegerNetwork, Shape, Any]:
    """The network, the shape of the graph and the ``ModelProto`` of a file, by its description and its weights alone.

    Raises:
        UserError: Too large, no ONNX file, or without a sound description.
    """
    onnx = require("onnx")
    if path.stat().st_size > LARGEST:
        raise UserError("is too large", node=str(path), limit=f"{LARGEST} bytes")
    try:
        model = onnx.load_model_from_string(path.read_bytes())
    except Exception as error:  # the protobuf reader's errors have no common base
        raise UserError("is damaged or no ONNX file", node=str(path)) from error
    text = next((entry.value for entry in model.metadata_props if entry.key == METADATA), None)
    if text is None:
        raise UserError("is no graph that this program wrote: it has no description", node=str(path))
    try:
        said = json.loads(text)
        shape = Shape(said["form"], said["time"], said["host"])
        stored = {tensor.name: tensor for tensor in model.graph.initializer}
        read = _integer_weight if shape.form == "integer" else _float_weight

        def weight_of(entry: Mapping[str, Any]) -> IntArray:
            weight = read(onnx, entry, stored)
            return weight if entry["kind"] == "conv" else np.ascontiguousarray(weight.T)

        net = rebuilt(
            said,
            weight_of,
            host=manifest.host,
            units={layer.name: layer.unit for layer in manifest.layers if layer.unit is not None},
            arithmetic=manifest.arithmetic,
        )
    except Exception as error:  # whatever is wrong with a description, the file is not to be used
        raise UserError(f"its description cannot be used: {type(error).__name__}: {error}", node=str(path)) from error
    return net, shape, model


def _integer_weight(onnx: Any, said: Mapping[str, Any], stored: Mapping[str, Any]) -> IntArray:
    """The sum of a weight's digits."""
    whole, factor, place = np.zeros(1, np.int64), int(said["factor"]), 0
    while (key := f"{said['name']}.weight.{place}") in stored:
        whole = whole + onnx.numpy_helper.to_array(stored[key]).astype(np.int64) * factor
        factor, place = factor * WEIGHT_BASE, place + 1
    return whole


def _float_weight(onnx: Any, said: Mapping[str, Any], stored: Mapping[str, Any]) -> IntArray:
    scaled = onnx.numpy_helper.to_array(stored[f"{said['name']}.weight"]).astype(np.float64) / UNIT
    weight: IntArray = np.rint(scaled).astype(np.int64)
    return weight
