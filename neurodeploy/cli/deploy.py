"""``neurodeploy deploy``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.options import FiniteRange, code_option, device_of, force_option, out_option, target_option
from neurodeploy.cli.output import answer, progress, say_if_slow, table
from neurodeploy.cli.settings import Settings, verb


@verb("deploy")
@click.argument("recipe", metavar="RECIPE")
@target_option
@out_option
@click.option("--set", "overrides", multiple=True, metavar="A.B=C", help="Override a value of the recipe (repeatable).")
@click.option("--max-minutes", type=FiniteRange(min=0, min_open=True), metavar="M", help="Fit training into M minutes.")
@click.option("--precision", type=click.Choice(["fp32", "winograd", "bf16", "auto"]), help="Arithmetic of training.")
@click.option("--train", is_flag=True, help="Train, even where the recipe's model comes with trained weights.")
@code_option
@click.option("--images", type=click.IntRange(min=1), metavar="N", help="Score the first N held-out pictures only.")
@click.option(
    "--profile", "profiles", multiple=True, metavar="PROFILE", help="Chip or technology to price by (repeatable)."
)
@click.option("--resume", is_flag=True, help="Go on with a training that was cut off, or that has ended.")
@force_option
def command(
    settings: Settings,
    recipe: str,
    target: str,
    out: str,
    overrides: tuple[str, ...],
    max_minutes: float | None,
    precision: str | None,
    train: bool,
    code: Any,
    images: int | None,
    profiles: tuple[str, ...],
    resume: bool,
    force: bool,
) -> int:
    """The whole road in one go, one page at its end.

    Distils the student that RECIPE describes (or takes the trained weights that come with it), quantises, exports,
    verifies the bundle in every reader that is installed, restores held-out pictures in the chip's integers, counts and
    prices, and writes one HTML page that needs no network, with the JSON beside it. Exit code 1 if a reader differs.

    Examples:
      neurodeploy deploy demo --target loihi2 --out runs/demo
      neurodeploy deploy mine.toml --target nir --out runs/mine --max-minutes 20
      neurodeploy deploy mine.toml --target loihi2 --out runs/mine --resume
    """
    from neurodeploy.report.deploy import deploy

    settings.kept = f"what was finished is in {out}; the same command with --resume goes on"
    say_if_slow(settings)
    with progress(settings, "deploying") as update:
        data = deploy(
            recipe,
            target=target,
            out=out,
            profiles=profiles,
            overrides=overrides,
            max_minutes=max_minutes,
            device=device_of(settings),
            precision=precision,
            seed=settings.seed,
            images=images,
            resume=resume,
            force=force,
            train=train,
            code=code,
            command=settings.command_line,
            progress=update,
        )
    answer(settings, data, lambda: _text(data))
    return 0 if data["verified"] else 1


def _text(data: dict[str, Any]) -> str:
    parts = [f"{data['title']}: {data['model']} -> {data['target']}"]
    columns = [("label", "STAGE"), ("psnr_db", "PSNR dB"), ("ssim", "SSIM"), ("note", "")]
    for scores in data["scores"]:
        parts.append(f"{scores['data']}, mean of {scores['images']}\n{table(scores['stages'], columns)}")
    readers = [{**row, "result": _result(row)} for row in data["readers"]]
    if readers:
        parts.append(table(readers, [("name", "READER"), ("version", "VERSION"), ("result", "RESULT")]))
    parts.append(data["energy"]["verdict"]["sentence"])
    parts.append(f"page: {data['page']}")
    return "\n\n".join(parts)


def _result(reader: dict[str, Any]) -> str:
    return "skipped" if reader["equal"] is None else "equal" if reader["equal"] else "differs"
