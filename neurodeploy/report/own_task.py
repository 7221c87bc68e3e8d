"""A task of one's own, from pictures to a scored student with a card."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neurodeploy.files import writing_file
from neurodeploy.report.score import COLUMNS, TABLE_NOTE, score_student, table_row
from neurodeploy.zoo import resolve

if TYPE_CHECKING:
    from neurodeploy.distill.recipe import Recipe
    from neurodeploy.distill.result import RunResult

CARD = "card.md"
SHOWN_NAMES = 40

OnProgress = Callable[[int, int, str], None]


def finish_own_task(
    recipe: Recipe, result: RunResult, out: Path, *, progress: OnProgress | None = None
) -> dict[str, Any]:
    """Scores the trained student on the pictures that were held out, in the chip's integers, and writes its card.

    Returns:
        The result of the run with ``held_out`` (see :func:`neurodeploy.report.score.score_student`) and ``card``.
    """
    from neurodeploy.distill.data import open_images

    model = resolve(str(out))
    teacher = None if recipe.teacher is None else resolve(recipe.teacher.model)
    images = open_images(recipe, recipe.data.train, "test")
    score = score_student(model, images, teacher=teacher, progress=progress)
    with writing_file(out / CARD, force=True) as path:
        path.write_text(_card(recipe, result, score), encoding="utf-8")
    return {**asdict(result), "held_out": score, "card": str(out / CARD)}


def _card(recipe: Recipe, result: RunResult, score: dict[str, Any]) -> str:
    row = table_row(score)
    spec = recipe.model_dump(mode="json")["student"]
    told = ", told of the noise, which the host estimates" if spec.get("noise_map") else ""
    degradation = "pairs of pictures" if recipe.degradation is None else recipe.degradation.describe()
    train = recipe.data.train
    source = train if isinstance(train, str) else f"{train.degraded} (degraded), {train.clean} (clean)"
    names = list(recipe.data.held_out)
    listed = ", ".join(f"`{name}`" for name in names[:SHOWN_NAMES]) + (", ..." if len(names) > SHOWN_NAMES else "")
    lines = [
        f"# {recipe.name}",
        "",
        f"A spiking student for the task `{recipe.task}`: {degradation}.",
        "",
        "## What it reaches on pictures that it was not trained on",
        "",
        "| | |",
        "|---|---|",
        *(f"| {heading} | {row[key]} |" for key, heading in COLUMNS[1:]),
        "",
        TABLE_NOTE,
        "",
        f"The worst picture is `{score['worst_image']}` ({row['worst']} dB over its input).",
        "",
        "## How it was trained",
        "",
        f"- pictures: {source}; held out, evenly over the sorted names: {listed}",
        f"- teacher: {recipe.teacher.model if recipe.teacher else 'none, the clean pictures alone'}",
        f"- {result.steps:,} steps of {recipe.data.batch} patches of {recipe.data.patch} x {recipe.data.patch},"
        f" {result.seconds / 60:.1f} minutes",
        f"- student: width {spec['width']}, depth {spec['depth']}, levels {spec['levels']}, T {spec['steps']},"
        f" pixel-unshuffle {spec['unshuffle']}{told}; mean spike rate {score['rate']:.3f}",
        "",
        "Again, with the same split:",
        "",
        "```console",
        f"$ neurodeploy distill {result.out}/recipe.json --out ANOTHER_FOLDER",
        "```",
        "",
        "## Limits",
        "",
        "- The score is of a few pictures of the same folder; on pictures of another kind it may be lower.",
        *([] if score["worst_gain_db"] > 0 else ["- **At least one held-out picture looks worse than its input.**"]),
        *_limits_of(recipe),
        "",
    ]
    return "\n".join(lines)


def _limits_of(recipe: Recipe) -> list[str]:
    if recipe.degradation is None:
        return []
    return [f"- It knows nothing but {recipe.degradation.describe()}, made on clean pictures."]
