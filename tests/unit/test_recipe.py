"""Recipes: what is right goes through, what is wrong is named with the way out."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from neurodeploy.distill.recipe import load_recipe
from neurodeploy.distill.schedules import gamma_at, lr_at
from neurodeploy.errors import UserError

GOOD = """
name = "x"
[degradation]
kind = "gaussian"
sigma = 25
[student]
levels = 4
steps = 1
[train]
steps = 100
"""


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "recipe.toml"
    path.write_text(text)
    return path


def test_a_recipe_reads_back_from_its_own_json(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD))
    settled = tmp_path / "recipe.json"
    settled.write_text(recipe.to_json())
    assert load_recipe(settled) == recipe


def test_overrides_win_and_are_checked(tmp_path: Path) -> None:
    recipe = load_recipe(write(tmp_path, GOOD), ["train.lr=0.01", "student.width=12", "name=other"])
    assert (recipe.train.lr, recipe.student.width, recipe.name) == (0.01, 12, "other")
    with pytest.raises(UserError, match=r"train\.steps"):
        load_recipe(write(tmp_path, GOOD), ["train.steps=0"])
    with pytest.raises(UserError, match=r"key\.sub=value"):
        load_recipe(write(tmp_path, GOOD), ["nonsense"])


PAIRED = """
name = "mine"
task = "derain"

[data]
train = { degraded = "lq", clean = "gt" }
test = "builtin"
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "stepz = 3\n", ["train.stepz", "did you mean steps"]),
        (GOOD + "lr = 7\n", ["train.lr", "less than 1"]),
        (GOOD.replace("levels = 4", "levels = 4\nlevelz = 3"), ["levelz", "levels"]),
        (GOOD.replace("steps = 1\n", "steps = 4\n"), ["levels", "steps = 1"]),
        (GOOD.replace("sigma = 25", "sigma = -3"), ["sigma"]),
        (GOOD.replace('kind = "gaussian"', 'kind = "fog"'), ["fog"]),
        (GOOD + "sop_target = 0\n", ["train.sop_target", "greater than 0"]),
        (GOOD.replace("levels = 4\nsteps = 1", "levels = 1\nsteps = 4") + 'sop_code = "digits"\n', ["train.sop_code"]),
        (GOOD + 'aim = "teacher"\n', ["train.aim", "no teacher", "[teacher]"]),
        (PAIRED + "contrast = 0.1\n", ["data.contrast", "leave it out"]),
        (PAIRED + "contrast = 0.5\n", ["data.contrast", "0.4"]),
        ("name = 3 = 4", ["not valid"]),
        ("", ["name"]),
    ],
)
def test_faults_are_named_in_one_line(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        load_recipe(write(tmp_path, text))
    line = str(caught.value)
    assert "\n" not in line
    assert "recipe.toml" in line
    for word in words:
        assert word in line
    assert caught.value.exit_code == 2


def test_a_missing_recipe_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such recipe"):
        load_recipe(tmp_path / "none.toml")
    with pytest.raises(UserError):
        load_recipe(tmp_path)


def test_learning_rate_warms_up_and_comes_down() -> None:
    rates = [lr_at(step, total=1000, peak=1e-3, end=1e-6, warmup=50) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 50)
    assert max(rates) == pytest.approx(1e-3)
    assert rates.index(max(rates)) in (49, 50)
    assert rates[-1] == pytest.approx(1e-6, rel=0.1, abs=1e-8)
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates[50:]))


def test_gamma_schedules() -> None:
    def at(progress: float, schedule: str) -> float:
        return gamma_at(progress, gamma=0.12, schedule=schedule, end=0.5, until=0.8)

    assert at(0.0, "linear") == at(0.0, "cosine") == at(0.0, "constant") == pytest.approx(0.12)
    assert at(0.4, "linear") == pytest.approx(0.09)
    assert at(0.4, "constant") == pytest.approx(0.12)
    assert at(0.7999, "cosine") == pytest.approx(0.06, rel=1e-3)
    assert at(0.8, "cosine") == 0.0
