"""onnxruntime as a reader of bundles: it runs the file's own bytes, and hands back every population's spikes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.extras import require
from neurodeploy.targets.bundle import Bundle
from neurodeploy.targets.onnx import NETWORK, parse_model
from neurodeploy.targets.onnx_build import CODES, IMAGE, RESTORED, spike_names
from neurodeploy.targets.proof import Spikes

Arrays = Mapping[str, NDArray[Any]]


class OnnxRun:
    """The proof input of a bundle in onnxruntime, in the form that the file has.

    Attributes:
        spikes: Layer -> (T, D * C, h, w).
        output: The integer sum over the steps, or the float mean.
        restored: (C, H, W) float64, where the graph restores the image itself, from integers.
        integers: Whether the file is of the integer form.
    """

    def __init__(self, bundle: Bundle) -> None:
        # our own reader first: it has limits, and refuses what is not the graph of this network
        bundle.networks()
        net, shape, model = parse_model(bundle.path / NETWORK, bundle.manifest)
        names = spike_names(net, shape)
        inside = shape.host == "inside"
        further = [name for steps in names.values() for step in steps for name in step]
        session = _session(model, [*further, shape.output] if inside else further)
        proof, steps = bundle.proof(), net.host.steps
        self.integers = shape.form == "integer"
        self.restored: NDArray[np.float64] | None = None
        if shape.time == "unrolled":
            results = [_run(session, {IMAGE: proof["image"][None]} if inside else {CODES: proof["codes"][None]})]
            self.output = results[0][shape.output][0]
            if inside and self.integers:
                self.restored = results[0][RESTORED][0]
        else:
            results = list(_stepped(session, proof["codes"][None], steps))
            total = np.sum([result[shape.output][0] for result in results], axis=0)
            self.output = total if self.integers else total / steps
        if self.integers:
            self.output = self.output.astype(np.int64)
        self.spikes: dict[str, Spikes] = {
            layer: np.stack(
                [
                    np.concatenate([result[name][0] for name in populations])
                    for result in results
                    for populations in by_step
                ]
            )
            for layer, by_step in names.items()
        }


def _session(model: Any, further: list[str]) -> Any:
    """A session that also gives the tensors named."""
    onnx, runtime = require("onnx"), require("onnxruntime")
    widened = onnx.ModelProto()
    widened.CopyFrom(model)
    widened.graph.output.extend(onnx.ValueInfoProto(name=name) for name in further)
    options = runtime.SessionOptions()
    options.log_severity_level = 3
    return runtime.InferenceSession(widened.SerializeToString(), options, providers=["CPUExecutionProvider"])


def _run(session: Any, feed: Arrays) -> Arrays:
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(feed)), strict=True))


_DTYPES = {"tensor(int64)": np.int64, "tensor(double)": np.float64}


def _stepped(session: Any, codes: NDArray[np.int32], steps: int) -> Any:
    """Step after step; what comes out as a state goes in again, all of it 0 at first."""
    kinds = {entry.name: entry for entry in session.get_inputs() if entry.name != CODES}
    sizes = _state_sizes(session, codes, kinds)
    state = {name: np.zeros(sizes[name], _DTYPES[entry.type]) for name, entry in kinds.items()}
    for _ in range(steps):
        result = _run(session, {CODES: codes, **state})
        state = {name: result[f"{name}.after"] for name in kinds}
        yield result


def _state_sizes(session: Any, codes: NDArray[np.int32], kinds: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """The shapes of the states: a state of one place broadcasts, so a first run tells them."""
    if not kinds:
        return {}
    ones = {name: np.zeros((1, entry.shape[1], 1, 1), _DTYPES[entry.type]) for name, entry in kinds.items()}
    result = _run(session, {CODES: codes, **ones})
    return {name: result[f"{name}.after"].shape for name in kinds}
