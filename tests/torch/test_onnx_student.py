"""A student as torch trains it and as onnxruntime runs it: equal spikes, in integers and floats, every form."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from neurodeploy.graph.spec import StudentSpec
from neurodeploy.model.base import Facts
from neurodeploy.model.student import StudentModel
from neurodeploy.networks.grid import to_grid
from neurodeploy.networks.stored import file_of
from neurodeploy.networks.student import SpikingStudent
from neurodeploy.report.deployable import deployable
from neurodeploy.targets.export import export
from neurodeploy.targets.verify import verify

pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")

SPECS: list[dict[str, Any]] = [
    {"levels": 4, "channels": 3},
    {"levels": 1, "steps": 4},
    {"levels": 2, "depth": 4, "edges": ((1, 3),)},
]


@pytest.mark.parametrize("more", SPECS, ids=str)
def test_onnxruntime_restores_what_torch_restores(tmp_path: Path, more: dict[str, Any]) -> None:
    torch.manual_seed(0)
    student = SpikingStudent(StudentSpec(**{"width": 8, "depth": 3, **more})).eval()
    to_grid(student)
    spec = student.spec
    model = StudentModel(file_of(student), Facts("s"))
    image = np.random.RandomState(0).rand(spec.channels, 18, 22).astype(np.float32)
    with torch.no_grad():
        wanted, seen = student(torch.from_numpy(image)[None], {name: "spikes" for name in student.layer_names})
    for form in ("integer", "float"):
        for time in ("unrolled", "state"):
            out = tmp_path / f"{form}-{time}"
            export(deployable(model, size=(18, 22)), "onnx", out, options={"form": form, "time": time})
            rows = {row["name"]: row for row in verify(out, ["onnxruntime"])["readers"]}
            assert rows["onnxruntime"]["equal"] is True, rows["onnxruntime"]["first_difference"]
    export(deployable(model, size=(18, 22)), "onnx", tmp_path / "inside", options={"host": "inside"})
    session = runtime.InferenceSession(str(tmp_path / "inside" / "network.onnx"), providers=["CPUExecutionProvider"])
    (restored,) = session.run(["restored"], {"image": image[None]})
    np.testing.assert_allclose(restored[0], wanted[0].numpy(), atol=2e-6)
    session = asked(tmp_path / "inside" / "network.onnx", spec, student.layer_names)
    names = [output.name for output in session.get_outputs()]
    values = dict(zip(names, session.run(names, {"image": image[None]}), strict=True))
    for layer in student.layer_names:
        fired = [values[name] for name in names if name.startswith(f"{layer}.spikes.")]
        rate = np.mean(fired, axis=0)
        np.testing.assert_allclose(rate, seen[layer].numpy(), atol=1e-7, err_msg=layer)


def asked(path: Path, spec: StudentSpec, layers: tuple[str, ...]) -> Any:
    """A session whose outputs are every population's spikes in every step."""
    onnx = pytest.importorskip("onnx")
    model = onnx.load(str(path))
    for layer in layers:
        for t in range(spec.steps):
            for d in range(spec.levels):
                model.graph.output.append(onnx.ValueInfoProto(name=f"{layer}.spikes.t{t}.d{d}"))
    return runtime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
