"""A task without a recipe: the split, the recipe, the whole command on a few tiny pictures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

import numpy as np  # noqa: E402
from click.testing import CliRunner  # noqa: E402

from neurodeploy.cli.app import cli  # noqa: E402
from neurodeploy.distill.data import open_images  # noqa: E402
from neurodeploy.distill.own_task import held_out, own_recipe  # noqa: E402
from neurodeploy.errors import UserError  # noqa: E402
from neurodeploy.graph.spec import StudentSpec  # noqa: E402
from neurodeploy.images.io import write_image  # noqa: E402

TINY = ("--set", "student.width=6", "--set", "student.depth=4", "--set", "train.steps=20", "--set", "student.edges=[]")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """clean/: 12 pictures; lq/: two degraded versions of each."""
    rng = np.random.default_rng(0)
    for name in ("clean", "lq"):
        (tmp_path / name).mkdir()
    for i in range(12):
        picture = 0.5 + 0.4 * np.sin(np.mgrid[0:40, 0:44][i % 2] / (3.0 + i))
        write_image(tmp_path / "clean" / f"{i:02d}.png", picture[None].clip(0, 1).astype(np.float32))
        for version in (1, 2):
            noisy = picture + 0.1 * rng.standard_normal(picture.shape)
            write_image(tmp_path / "lq" / f"{i:02d}_{version}.png", noisy[None].clip(0, 1).astype(np.float32))
    return tmp_path


def run(*arguments: str) -> dict[str, object]:
    answer = CliRunner().invoke(cli, ["--json", "-q", "distill", *arguments])
    assert answer.exit_code == 0, answer.output
    found: dict[str, object] = json.loads(answer.stdout)
    return found


@pytest.mark.parametrize(("count", "expected"), [(2, 1), (9, 1), (15, 2), (50, 5), (1000, 24)])
def test_the_split_is_even_and_depends_on_names_alone(count: int, expected: int) -> None:
    names = [f"{i:04d}.png" for i in range(count)]
    chosen = held_out({name: [name] for name in reversed(names)})
    assert len(chosen) == len(set(chosen)) == expected
    places = [names.index(name) for name in chosen]
    assert places == sorted(places)
    assert max(np.diff([-1, *places, count])) <= 2 * count / expected


def test_one_picture_is_too_few() -> None:
    with pytest.raises(UserError, match="split"):
        held_out({"a.png": ["a.png"]})


def test_versions_of_a_picture_are_held_out_together(folders: Path) -> None:
    recipe = own_recipe(name="x", pairs=(str(folders / "lq"), str(folders / "clean")), max_minutes=1)
    assert len(recipe.data.held_out) == 2
    assert len({name.split("_")[0] for name in recipe.data.held_out}) == 1
    train, test = (open_images(recipe, recipe.data.train, part) for part in ("train", "test"))
    assert set(test.names) == set(recipe.data.held_out)
    assert not set(test.names) & set(train.names)
    assert len(train) + len(test) == 24
    assert recipe.student.channels == 1
    assert recipe.data.patch == 40


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "--data"),
        ({"data": "clean", "pairs": ("lq", "clean")}, "one of the two"),
        ({"data": "clean"}, "--sigma"),
        ({"data": "clean", "sigma": "25", "degradation": "rain"}, "two ways"),
        ({"pairs": ("lq", "clean"), "sigma": "25"}, "degraded already"),
    ],
)
def test_what_does_not_go_together_is_refused(
    folders: Path, monkeypatch: pytest.MonkeyPatch, arguments: dict[str, object], message: str
) -> None:
    monkeypatch.chdir(folders)
    with pytest.raises(UserError, match=message) as caught:
        own_recipe(name="x", **arguments)  # type: ignore[arg-type]
    assert caught.value.exit_code == 2


def test_a_name_that_is_not_there_cannot_be_held_out(folders: Path) -> None:
    recipe = own_recipe(name="x", data=str(folders / "clean"), sigma="25", overrides=['data.held_out=["99.png"]'])
    with pytest.raises(UserError, match=r"99\.png"):
        open_images(recipe, recipe.data.train, "train")


@pytest.mark.parametrize(("asked", "told"), [({"sigma": "25"}, False), ({"sigma": "5-55"}, True)])
def test_a_student_of_noise_of_any_strength_is_told_of_it(folders: Path, asked: dict[str, str], told: bool) -> None:
    recipe = own_recipe(name="mine", data=str(folders / "clean"), **asked)
    assert isinstance(recipe.student, StudentSpec)
    assert recipe.student.noise_map is told


def test_noise_from_pictures_and_an_onnx_teacher(folders: Path) -> None:
    pytest.importorskip("onnxscript", reason="needs the onnx extra")
    torch.manual_seed(0)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(4, 1, 3, padding=1))
    teacher = folders / "teacher.onnx"
    torch.onnx.export(
        net,
        (torch.zeros(1, 1, 16, 16),),
        str(teacher),
        dynamic_axes={"x": {2: "h", 3: "w"}},
        input_names=["x"],
        dynamo=False,
    )
    out = folders / "run"
    found = run(
        *("--task", "denoise", "--sigma", "25", "--data", str(folders / "clean"), "--teacher", str(teacher)),
        *("--max-minutes", "1", "--out", str(out), *TINY),
    )
    score = found["held_out"]
    assert isinstance(score, dict)
    assert score["pictures"] == 1
    assert score["psnr_grid_db"] == pytest.approx(score["psnr_db"], abs=1e-3)
    assert score["psnr_float_db"] is not None
    assert score["op_only"]["fp32"]["teacher_over_student"] > 0
    card = (out / "card.md").read_text()
    assert f"{score['psnr_db']:.2f}" in card
    assert "`06.png`" in card
    again = run(str(out / "recipe.json"), "--out", str(folders / "again"))
    assert again["psnr_db"] == found["psnr_db"]


def test_pairs_need_no_degradation(folders: Path) -> None:
    found = run(
        *("--pairs", str(folders / "lq"), str(folders / "clean"), "--max-minutes", "1"),
        *("--out", str(folders / "run"), *TINY),
    )
    score = found["held_out"]
    assert isinstance(score, dict)
    assert score["pictures"] == 2
    assert score["teacher"] is None
    assert "pairs of pictures" in (folders / "run" / "card.md").read_text()


def test_a_recipe_takes_no_pictures(folders: Path) -> None:
    answer = CliRunner().invoke(cli, ["distill", "demo", "--data", str(folders / "clean")])
    assert answer.exit_code == 2
    assert "--data" in answer.stderr
