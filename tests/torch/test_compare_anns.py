"""Networks without spikes beside spiking ones of other channels: pictures and teachers that go together."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from neurodeploy.cli import main
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import write_student
from neurodeploy.untrained import untrained_file


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name, channels in (("colour", 3), ("gray", 1)):
        meta = {"task": "denoise", "name": name, "degradation": {"kind": "gaussian", "sigma": 25.0}}
        spec = StudentSpec(width=4, depth=2, levels=2, steps=1, channels=channels)
        write_student(f"{name}.safetensors", untrained_file(spec, meta))
    Path("clean").mkdir()
    Image.fromarray(np.full((24, 20), 90, np.uint8)).save("clean/a.png")


def test_an_ann_runs_on_the_pictures_of_a_student_of_its_channels(capsys):
    words = ["--json", "-q", "energy-report", "--compare", "colour.safetensors", "gray.safetensors", "ffdnet-gray"]
    assert main([*words, "--data", "clean", "--profile", "cmos45-int8"]) == 0
    answer = json.loads(capsys.readouterr().out)
    ann = answer["rows"][2]
    taps = (3 * 12 - 2) * (3 * 10 - 2)  # in bounds, on the grid of half the resolution
    assert ann["mac"] == taps * (5 * 64 + 13 * 64 * 64 + 64 * 4)
    assert ann["kind"] == "ann" and ann["psnr_db"] > answer["rows"][1]["psnr_db"]


def test_an_ann_without_a_student_of_its_channels_is_refused(capsys):
    other = untrained_file(StudentSpec(width=4, depth=2, levels=2, steps=1, channels=3), {"name": "other"})
    write_student("other.safetensors", other)
    words = ["-q", "energy-report", "--compare", "colour.safetensors", "other.safetensors", "ffdnet-gray"]
    assert main([*words, "--data", "clean"]) == 2
    assert "restores other pictures than colour, other" in capsys.readouterr().err


def test_a_teacher_of_other_channels_is_refused(capsys):
    words = ["-q", "energy-report", "colour.safetensors", "--teacher", "ffdnet-gray", "--data", "clean"]
    assert main(words) == 2
    streams = capsys.readouterr()
    assert "ffdnet-gray: restores other pictures than colour" in streams.err and streams.out == ""
