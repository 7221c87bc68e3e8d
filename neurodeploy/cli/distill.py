"""``neurodeploy distill``."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurodeploy.cli.options import FiniteRange, device_of, force_option
from neurodeploy.cli.output import answer, progress, say
from neurodeploy.cli.settings import Settings, verb
from neurodeploy.errors import UserError

if TYPE_CHECKING:
    from neurodeploy.distill.result import Progress

TASKS = ["denoise", "derain", "dehaze", "deblur", "restore"]


@verb("distill")
@click.argument("recipe", metavar="RECIPE", required=False)
@click.option("--data", type=click.Path(), metavar="FOLDER", help="Instead of RECIPE: clean pictures of your own.")
@click.option(
    "--pairs", type=click.Path(), nargs=2, metavar="DEGRADED CLEAN", help="Instead: two folders that match by name."
)
@click.option("--task", type=click.Choice(TASKS), help="With --data: what the student is to do.")
@click.option("--sigma", metavar="S", help="With --data: noise to remove, in 8-bit units, 25 or 5-55.")
@click.option(
    "--degradation", metavar="KIND", help="With --data: something else to undo, for example rain, defocus:2-4."
)
@click.option("--teacher", metavar="MODEL", help="With --data or --pairs: a zoo name, ARCH:WEIGHTS or a .onnx file.")
@click.option(
    "--channels", type=click.Choice(["1", "3"]), help="Gray or RGB (default: the teacher's, or the pictures')."
)
@click.option("--out", type=click.Path(), metavar="DIR", help="Run folder (default: runs/NAME).")
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the recipe (repeatable).")
@click.option(
    "--max-minutes", type=FiniteRange(min=0, min_open=True), metavar="M", help="Fit the schedule into M minutes."
)
@click.option("--precision", type=click.Choice(["fp32", "winograd", "bf16", "auto"]), help="Arithmetic of training.")
@click.option(
    "--devices", type=click.IntRange(min=1), default=1, metavar="N", help="Processes (GPUs) that share every batch."
)
@click.option("--nodes", type=click.IntRange(min=1), default=1, metavar="M", help="Machines that run this command.")
@click.option("--resume", is_flag=True, help="Go on where the run folder's checkpoint stands.")
@click.option("--dry-run", is_flag=True, help="Check the recipe, print it with all its defaults, train nothing.")
@force_option
def command(
    settings: Settings,
    recipe: str | None,
    data: str | None,
    pairs: tuple[str, str] | None,
    task: str | None,
    sigma: str | None,
    degradation: str | None,
    teacher: str | None,
    channels: str | None,
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

    Without a recipe, give pictures: a folder of clean ones (--data) and what is to be undone, or degraded and clean
    ones (--pairs). One clean picture in ten, evenly over their sorted names, is held out. The run folder then gets a
    card with the score on those, in the chip's integers, and the recipe, to be repeated. 20 minutes by default.

    Examples:
      neurodeploy distill demo --out runs/demo
      neurodeploy distill mine.toml --set student.width=32 --set train.steps=5000
      neurodeploy distill mine.toml --max-minutes 20 --device cuda
      neurodeploy distill mine.toml --out runs/mine --resume
      neurodeploy distill mine.toml --device cuda --devices 4
      neurodeploy distill mine.toml --dry-run
      neurodeploy distill --task denoise --sigma 25 --data photos --teacher mine.onnx --max-minutes 20
      neurodeploy distill --task derain --pairs rainy clean --teacher prenet:weights.pth --out runs/derain
      neurodeploy distill --task deblur --degradation defocus:2-4 --data photos --max-minutes 60
    """
    from neurodeploy.distill.recipe import load_recipe, settled
    from neurodeploy.zoo import recipe_path

    own = {"task": task, "data": data, "pairs": pairs, "sigma": sigma, "degradation": degradation, "teacher": teacher}
    given = [f"--{key}" for key, value in {**own, "channels": channels}.items() if value is not None]
    if recipe is None:
        if data is None and pairs is None:
            raise UserError("give a RECIPE, or pictures with --data or --pairs", instead="neurodeploy distill --help")
        from neurodeploy.distill.own_task import own_recipe

        name = f"own-{task or ('denoise' if sigma else 'restore')}"
        chosen = own_recipe(
            **own,  # type: ignore[arg-type]
            name=name,
            channels=None if channels is None else int(channels),
            max_minutes=max_minutes,
            overrides=overrides,
        )
    elif given:
        raise UserError("is for a task without a recipe", node=", ".join(given), instead="use --set with a RECIPE")
    else:
        chosen = load_recipe(recipe_path(recipe), overrides)
    chosen = settled(chosen, max_minutes=max_minutes, precision=precision, seed=settings.seed)
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
            chosen,
            out=folder,
            resume=resume,
            force=force,
            device=device_of(settings),
            devices=devices,
            nodes=nodes,
            on_progress=show,
        )
    if not speaks:
        return
    say(settings, f"run folder: {folder}")
    if recipe is None:
        from neurodeploy.report.own_task import finish_own_task

        with progress(settings, "scoring") as update:
            full = finish_own_task(chosen, result, folder, progress=update)
        answer(settings, full, lambda: _text(full) + "\n" + _held_out(full))
        return
    answer(settings, asdict(result), lambda: _text(asdict(result)))


def _note(state: Progress) -> str:
    score = "" if state.psnr_db is None else f"  {state.psnr_db:.2f} dB"
    return f"{state.stage}  loss {state.loss:.4f}{score}  {state.images_per_s:.0f} images/s"


def _held_out(result: dict[str, Any]) -> str:
    score = result["held_out"]
    return (
        f"{score['pictures']} whole pictures that were held out, in the chip's integers: {score['psnr_db']:.2f} dB from"
        f" {score['input_psnr_db']:.2f} dB; the worst gains {score['worst_gain_db']:+.2f} dB\ncard: {result['card']}"
    )


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
