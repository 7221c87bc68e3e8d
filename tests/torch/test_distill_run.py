"""Whole runs: learning, resuming, being killed, refusing."""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import numpy as np  # noqa: E402

from neurodeploy.distill import trainer as trainer_module  # noqa: E402
from neurodeploy.distill.recipe import load_recipe  # noqa: E402
from neurodeploy.distill.result import Progress  # noqa: E402
from neurodeploy.distill.run import distill  # noqa: E402
from neurodeploy.distill.trainer import Plan, Trainer  # noqa: E402
from neurodeploy.errors import UserError  # noqa: E402
from neurodeploy.graph.student_file import read_student  # noqa: E402
from neurodeploy.images.io import write_image  # noqa: E402
from neurodeploy.images.patches import PatchBatch  # noqa: E402
from neurodeploy.networks import winograd  # noqa: E402
from neurodeploy.networks.teachers.base import Teacher  # noqa: E402


@pytest.fixture(scope="module")
def photographs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four smooth pictures with edges."""
    folder = tmp_path_factory.mktemp("clean")
    y, x = np.mgrid[0:72, 0:80] / 10.0
    for i in range(4):
        waves = 0.5 + 0.3 * np.sin(y * (i + 1) * 0.5) * np.cos(x * 0.7) + 0.15 * (np.sin(x + i) > 0)
        write_image(folder / f"{i}.png", waves[None].clip(0, 1).astype(np.float32))
    return folder


def values(photographs: Path, **train: Any) -> dict[str, Any]:
    return {
        "name": "tiny",
        "seed": 3,
        "data": {"train": str(photographs), "test": str(photographs), "patch": 24, "batch": 4, "test_crop": 48},
        "degradation": {"kind": "gaussian", "sigma": 25},
        "student": {"width": 8, "depth": 2, "levels": 3, "steps": 1},
        "train": {"steps": 60, "eval_every": 20, "lr": 3e-3, "warmup": 5, "ema": 0.9, "quantize_from": 0.75, **train},
    }


def weights(folder: Path) -> dict[str, Any]:
    return dict(read_student(folder / "student.safetensors").tensors)


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = weights(one), weights(other)
    assert first.keys() == second.keys()
    for name in first:
        np.testing.assert_array_equal(first[name], second[name], err_msg=name)


def test_a_short_run_denoises_and_leaves_its_papers(photographs: Path, tmp_path: Path) -> None:
    seen: list[Progress] = []
    result = distill(load_recipe(values(photographs, steps=300)), out=tmp_path / "run", on_progress=seen.append)
    assert result.psnr_db is not None and result.input_psnr_db is not None
    assert result.psnr_db > result.input_psnr_db + 2
    assert [progress.step for progress in seen] == list(range(1, 301))
    assert {progress.stage for progress in seen} == {"float", "grid"}
    names = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"recipe.json", "log.csv", "checkpoint.pt", "student.safetensors", "student-float.safetensors"} <= names
    with (tmp_path / "run" / "log.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows[-1]["step"] == "300"
    assert float(rows[-1]["psnr_db"]) == pytest.approx(result.psnr_db, abs=1e-3)
    assert read_student(tmp_path / "run" / "student.safetensors").quantized
    assert not read_student(tmp_path / "run" / "student-float.safetensors").quantized
    assert json.loads((tmp_path / "run" / "result.json").read_text())["schema_version"] == 1


@pytest.mark.parametrize("student", [{}, {"levels": 1, "steps": 3, "decay": 0.5}, {"norm": "batch"}])
def test_a_stopped_run_goes_on_to_the_same_weights(photographs: Path, tmp_path: Path, student: dict[str, Any]) -> None:
    recipe_values = values(photographs)
    recipe_values["student"].update(student)
    recipe = load_recipe(recipe_values)
    distill(recipe, out=tmp_path / "unbroken")
    for stop_at in (13, 44, 45, 46, 57):

        def stop(progress: Progress, at: int = stop_at) -> None:
            if progress.step == at:
                raise KeyboardInterrupt

        try:
            distill(recipe, out=tmp_path / "broken", resume=True, on_progress=stop)
        except KeyboardInterrupt:
            continue
    distill(recipe, out=tmp_path / "broken", resume=True)
    assert_same_weights(tmp_path / "broken", tmp_path / "unbroken")


@pytest.mark.slow
def test_killed_twenty_times_a_run_ends_with_the_same_weights(photographs: Path, tmp_path: Path) -> None:
    # Each life tells every step that it has made and is killed some steps later, at any moment of a step or of a
    # checkpoint. Steps are counted and held to a pace, so the speed of the machine decides nothing.
    recipe_values = values(photographs, steps=900, checkpoint_seconds=0.01, eval_every=100, quantize_from=0.2)
    recipe_file = tmp_path / "recipe.json"
    recipe_file.write_text(json.dumps(recipe_values))
    program = """
import sys, time
from neurodeploy.distill.run import distill
recipe, out, pause_at = sys.argv[1], sys.argv[2], int(sys.argv[3])
made = 0
def tell(progress):
    global made
    made += 1
    print(progress.step, flush=True)
    if pause_at:
        time.sleep(0.003 if made < pause_at else 600)
distill(recipe, out=out, resume=True, on_progress=tell)
"""

    def start(folder: str, pause_at: int) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", program, str(recipe_file), str(tmp_path / folder), str(pause_at)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            text=True,
        )

    dice = random.Random(0)
    first_steps = []
    for _ in range(20):
        with start("broken", 40) as process:
            assert process.stdout is not None
            told = [int(process.stdout.readline()) for _ in range(dice.randint(5, 36))]
            time.sleep(dice.uniform(0.0, 0.02))
            assert process.poll() is None
            process.send_signal(signal.SIGKILL)
        assert told == list(range(told[0], told[0] + len(told)))
        first_steps.append(told[0])
    assert not (tmp_path / "broken" / "result.json").exists()
    # what was lost is little, and lives began in the float stage and in the one on the grid
    assert first_steps == sorted(first_steps)
    assert first_steps[0] == 1
    assert first_steps[-1] > 180
    for folder in ("broken", "unbroken"):
        with start(folder, 0) as process:
            process.communicate()
        assert process.returncode == 0
    assert_same_weights(tmp_path / "broken", tmp_path / "unbroken")


def test_a_run_folder_is_not_overwritten(photographs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(values(photographs, steps=2))
    distill(recipe, out=tmp_path / "run")
    kept = (tmp_path / "run" / "student.safetensors").read_bytes()
    with pytest.raises(UserError, match="--resume"):
        distill(recipe, out=tmp_path / "run")
    with pytest.raises(UserError, match="another recipe"):
        distill(load_recipe(values(photographs, steps=3)), out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "student.safetensors").read_bytes() == kept
    distill(load_recipe(values(photographs, steps=3)), out=tmp_path / "run", force=True)
    assert (tmp_path / "run" / "student.safetensors").read_bytes() != kept


def test_a_time_limit_is_kept(photographs: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    result = distill(load_recipe(values(photographs, steps=10**6)), out=tmp_path / "run", max_minutes=0.1)
    assert 26 < result.steps < 10**6
    # six seconds were asked for; the rest is for a machine that does other things as well
    assert time.monotonic() - started < 60


def test_a_broken_checkpoint_is_named(photographs: Path, tmp_path: Path) -> None:
    recipe = load_recipe(values(photographs, steps=40))

    def stop(progress: Progress) -> None:
        if progress.step == 10:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distill(recipe, out=tmp_path / "run", on_progress=stop)
    (tmp_path / "run" / "checkpoint.pt").write_bytes(b"nonsense")
    with pytest.raises(UserError, match=r"checkpoint\.pt"):
        distill(recipe, out=tmp_path / "run", resume=True)


def test_hints_reach_the_teacher_and_the_student(photographs: Path, tmp_path: Path) -> None:
    teacher = distill(
        load_recipe(
            {
                **values(photographs, steps=30),
                "student": {"family": "ffdnet", "width": 8, "depth": 4},
                "name": "teacher",
            }
        ),
        out=tmp_path / "teacher",
    )
    assert teacher.student.endswith("weights.safetensors")
    recipe_values = values(photographs, steps=30, sop_target=100.0, output_weight=0.5)
    recipe_values["teacher"] = {"model": f"ffdnet:{teacher.student}", "hints": "even", "hint_count": 2}
    distill(load_recipe(recipe_values), out=tmp_path / "student")
    with (tmp_path / "student" / "log.csv").open() as file:
        row = next(csv.DictReader(file))
    assert float(row["hint"]) > 0
    recipe_values["teacher"]["hints"] = [{"teacher": "model.99", "student": "lif0"}]
    with pytest.raises(UserError, match=r"model\.99"):
        distill(load_recipe(recipe_values), out=tmp_path / "bad")


def test_a_student_may_aim_at_the_teachers_picture(photographs: Path) -> None:
    """Of the clean picture and the teacher's, the pixel loss compares with the one that is asked for."""

    class Darker(torch.nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x / 2

    teacher = Teacher(Darker(), name="darker", channels=1, hint_points=(), weights_source="none")
    rng = np.random.default_rng(0)
    clean, degraded = rng.random((2, 2, 1, 24, 24), dtype=np.float32)
    batch = PatchBatch(degraded, clean, np.zeros(2, np.float32))
    for aim, picture in (("clean", clean), ("teacher", degraded / 2)):
        recipe = values(photographs, aim=aim, pixel_loss="mse", output_weight=0.0)
        recipe["teacher"] = {"model": "darker", "hints": "none"}
        trainer = Trainer(load_recipe(recipe), teacher, torch.device("cpu"))
        assert trainer.student is not None
        with torch.no_grad():
            restored, _ = trainer.student(torch.from_numpy(degraded))
        shown = trainer.advance(batch, Plan(9, 9))
        assert shown["pixel"] == pytest.approx(float(np.square(restored.numpy() - picture).mean()), rel=1e-5)


def test_a_run_is_held_down_to_its_operations(photographs: Path, tmp_path: Path) -> None:
    operations = {}
    for target in (None, 50.0):
        train = {} if target is None else {"sop_target": target, "sop_weight": 1.0}
        folder = tmp_path / str(target)
        distill(load_recipe(values(photographs, steps=60, lr=2e-2, quantize_from=1.0, **train)), out=folder)
        with (folder / "log.csv").open() as file:
            rows = list(csv.DictReader(file))
        operations[target] = [float(row["sop"] or 0) for row in rows], [float(row["rate"]) for row in rows]
    sops, rates = operations[50.0]
    assert sops[0] > 100
    assert sops[-1] < 0.7 * sops[0]
    assert rates[-1] < operations[None][1][-1]


def test_precision_is_what_is_asked_for_or_the_quickest(photographs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    monkeypatch.setattr(trainer_module, "quickest", lambda device: "winograd")
    for asked, had in (("auto", "winograd"), ("bf16", "bf16"), ("fp32", "fp32"), ("winograd", "winograd")):
        trainer = Trainer(load_recipe(values(photographs, precision=asked)), None, cpu)
        assert trainer.precision == had
        assert trainer.student is not None
        assert (trainer.student.convolve is winograd.conv2d) == (had == "winograd")


def test_an_unknown_device_is_named(photographs: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--device"):
        distill(load_recipe(values(photographs)), out=tmp_path / "run", device="abacus")
