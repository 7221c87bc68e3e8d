"""``neurodeploy evaluate``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.options import (
    FiniteRange,
    code_option,
    device_of,
    dt_option,
    first_step_bias_option,
    force_option,
    model_argument,
    scheduler_option,
    seed_of,
    steps_option,
    tile_option,
    white_option,
)
from neurodeploy.cli.output import answer, progress, say_if_slow, table
from neurodeploy.cli.settings import Settings, verb
from neurodeploy.errors import UserError


@verb("evaluate")
@model_argument
@click.option(
    "--data", metavar="DIR", help='Folder of clean pictures to degrade, or "builtin" (photographs of scikit-image).'
)
@click.option("--pairs", nargs=2, metavar="DEGRADED CLEAN", help="Two folders whose files match by name.")
@click.option(
    "--degradation", metavar="KIND", help="With --data, for example gaussian:25 (default: the student's own)."
)
@click.option(
    "--sigma",
    type=FiniteRange(0, 255),
    metavar="S",
    help="Noise level to tell the network, in 8-bit units (default: what the set says).",
)
@click.option("--arithmetic", type=click.Choice(["float", "fixed"]), help="fixed: the chip's integers.")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Score the first N pictures only.")
@click.option("--save", type=click.Path(), metavar="DIR", help="Keep the restored pictures there.")
@scheduler_option
@tile_option
@steps_option
@dt_option
@white_option
@first_step_bias_option
@code_option
@force_option
def command(
    settings: Settings,
    model: str,
    data: str | None,
    pairs: tuple[str, str] | None,
    degradation: str | None,
    sigma: float | None,
    arithmetic: Any,
    limit: int | None,
    save: str | None,
    scheduler: str | None,
    tile: int | None,
    steps: int | None,
    dt: float | None,
    white: float | None,
    first_step_bias: bool | None,
    code: Any,
    force: bool,
) -> None:
    """Restore a folder of pictures and score it.

    Output is clipped and rounded to 8 bits; PSNR and SSIM over all pixels, RGB for colour (and the Y channel beside
    it), nothing cut off at the border. Noise is drawn anew for each image from the seed (0).

    Examples:
      neurodeploy evaluate demo --data builtin
      neurodeploy evaluate runs/mine --data Set12 --degradation gaussian:25 --arithmetic fixed
      neurodeploy evaluate ffdnet:ffdnet_gray.pth --data Set12 --degradation gaussian:15
      neurodeploy evaluate student.safetensors --pairs rain norain --save restored
    """
    from neurodeploy.report.evaluate import evaluate, open_dataset
    from neurodeploy.simulate.cluster import connected
    from neurodeploy.zoo import resolve

    chosen = resolve(model, steps=steps, dt=dt, white=white, first_step_bias=first_step_bias, code=code)
    if sigma is not None and chosen.kind != "teacher":
        raise UserError(
            "is told to networks that take a noise level; this one takes a picture alone",
            node="--sigma",
            have=f"{model}, a {chosen.kind}",
            instead=f"--degradation gaussian:{sigma:g} adds noise of that level",
        )
    dataset = open_dataset(chosen, data=data, pairs=pairs, degradation=degradation, seed=seed_of(settings))
    if arithmetic != "float":
        say_if_slow(settings)
    with connected(scheduler) as pool, progress(settings, "restoring") as update:
        result = evaluate(
            chosen,
            dataset,
            arithmetic=arithmetic,
            noise_level=None if sigma is None else sigma / 255,
            limit=limit,
            tile=tile,
            device=device_of(settings),
            save=save,
            force=force,
            progress=update,
            pool=pool,
        )
    answer(settings, result, lambda: _text(result))


def _text(result: dict[str, Any]) -> str:
    columns = [("name", "IMAGE"), ("input_psnr_db", "INPUT dB"), ("psnr_db", "PSNR dB"), ("ssim", "SSIM")]
    if "psnr_y_db" in result:
        columns.append(("psnr_y_db", "Y dB"))
    columns.append(("seconds", "s"))
    mean = {key: result.get(key) for key, _ in columns}
    rows = [*result["images"], {**mean, "name": "mean"}]
    steps = "" if result["T"] is None else f", T = {result['T']}"
    told = "  ".join(f"{key.replace('_', ' ')}: {value}" for key, value in result["protocol"].items())
    head = f"{result['model']['name']}: {result['arithmetic']} arithmetic{steps}, {result['parameters']:,} parameters"
    saved = f"\nrestored pictures: {result['saved']}" if result["saved"] else ""
    return f"{head}\n{told}\n\n{table(rows, columns)}{saved}"
