"""``neurodeploy distill``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurodeploy.cli.options import device_of, force_option
from neurodeploy.cli.output import answer, progress, say
from neurodeploy.cli.settings import Settings, verb

if TYPE_CHECKING:
    from neurodeploy.distill.result import Progress


@verb("distill")
@click.argument("recipe", metavar="RECIPE")
@click.option("--out", type=click.Path(), metavar="DIR", help="Run folder (default: runs/NAME).")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the recipe (repeatable).")
@click.option(
    "--max-minutes", type=click.FloatRange(min=0, min_open=True), metavar="M", help="Fit the schedule into M minutes."
)
@click.option("--precision", type=click.Choice(["fp32", "bf16", "auto"]), help="Number format of the training.")
@click.option(
    "--devices", type=click.IntRange(min=1), default=1, metavar="N", help="Processes (GPUs) that share every batch."
)
@click.option("--nodes", type=click.IntRange(min=1), default=1, metavar="M", help="Machines that run this command.")
@click.option("--resume", is_flag=True, help="Go on where the run folder's checkpoint stands.")
@click.option("--dry-run", is_flag=True, help="Check the recipe, print it with all its defaults, train nothing.")
@force_option
def command(
    settings: Settings,
    recipe: str,
    out: str | None,
    overrides: tuple[str, ...],
    max_minutes: float | None,
    precision: str | None,
    devices: int,
    nodes: int,
    resume: bool,
    dry_run: bool,
    force: bool,
) -> None:
    """Train a spiking student from a recipe.

    RECIPE is a .toml file, or the name of a model that comes with one. Everything goes into one run folder: the recipe
    with all values, a log, a checkpoint, the student. A run that is cut off loses half a minute and goes on with
    --resume to the very weights that it would have reached.

    Examples:
      neurodeploy distill demo --out runs/demo
      neurodeploy distill mine.toml --set student.width=32 --set train.steps=5000
      neurodeploy distill mine.toml --max-minutes 20 --device cuda
      neurodeploy distill mine.toml --out runs/mine --resume
      neurodeploy distill mine.toml --device cuda --devices 4
      neurodeploy distill mine.toml --dry-run
    """
    from neurodeploy.distill.recipe import load_recipe
    from neurodeploy.zoo import recipe_path

    path = recipe_path(recipe)
    chosen = load_recipe(path, overrides)
    if dry_run:
        answer(settings, {"recipe": chosen.model_dump(mode="json")}, chosen.to_json)
        return
    from neurodeploy.distill.run import distill
    from neurodeploy.distill.team import is_first

    speaks = devices * nodes == 1 or is_first()
    settings.quiet = settings.quiet or not speaks
    folder = Path(out or Path("runs") / chosen.name)
    settings.kept = f"{folder} is kept up to its last checkpoint; go on with the same command and --resume"
    with progress(settings, "training") as update:

        def show(state: Progress) -> None:
            update(state.step, state.total, _note(state))

        result = distill(
            path,
            out=folder,
            resume=resume,
            force=force,
            overrides=overrides,
            max_minutes=max_minutes,
            device=device_of(settings),
            devices=devices,
            nodes=nodes,
            precision=precision,
            seed=settings.seed,
            on_progress=show,
        )
    if not speaks:
        return
    say(settings, f"run folder: {folder}")
    answer(settings, asdict(result), lambda: _text(asdict(result)))


def _note(state: Progress) -> str:
    score = "" if state.psnr_db is None else f"  {state.psnr_db:.2f} dB"
    return f"{state.stage}  loss {state.loss:.4f}{score}  {state.images_per_s:.0f} images/s"


def _text(result: dict[str, Any]) -> str:
    effort = f"{result['steps']} steps, {result['seconds']:.0f} s"
    lines = [f"{result['student']}  ({result['parameters']:,} parameters, {effort})"]
    if result["psnr_db"] is not None:
        before = (
            "" if result["psnr_float_db"] is None else f", {result['psnr_float_db']:.2f} dB before the integer grid"
        )
        lines.append(f"held out: {result['psnr_db']:.2f} dB from {result['input_psnr_db']:.2f} dB{before}")
    if result["rates"]:
        lines.append("spike rates: " + ", ".join(f"{name} {rate:.3f}" for name, rate in result["rates"].items()))
    return "\n".join(lines)
