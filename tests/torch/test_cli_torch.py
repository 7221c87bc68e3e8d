"""Models that need torch, through the zoo and the command line."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import numpy as np  # noqa: E402

from neurodeploy.graph.spec import StudentSpec  # noqa: E402
from neurodeploy.model import Facts, Model, StudentModel  # noqa: E402
from neurodeploy.networks.student import SpikingStudent  # noqa: E402

SPECS: dict[str, dict[str, Any]] = {
    "levels": {"levels": 3, "steps": 1},
    "one step": {"levels": 1, "steps": 1},
    "several steps, no leak left": {"levels": 1, "steps": 3},
    "edges": {"levels": 2, "steps": 1, "edges": ((1, 2), (1, 3)), "depth": 4},
    "colour": {"levels": 2, "steps": 1, "channels": 3},
}


def _student(name: str) -> SpikingStudent:
    torch.manual_seed(0)
    student = SpikingStudent(StudentSpec(**{"width": 8, "depth": 3, **SPECS[name]})).eval()
    with torch.no_grad():
        for conv in student.convs:
            conv.bias.normal_(std=0.1)
    return student


@pytest.mark.parametrize("name", SPECS)
def test_what_is_trained_is_what_is_simulated(name: str) -> None:
    student = _student(name)
    student.to_grid()
    image = np.random.default_rng(0).random((student.spec.channels, 21, 18)).astype(np.float32)
    with torch.no_grad():
        trained = student(torch.from_numpy(image)[None])[0][0].numpy()
    model = StudentModel(student.to_file({}), Facts("student"))
    assert float(np.abs(trained - image).max()) > 0.01
    np.testing.assert_allclose(model.restorer("fixed")(image), trained, atol=1e-5)


@pytest.mark.parametrize("name", SPECS)
@pytest.mark.parametrize("on_grid", [False, True])
def test_float_by_torch_equals_float_by_the_graph(name: str, on_grid: bool) -> None:
    student = _student(name)
    if on_grid:
        student.to_grid()
    model = StudentModel(student.to_file({}), Facts("student"))
    image = np.random.default_rng(1).random((student.spec.channels, 13, 16)).astype(np.float32)
    by_torch = model.restorer("float")(image)
    by_graph = Model._float(model, "cpu")(image)
    np.testing.assert_allclose(by_torch, by_graph, atol=1e-5)
