"""Teachers as ONNX graphs: the same numbers in onnxruntime, at every size that the manifest promises."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from neurodeploy.cli import main
from neurodeploy.errors import UserError
from neurodeploy.networks.teachers import Teacher, load_teacher
from neurodeploy.networks.teachers.dncnn import DnCNN
from neurodeploy.networks.teachers.export import export_teacher
from neurodeploy.networks.teachers.ffdnet import FFDNet
from neurodeploy.networks.teachers.nafnet import NAFNet, NAFNetShape

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")


def teacher(network: nn.Module, **more: bool) -> Teacher:
    torch.manual_seed(1)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return Teacher(network, name="t", channels=1, hint_points=(), weights_source="t.pth", **more)


@pytest.mark.parametrize(
    ("made", "multiple"),
    [
        (lambda: teacher(DnCNN(1, 4, 3)), 1),
        (lambda: teacher(FFDNet(1, 4, 3), needs_noise_level=True), 2),
        pytest.param(
            lambda: teacher(NAFNet(NAFNetShape(channels=1, width=2, encoder=(1, 1), middle=1, decoder=(1, 1)))), 4,
        ),
    ],
    ids=["dncnn", "ffdnet", "nafnet"],
)  # fmt: skip
def test_a_teacher_comes_back_with_its_numbers(tmp_path: Path, made: object, multiple: int) -> None:
    original = made()  # type: ignore[operator]
    manifest = export_teacher(original, tmp_path / "out")
    assert manifest["multiple"] == multiple and manifest["parameters"] == original.parameters_count
    data = (tmp_path / "out" / "teacher.onnx").read_bytes()
    assert manifest["files"][0]["sha256"] == hashlib.sha256(data).hexdigest()
    assert json.loads((tmp_path / "out" / "manifest.json").read_text()) == manifest
    again = load_teacher(str(tmp_path / "out" / "teacher.onnx"), channels=1)
    assert again.needs_noise_level == original.needs_noise_level
    x = torch.rand(3, 1, 6 * multiple, 5 * multiple)
    level = torch.tensor([0.1, 0.05, 0.2]) if original.needs_noise_level else None
    torch.testing.assert_close(again.restore(x, level), original.restore(x, level), rtol=1e-5, atol=1e-5)
    with pytest.raises(UserError, match="is an ONNX file already"):
        export_teacher(again, tmp_path / "twice")


class Wavering(nn.Module):
    """What a trace gets wrong: a choice that python makes."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight if x.shape[-1] == 128 else x - 1


def test_a_trace_that_gives_other_numbers_is_refused(tmp_path: Path) -> None:
    wavering = Teacher(Wavering(), name="w", channels=1, hint_points=(), weights_source="w.pth")
    with pytest.raises(UserError, match="onnxruntime gives other numbers than torch"):
        export_teacher(wavering, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_the_verb_writes_a_teacher(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    network = DnCNN(1, 4, 3)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    spec, out = f"dncnn:{tmp_path / 'w.safetensors'}", str(tmp_path / "out")
    assert main(["--json", "export", spec, "--target", "onnx", "--out", out]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["manifest"]["compared"]["largest_difference"] <= 1e-5
    assert np.frombuffer((tmp_path / "out" / "teacher.onnx").read_bytes(), np.uint8).size > 0
    asked = ["export", spec, "--target", "onnx", "--out", out, "--option", "form=float"]
    assert main(asked) == 2
    assert "a teacher has no options" in capsys.readouterr().err
    assert main(["export", spec, "--target", "nir", "--out", out + "2"]) == 2
    assert "without spikes" in capsys.readouterr().err
