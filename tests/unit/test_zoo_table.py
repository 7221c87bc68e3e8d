"""The zoo's table: what is scored, what is written where, what is refused. No torch."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from neurodeploy import shipped as shipped_module
from neurodeploy import zoo
from neurodeploy.cli.app import cli
from neurodeploy.errors import UserError
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import StudentFile, write_student
from neurodeploy.images.io import write_image
from neurodeploy.report import score, zoo_table
from neurodeploy.report.score import score_student, write_between
from neurodeploy.report.zoo_table import read_protocol

PROTOCOL = """
[[score]]
model = "tiny"
set = "Two pictures, sigma 25"
data = "two"
degradation = "gaussian:25"

[[score]]
model = "tiny"
set = "Not there"
data = "elsewhere"
"""


def tiny_student(path: Path) -> None:
    """A student that gives every picture back as it is: its last weights are 0."""
    spec = StudentSpec(width=3, depth=1, levels=2, unshuffle=2)
    rng = np.random.default_rng(0)
    tensors = {
        "conv0.weight": rng.integers(-5, 6, (3, 4, 3, 3)).astype(np.int8),
        "conv0.bias": np.zeros(3, np.int32),
        "conv0.step": np.float64(0.01),
        "lif0.vth": np.array([20, 61], np.int32),
        "conv1.weight": np.zeros((4, 3, 3, 3), np.int8),
        "conv1.bias": np.zeros(4, np.int32),
        "conv1.step": np.float64(0.01),
    }
    meta = {"task": "denoise", "name": "tiny", "degradation": {"kind": "gaussian", "sigma": 25}}
    write_student(path, StudentFile(spec=spec, tensors=tensors, quantized=True, meta=meta))


@pytest.fixture
def models(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A zoo of one student with a card, its protocol, and two pictures."""
    folder = tmp_path / "models" / "tiny"
    folder.mkdir(parents=True)
    tiny_student(folder / "weights.safetensors")
    (folder / "model.toml").write_text(
        'name = "tiny"\nkind = "student"\ntask = "denoise"\nsummary = "none"\n'
        'weights = "weights.safetensors"\ncard = "card.md"\n'
    )
    (folder / "card.md").write_text("# tiny\n\n<!-- zoo-table -->\nold\n<!-- /zoo-table -->\nend\n")
    (tmp_path / "models" / "protocol.toml").write_text(PROTOCOL)
    (tmp_path / "sets" / "two").mkdir(parents=True)
    for i in range(2):
        wave = 0.5 + 0.4 * np.sin(np.mgrid[0:24, 0:21][i] / (2.0 + i))
        write_image(tmp_path / "sets" / "two" / f"{i}.png", wave[None].astype(np.float32))
    for module in (zoo, zoo_table, shipped_module):
        monkeypatch.setattr(module, "shipped", lambda name: tmp_path / name)
    monkeypatch.setattr(score, "score_student", score_student)
    # the stages before the integers need torch
    monkeypatch.setattr(zoo_table, "score_student", lambda *of, **more: score_student(*of, **more, stages=False))
    return tmp_path


def call(*arguments: str, code: int = 0) -> str:
    answer = CliRunner().invoke(cli, ["-q", *arguments])
    assert answer.exit_code == code, answer.output
    return answer.output


def test_every_line_that_can_be_scored_is(models: Path) -> None:
    page = models / "page.md"
    page.write_text("before\n<!-- zoo-table -->\n<!-- /zoo-table -->\nafter\n")
    sheet = models / "sheet.png"
    arguments = ["--sets", str(models / "sets"), "--into", str(page), "--cards", "--sheet", str(sheet)]
    found = json.loads(call("--json", "models", "--score", *arguments))
    (row,) = found["scores"]
    assert row["set"] == "Two pictures, sigma 25"
    assert [left["set"] for left in found["left_out"]] == ["Not there"]
    assert row["pictures"] == 2
    # the student changes nothing but the rounding, so output and input score alike
    assert row["psnr_db"] == pytest.approx(row["input_psnr_db"], abs=0.3)
    assert row["worst_gain_db"] == pytest.approx(min(i["psnr_db"] - i["input_psnr_db"] for i in row["images"]))
    assert row["psnr_std_db"] == pytest.approx(np.std([i["psnr_db"] for i in row["images"]], ddof=1))
    assert row["parameters"] == 3 * 4 * 9 + 3 + 4 * 3 * 9 + 4 + 2
    assert row["sop"] > 0
    assert row["mac"] > 0
    assert row["op_only"]["fp32"]["teacher_over_student"] is None
    text = page.read_text()
    assert text.startswith("before\n<!-- zoo-table -->\n| model |")
    assert text.endswith("<!-- /zoo-table -->\nafter\n")
    card = (models / "models" / "tiny" / "card.md").read_text()
    assert "old" not in card
    assert f"{row['psnr_db']:.2f}" in card
    with Image.open(sheet) as picture:
        assert picture.size[0] > picture.size[1]
    assert set(found["written"]) == {str(page), str(models / "models" / "tiny" / "card.md")}


def test_a_folder_of_ones_own(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURODEPLOY_SETS", "/nowhere")
    text = call("models", "--score", "--data", str(models / "sets" / "two"), "--limit", "1")
    assert "Gaussian noise, sigma 25" in text
    assert "(1)" in text


def test_the_variable_names_the_sets(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURODEPLOY_SETS", str(models / "sets"))
    assert "Two pictures" in call("models", "--score")
    assert "WHAT IT IS" in call("models")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "tiny"], "--score"),
        (["--score"], "--sets ROOT"),
        (["--score", "--data", "x", "--sets", "y"], "one of the two"),
        (["--score", "--data", "x", "--only", "huge"], "no trained student"),
        (["--score", "--sets", "nowhere"], "nothing to score"),
    ],
)
def test_what_cannot_be_scored_is_refused(
    models: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], message: str
) -> None:
    monkeypatch.delenv("NEURODEPLOY_SETS", raising=False)
    assert message in call("models", *arguments, code=2)


def test_a_file_without_markers_is_left_alone(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("text\n")
    with pytest.raises(UserError, match="zoo-table"):
        write_between(page, "zoo-table", "table")
    assert page.read_text() == "text\n"


def test_every_trained_student_of_the_zoo_is_scored() -> None:
    rows = read_protocol()
    assert len({(row.model, row.set) for row in rows}) == len(rows)
    trained = {entry.name for entry in zoo.zoo_entries() if entry.kind == "student" and entry.file("weights")}
    assert trained <= {row.model for row in rows}


@pytest.mark.parametrize("extra", ['pairs = ["a", "b"]', 'data = "a"\ndegradation = "motion:15"'])
def test_a_line_with_kernels_degrades_clean_pictures_with_them(tmp_path: Path, extra: str) -> None:
    page = tmp_path / "protocol.toml"
    page.write_text(f'[[score]]\nmodel = "m"\nset = "s"\nkernels = "k.npz"\n{extra}\n')
    with pytest.raises(UserError, match="kernels: go with data"):
        read_protocol(page)
    page.write_text('[[score]]\nmodel = "demo"\nset = "s"\nkernels = "k.npz"\ndata = "clean"\n')
    (row,) = read_protocol(page)
    (tmp_path / "clean").mkdir()
    write_image(tmp_path / "clean" / "a.png", np.full((1, 24, 24), 0.5, np.float32))
    np.savez(tmp_path / "k.npz", k0=np.full((3, 3), 1 / 9))
    tiny_student(tmp_path / "m.safetensors")
    images = zoo_table._images(zoo.resolve(str(tmp_path / "m.safetensors")), row, tmp_path)
    assert "kernels of k.npz" in images.describe()
