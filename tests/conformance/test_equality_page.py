"""The script behind the page of equal runs: on a small untrained student, with the readers that are installed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import write_student
from neurodeploy.untrained import untrained_file
from tests.conformance.equality import main


def test_the_script_compares_and_writes_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("norse")
    monkeypatch.chdir(tmp_path)
    write_student("small.safetensors", untrained_file(StudentSpec(width=4, depth=2, levels=2)))
    for seed in range(2):
        pixels = np.random.RandomState(seed).randint(0, 256, (30, 34)).astype(np.uint8)
        Image.fromarray(pixels).save(f"p{seed}.png")
    arguments = ["small.safetensors", "--steps", "1,3", "--readers", "norse", "--image", "p0.png", "--image", "p1.png",
                 "--size", "16", "--keep", "rows.json", "--write", "page.md"]  # fmt: skip
    assert main(arguments) == 0
    rows = json.loads(Path("rows.json").read_text())["rows"]
    assert [(row["T"], row["picture"], row["result"]) for row in rows] == [
        (1, "p0", "0"), (1, "p1", "0"), (3, "p0", "0"), (3, "p1", "0"),
    ]  # fmt: skip
    assert [row["against"] for row in rows] == ["integers", "integers", "float graph", "float graph"]
    # two layers of 8 channels on a grid of 8x8
    assert [row["compared"] for row in rows] == [1024, 1024, 3072, 3072]
    page = Path("page.md").read_text()
    assert "| small | 1 | norse" in page and "$ python -m tests.conformance.equality small.safetensors" in page
    assert main(arguments) == 0 and len(json.loads(Path("rows.json").read_text())["rows"]) == 4


def test_what_cannot_run_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_student("small.safetensors", untrained_file(StudentSpec(width=4, depth=1, levels=1)))
    Image.fromarray(np.zeros((20, 20), np.uint8)).save("p.png")
    arguments = ["small.safetensors", "--steps", "1", "--readers", "onnxruntime", "--image", "p.png", "--size", "16",
                 "--keep", "rows.json"]  # fmt: skip
    assert main(arguments) == 1
    assert "cannot run" in json.loads(Path("rows.json").read_text())["rows"][0]["result"]
