"""``neurodeploy simulate``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.options import (
    code_option,
    dt_option,
    first_step_bias_option,
    force_option,
    model_argument,
    out_option,
    scheduler_option,
    steps_option,
    tile_option,
    white_option,
)
from neurodeploy.cli.output import answer, progress, say_if_slow, table
from neurodeploy.cli.settings import Settings, verb


@verb("simulate")
@model_argument
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...", type=click.Path())
@out_option
@click.option(
    "--backend",
    type=click.Choice(["auto", "kernel", "reference", "norse", "lava"]),
    default="auto",
    show_default=True,
    help="auto, kernel, reference: the same integers; norse, lava: small pictures there, compared with the integers.",
)
@click.option("--trace", type=click.Path(), metavar="FILE", help="Keep spikes and membranes of one picture (.npz).")
@tile_option
@click.option("--jobs", type=click.IntRange(1, 1024), metavar="N", help="Pictures at once (default: a core each).")
@click.option(
    "--memory",
    type=click.IntRange(16),
    default=512,
    show_default=True,
    metavar="MB",
    help="What pictures may take at once, beside the 512 MB of the simulator.",
)
@scheduler_option
@click.option("--resume", is_flag=True, help="Write picture by picture; leave out what is done already.")
@steps_option
@dt_option
@white_option
@first_step_bias_option
@code_option
@force_option
def command(
    settings: Settings,
    model: str,
    images: tuple[str, ...],
    out: str,
    backend: str,
    trace: str | None,
    tile: int | None,
    jobs: int | None,
    memory: int,
    scheduler: str | None,
    resume: bool,
    steps: int | None,
    dt: float | None,
    white: float | None,
    first_step_bias: bool | None,
    code: Any,
    force: bool,
) -> int:
    """Restore pictures in the chip's integers.

    IMAGE are degraded pictures of any size (PNG, JPEG, TIFF, BMP, WebP), folders of them, or files of several pages
    (TIFF, GIF, animations), whose pages become pictures of their own. What comes out is, bit for bit, what the chip
    gives; large pictures run in tiles that overlap so far that no seam can differ, spread over the cores.

    With --backend norse or lava small pictures are restored by the simulators of others, and every spike is compared
    with the integers: exit code 1 if one differs where equality is promised.

    With --resume every picture goes into the folder when it is whole, and a run that was interrupted goes on where it
    was.

    A network of another program that takes no pictures is run on arrays instead: .npy files of whole numbers, shown at
    every step (C, h, w), or one a step (T, C, h, w).

    Examples:
      neurodeploy simulate demo noisy.png --out restored
      neurodeploy simulate bundle night1.png night2.png --out restored --tile 256
      neurodeploy simulate demo small.png --out restored --trace small.npz
      neurodeploy simulate demo frames/ --out restored --resume
      neurodeploy simulate network.net frame.npy --steps 17 --out ran
    """
    from neurodeploy.report.arrays import are_arrays
    from neurodeploy.report.pictures import How, simulate
    from neurodeploy.simulate.cluster import connected
    from neurodeploy.zoo import resolve

    chosen = resolve(
        model, steps=steps, dt=dt, white=white, first_step_bias=first_step_bias, code=code, arrays=are_arrays(images)
    )
    if backend == "auto":
        say_if_slow(settings)
    with connected(scheduler) as pool, progress(settings, "simulating") as update:
        how = How(backend=backend, tile=tile, jobs=jobs, memory=memory << 20, pool=pool)
        data = simulate(chosen, images, out, how=how, trace=trace, resume=resume, force=force, progress=update)
    answer(settings, data, lambda: _text(data))
    return 0 if data["ok"] else 1


def _text(data: dict[str, Any]) -> str:
    rows = [{**row, "spikes": sum(layer["spikes"] for layer in row["layers"])} for row in data["images"]]
    columns = [("input", "IMAGE"), ("output", "RESTORED"), ("spikes", "SPIKES"), ("seconds", "s")]
    head = f"{data['model']['name']}: {data['arithmetic']} integers, {data['backend']} simulator, T = {data['T']}"
    for row in rows:
        if "comparison" in row:
            said = row["comparison"]
            row["result"] = "equal" if said["equal"] else f"{said['differing_spikes']} spikes differ"
            if not said["promised"] and not said["equal"]:
                row["result"] += f" (not promised: {said['note'] or 'what decays is truncated'})"
    if any("result" in row for row in rows):
        columns.append(("result", "AGAINST THE INTEGERS"))
    trace = f"\n\ntrace: {data['trace']}" if data["trace"] else ""
    return f"{head}\n\n{table(rows, columns)}{trace}"
