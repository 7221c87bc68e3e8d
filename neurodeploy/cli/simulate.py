"""``neurodeploy simulate``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.options import (
    dt_option,
    force_option,
    model_argument,
    out_option,
    steps_option,
    tile_option,
    white_option,
)
from neurodeploy.cli.output import answer, progress, table
from neurodeploy.cli.settings import Settings, verb


@verb("simulate")
@model_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@out_option
@click.option(
    "--backend",
    type=click.Choice(["auto", "kernel", "reference"]),
    default="auto",
    show_default=True,
    help="auto, kernel or reference: all give the same integers.",
)
@click.option("--trace", type=click.Path(), metavar="FILE", help="Keep spikes and membranes of one picture (.npz).")
@tile_option
@steps_option
@dt_option
@white_option
@force_option
def command(
    settings: Settings,
    model: str,
    images: tuple[str, ...],
    out: str,
    backend: str,
    trace: str | None,
    tile: int | None,
    steps: int | None,
    dt: float | None,
    white: float | None,
    force: bool,
) -> None:
    """Restore pictures in the chip's integers.

    IMAGE are degraded pictures of any size (PNG, JPEG, TIFF, BMP, WebP). What comes out is, bit for bit, what the
    chip gives; large pictures run in tiles that overlap so far that no seam can differ.

    A network of another program that takes no pictures is run on arrays instead: .npy files of whole numbers, shown at
    every step (C, h, w), or one a step (T, C, h, w).

    Examples:
      neurodeploy simulate demo noisy.png --out restored
      neurodeploy simulate bundle night1.png night2.png --out restored --tile 256
      neurodeploy simulate demo small.png --out restored --trace small.npz
      neurodeploy simulate network.net frame.npy --steps 17 --out ran
    """
    from neurodeploy.report.arrays import are_arrays
    from neurodeploy.report.pictures import simulate
    from neurodeploy.zoo import resolve

    chosen = resolve(model, steps=steps, dt=dt, white=white, arrays=are_arrays(images))
    with progress(settings, "simulating") as update:
        data = simulate(chosen, images, out, backend=backend, tile=tile, trace=trace, force=force, progress=update)
    answer(settings, data, lambda: _text(data))


def _text(data: dict[str, Any]) -> str:
    rows = [{**row, "spikes": sum(layer["spikes"] for layer in row["layers"])} for row in data["images"]]
    columns = [("input", "IMAGE"), ("output", "RESTORED"), ("spikes", "SPIKES"), ("seconds", "s")]
    head = f"{data['model']['name']}: {data['arithmetic']} integers, {data['backend']} simulator, T = {data['T']}"
    trace = f"\n\ntrace: {data['trace']}" if data["trace"] else ""
    return f"{head}\n\n{table(rows, columns)}{trace}"
