"""The spiking student: refusals, the integer grid, files, batch norm, features."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import numpy as np  # noqa: E402
from pydantic import ValidationError  # noqa: E402

from neurodeploy.errors import UserError  # noqa: E402
from neurodeploy.graph.spec import StudentSpec, pixel_shuffle, pixel_unshuffle  # noqa: E402
from neurodeploy.graph.student_file import read_student, write_student  # noqa: E402
from neurodeploy.networks.grid import fold_norms, to_grid  # noqa: E402
from neurodeploy.networks.stored import file_of, student_of  # noqa: E402
from neurodeploy.networks.student import SpikingStudent  # noqa: E402

SPECS: dict[str, dict[str, Any]] = {
    "levels": {"levels": 4, "steps": 1},
    "binary": {"levels": 1, "steps": 4, "decay": 0.5},
    "one-step": {"levels": 1, "steps": 1},
    "edges": {"levels": 3, "steps": 1, "edges": ((1, 2), (1, 3)), "depth": 4, "dilation": (1, 2, 1, 1, 1)},
    "leaky edges": {"levels": 1, "steps": 3, "decay": 0.25, "edges": ((1, 2),)},
    "colour": {"levels": 2, "steps": 1, "channels": 3, "unshuffle": 1, "residual": False},
}


def make(name: str, **more: Any) -> SpikingStudent:
    torch.manual_seed(1)
    student = SpikingStudent(StudentSpec(**{"depth": 3, "width": 8, **SPECS[name], **more}))
    with torch.no_grad():
        for conv in student.convs:
            conv.bias.normal_(std=0.1)
        student.log_delta.copy_(torch.linspace(-0.3, 0.2, student.spec.depth))
    return student


def picture(student: SpikingStudent, height: int = 22, width: int = 17) -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(2, student.spec.channels, height, width, generator=generator)


@pytest.mark.parametrize("name", SPECS)
def test_any_size_goes_in_and_comes_out(name: str) -> None:
    student = make(name)
    x = picture(student)
    with torch.no_grad():
        restored, features = student(x, {"lif0": "membrane", "lif2": "spikes"})
    assert restored.shape == x.shape
    assert set(features) == {"lif0", "lif2"}
    assert float(features["lif2"].min()) >= 0
    assert float(features["lif2"].max()) <= 1
    assert any(float(rate) > 0 for rate in student.rates)


@pytest.mark.parametrize("name", SPECS)
def test_a_file_gives_the_same_student_back(name: str, tmp_path: Path) -> None:
    for on_grid in (False, True):
        student = make(name)
        if on_grid:
            to_grid(student)
        write_student(tmp_path / f"{on_grid}.safetensors", file_of(student, {"name": "x", "task": "denoise"}))
        again = student_of(read_student(tmp_path / f"{on_grid}.safetensors"))
        x = picture(student)
        torch.testing.assert_close(again(x)[0], student(x)[0], rtol=0, atol=2e-6)
        assert bool(again.on_grid) is on_grid


def test_grid_weights_are_even_integers_of_eight_bits_and_pass_gradients() -> None:
    student = make("levels")
    to_grid(student)
    file = file_of(student)
    for layer in range(4):
        assert file.tensors[f"conv{layer}.weight"].dtype == np.int8
        # the first layer's currents are those of integer codes: its biases take bits from its weights
        assert int(np.abs(file.tensors[f"conv{layer}.weight"].astype(int)).max()) >= (32 if layer == 0 else 64)
    assert file.tensors["lif0.vth"].tolist() == sorted(file.tensors["lif0.vth"].tolist())
    student(picture(student))[0].square().mean().backward()
    assert all(float(conv.weight.grad.abs().sum()) > 0 for conv in student.convs)
    assert float(student.log_delta.grad.abs().sum()) > 0


def test_layers_joined_by_an_edge_share_one_step() -> None:
    student = make("edges")
    to_grid(student)
    steps = student.weight_steps.tolist()
    assert steps[1] == steps[2] == steps[3]
    assert len(set(steps)) == 3


def test_batch_norm_folds_without_a_change() -> None:
    student = make("levels", norm="batch")
    student.train()
    for _ in range(5):
        student(picture(student))
    student.eval()
    x = picture(student)
    before = student(x)[0]
    fold_norms(student)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in student.modules())
    torch.testing.assert_close(student(x)[0], before, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_host_pixel_shuffle_is_that_of_torch(factor: int) -> None:
    image = torch.arange(2 * 12 * 18).reshape(2, 12, 18)
    blocks = pixel_unshuffle(image.numpy(), factor)
    np.testing.assert_array_equal(blocks, torch.pixel_unshuffle(image, factor).numpy())
    np.testing.assert_array_equal(pixel_shuffle(blocks.astype(np.float64), factor), image.numpy())


@pytest.mark.parametrize(
    ("values", "word"),
    [
        ({"levels": 4, "steps": 2}, "levels"),
        ({"kernel": 4}, "kernel"),
        ({"decay": 0.3, "steps": 4}, "decay"),
        ({"decay": 0.5, "steps": 1}, "decay"),
        ({"edges": ((2, 1),)}, "edges"),
        ({"edges": ((1, 9),)}, "edges"),
        ({"edges": ((0, 2),)}, "not the first"),
        ({"dilation": (1, 2)}, "dilation"),
        ({"upsample": True}, "upsample"),
        ({"channels": 2}, "channels"),
    ],
)
def test_what_a_chip_cannot_hold_is_refused(values: dict[str, Any], word: str) -> None:
    with pytest.raises(ValidationError, match=word):
        StudentSpec(**values)


def test_norse_dynamics_equal_ours_in_a_whole_student() -> None:
    pytest.importorskip("norse", reason="needs the train extra")
    # on the integer grid no membrane ties with a threshold, so the spikes have to be equal
    ours = make("binary")
    to_grid(ours)
    theirs = student_of(file_of(ours), dynamics="norse")
    x = picture(ours)
    torch.testing.assert_close(theirs(x)[0], ours(x)[0], rtol=0, atol=1e-5)


def test_norse_has_no_integer_levels() -> None:
    with pytest.raises(UserError, match="levels"):
        SpikingStudent(StudentSpec(levels=4, steps=1), dynamics="norse")
