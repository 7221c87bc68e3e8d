"""The ablation's harness in the smallest form: it trains, goes on, compares, and draws."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from benchmarks import ablation  # noqa: E402
from neurodeploy.images.io import write_image  # noqa: E402

SMALL = (
    "student.width=4",
    "student.depth=4",
    "student.edges=[]",
    "data.patch=16",
    "data.batch=2",
    "data.test_images=1",
)


@pytest.fixture
def pictures(tmp_path: Path) -> str:
    (tmp_path / "clean").mkdir()
    for i in range(2):
        wave = 0.5 + 0.4 * np.sin(np.mgrid[0:40, 0:40][i] / (2.0 + i))
        write_image(tmp_path / "clean" / f"{i}.png", wave[None].astype(np.float32))
    return str(tmp_path / "clean")


def arguments(pictures: str, out: Path, *more: str) -> list[str]:
    small = [word for value in SMALL for word in ("--set", value)]
    return [
        "--steps",
        "8",
        "--seeds",
        "0",
        "--nice",
        "0",
        "--data",
        pictures,
        "--test",
        pictures,
        "--out",
        str(out),
        *small,
        *more,
    ]


def test_a_stopped_ablation_goes_on_and_repeats_nothing(
    pictures: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    first = ablation.main(arguments(pictures, out, "--variant", "decoder hints"))
    assert [row["name"] for row in first["rows"]] == ["no hints", "decoder hints"]
    guided = first["rows"][1]
    assert guided["gains_db"] == [guided["runs"][0]["psnr_db"] - first["rows"][0]["runs"][0]["psnr_db"]]
    kept = {path: path.stat().st_mtime_ns for path in out.glob("8/*/result.json")}
    assert len(kept) == 2
    capsys.readouterr()
    again = ablation.main(arguments(pictures, out, "--variant", "decoder hints", "--variant", "binary, T = 2"))
    assert len(again["rows"]) == 3
    assert {path: path.stat().st_mtime_ns for path in kept} == kept
    printed = capsys.readouterr().out
    assert "| decoder hints (1 seed) |" in printed
    assert "Binary spikes over T steps" in printed
    for group in ("hints", "time"):
        drawing = ElementTree.parse(out / f"ablation-{group}.svg")
        assert drawing.findall(".//{http://www.w3.org/2000/svg}polyline")


def test_every_variant_is_a_recipe(pictures: str, tmp_path: Path) -> None:
    chosen = ablation.options(arguments(pictures, tmp_path))
    base, wanted = ablation.variants(chosen)
    for variant in wanted:
        recipe = ablation.recipe_of(base, variant, 1, chosen)
        assert recipe.seed == 1
        assert recipe.train.steps == 8
        assert (recipe.teacher.hints != "none") == ("hints" in variant)
        assert set(variant["groups"]) <= set(ablation.GROUPS)
    places = {v["name"]: ablation.recipe_of(base, v, 0, chosen).teacher.hints for v in wanted if "hints" in v}
    assert places["decoder hints"][-1].student == "lif3"
    assert places["encoder hints"][0].student == "lif0"
    assert {hint.teacher for hint in places["restored hints"]} == {"restored"}
    assert [hint.student for hint in places["restored hints"]] == [f"lif{layer}" for layer in range(4)]


def test_the_sentence_says_what_the_runs_support() -> None:
    def row(name: str, gains: list[float], reached: list[float | None], *, taught: bool = True) -> dict[str, object]:
        about = {"groups": ["chain"], "hinted": name != "no hints", "taught": taught}
        return {"name": name, "gains_db": gains, "reached_at": reached, **about}

    base = row("no hints", [0.0, 0.0], [1.0, 1.0])
    assert "holds here" in ablation.sentence("chain", [base, row("a", [0.1, 0.2], [0.4, 0.5])])
    assert "does not hold" in ablation.sentence("chain", [base, row("a", [0.1, 0.2], [0.4, 0.6])])
    assert "holds here" in ablation.sentence("chain", [base, row("a", [0.4, 0.3], [0.9, 0.8])])
    assert "does not hold" in ablation.sentence("chain", [base, row("a", [0.9, -0.1], [0.2, None])])
    assert "No run" in ablation.sentence("chain", [base])
    assert "No run" in ablation.sentence("hints", [base, row("a", [0.4, 0.3], [0.9, 0.8])])
    # what the clean picture does is not the teacher's doing
    assert "No run" in ablation.sentence("chain", [base, row("a", [0.4, 0.3], [0.4, 0.4], taught=False)])


def test_a_variant_brings_what_it_is_compared_with(pictures: str, tmp_path: Path) -> None:
    chosen = ablation.options([*arguments(pictures, tmp_path), "--variant", "chain, restored hints"])
    _, wanted = ablation.variants(chosen)
    assert [variant["name"] for variant in wanted] == ["chain, no hints", "chain, restored hints"]
    chosen = ablation.options([*arguments(pictures, tmp_path), "--group", "time"])
    assert ablation.variants(chosen)[1][0]["name"] == "no hints"


def test_when_a_curve_reaches_a_score() -> None:
    assert ablation.reaches([(10, 20.0), (20, 25.0), (30, 24.0)], 24.5, 40) == 0.5
    assert ablation.reaches([(10, 20.0)], 24.5, 40) is None
