"""Two processes that share every batch train like one."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")
pytest.importorskip("lightning_fabric", reason="needs the train extra")

import numpy as np  # noqa: E402

from neurodeploy.distill.recipe import load_recipe  # noqa: E402
from neurodeploy.distill.run import distill  # noqa: E402
from neurodeploy.distill.team import FabricTeam, Team, is_first  # noqa: E402
from neurodeploy.errors import UserError  # noqa: E402
from neurodeploy.graph.student_file import read_student  # noqa: E402
from neurodeploy.images.io import write_image  # noqa: E402


def recipe_of(folder: Path, **train: Any) -> Path:
    """Hints, a rate target, both stages; gradients that only a mean over the whole batch gives."""
    rng = np.random.default_rng(0)
    (folder / "clean").mkdir()
    for i in range(3):
        waves = 0.5 + 0.4 * np.sin(np.mgrid[0:40, 0:48][i % 2] / (2.0 + i)) + 0.05 * rng.standard_normal((40, 48))
        write_image(folder / "clean" / f"{i}.png", waves[None].clip(0, 1).astype(np.float32))
    clean = str(folder / "clean")
    data = {"train": clean, "test": clean, "patch": 16, "batch": 4, "test_crop": 40}
    teacher = distill(
        load_recipe(
            {
                "name": "teacher",
                "data": data,
                "student": {"family": "ffdnet", "width": 6, "depth": 3},
                "train": {"steps": 2},
            }
        ),
        out=folder / "teacher",
    )
    recipe = {
        "name": "shared",
        "seed": 5,
        "data": data,
        "teacher": {"model": f"ffdnet:{teacher.student}", "hints": "even", "hint_count": 1},
        "student": {"width": 6, "depth": 2, "levels": 3, "steps": 1},
        "train": {
            "steps": 24,
            "eval_every": 1,
            "lr": 2e-3,
            "warmup": 2,
            "ema": 0.5,
            "output_weight": 0.5,
            "sop_target": 50.0,
            "sop_weight": 0.5,
            "checkpoint_seconds": 0.001,
            **train,
        },
    }
    path = folder / "recipe.json"
    path.write_text(json.dumps(recipe))
    return path


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "neurodeploy", "--json", "distill", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, check=False, env=environment)


def curve(folder: Path) -> dict[str, list[float]]:
    with (folder / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    return {key: [float(row[key]) for row in rows] for key in ("loss", "pixel", "rate", "gradient_norm", "psnr_db")}


@pytest.mark.slow
def test_two_processes_give_the_curve_of_one(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path)
    answers = {}
    for devices in (1, 2):
        done = call(str(recipe), "--out", str(tmp_path / str(devices)), "--devices", str(devices))
        assert done.returncode == 0, done.stderr
        answers[devices] = json.loads(done.stdout)  # one answer, however many processes
    one, two = curve(tmp_path / "1"), curve(tmp_path / "2")
    assert len(one["loss"]) == 24
    for key, values in one.items():
        np.testing.assert_allclose(two[key], values, rtol=2e-4, atol=2e-5, err_msg=key)
    assert answers[2]["psnr_db"] == pytest.approx(answers[1]["psnr_db"], abs=1e-2)
    tensors = [read_student(tmp_path / name / "student.safetensors").tensors for name in ("1", "2")]
    for name in tensors[0]:
        # a weight may lie between two integers, and what rounding makes up for it moves others
        difference = np.abs(np.asarray(tensors[0][name], np.float64) - np.asarray(tensors[1][name], np.float64))
        assert difference.max() <= 2, name
        assert (difference > 0.5).mean() < 0.1, name
    resumed = call(str(recipe), "--out", str(tmp_path / "2"), "--devices", "2", "--resume")
    assert resumed.returncode == 0
    assert json.loads(resumed.stdout)["psnr_db"] == answers[2]["psnr_db"]


@pytest.mark.slow
def test_two_processes_keep_a_time_limit(tmp_path: Path) -> None:
    recipe = recipe_of(tmp_path, steps=10**6, eval_every=10**6)
    done = call(str(recipe), "--out", str(tmp_path / "run"), "--devices", "2", "--max-minutes", "0.05")
    assert done.returncode == 0, done.stderr
    assert 26 < json.loads(done.stdout)["steps"] < 10**6


def test_a_batch_that_cannot_be_shared_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="multiple of 3"):
        FabricTeam(torch.device("cpu"), 3, 1, 16)


def test_one_process_is_a_team() -> None:
    team = Team()
    value = torch.ones(3)
    assert team.share(value) is value
    assert team.mean(value) is value
    assert team.agree([3, 4]) == (3, 4)


def test_the_first_process_is_number_0_of_machine_0(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK", "GROUP_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert is_first()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert is_first()
    monkeypatch.setenv("NODE_RANK", "1")
    assert not is_first()
