"""NIR on the command line: several image sizes of one model, and files for an older version of nir."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neurodeploy.cli import main
from neurodeploy.graph.nir_file import read_nir
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import write_student
from neurodeploy.untrained import untrained_file


def answer(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["--json", "-q", *words]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def student(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    write_student("small.safetensors", untrained_file(StudentSpec(width=4, depth=2, levels=2)))
    return "small.safetensors"


def test_one_model_is_written_for_several_sizes(student: str, capsys: pytest.CaptureFixture[str]) -> None:
    graphs = {}
    for size, grid in (("16x16", (8, 8)), ("128x128", (64, 64)), ("20x31", (10, 16))):
        answer(capsys, "export", student, "--target", "nir", "--size", size, "--out", size)
        graph = graphs[size] = read_nir(Path(size) / "network.nir")
        assert tuple(graph.nodes["input"].input_type["input"]) == (4, *grid)
        assert graph.nodes["lif0"].v_threshold.shape == (8, *grid)
    first, *others = graphs.values()
    for graph in others:
        for name in ("conv0", "conv1", "conv2"):
            np.testing.assert_array_equal(graph.nodes[name].weight, first.nodes[name].weight)
        assert np.unique(graph.nodes["lif1"].v_threshold) == np.unique(first.nodes["lif1"].v_threshold)
    # and read back, one file stands for every size that its neurons allow
    checked = answer(capsys, "check", "16x16/network.nir", "--target", "nir", "--size", "64x48")
    assert checked["ok"] is True


def test_files_for_an_older_nir(student: str, capsys: pytest.CaptureFixture[str]) -> None:
    for words in (("--nir-compat", "1.0.4"), ("--option", "compat=1.0.4")):
        answer(capsys, "export", student, "--target", "nir", "--size", "16", "--out", "old", "--force", *words)
        with h5py.File("old/network.nir") as file:
            names: list[str] = []
            file.visit(names.append)
        assert not [name for name in names if "v_reset" in name or "metadata" in name]
        assert answer(capsys, "verify", "old")["ok"] is True
    answer(capsys, "export", student, "--target", "nir", "--size", "16", "--out", "new")
    with h5py.File("new/network.nir") as file:
        assert "v_reset" in file["node/nodes/lif0"]
    answer(capsys, "export", student, "--target", "nir", "--out", "x", "--nir-compat", "0.9", code=2)
