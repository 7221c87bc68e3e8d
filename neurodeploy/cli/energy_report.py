"""``neurodeploy energy-report``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.options import (
    dt_option,
    force_option,
    model_argument,
    seed_of,
    steps_option,
    tile_option,
    white_option,
)
from neurodeploy.cli.output import answer, progress, say, table
from neurodeploy.cli.settings import Settings, verb


@verb("energy-report")
@model_argument
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="PROFILE",
    help="Chip or technology: a shipped name or a .toml (repeatable; default: loihi2 and two of 45 nm CMOS).",
)
@click.option("--data", metavar="DIR", help='Folder of clean pictures to degrade, or "builtin" (the default).')
@click.option(
    "--input",
    "inputs",
    multiple=True,
    type=click.Path(),
    metavar="FILE",
    help="Array (.npy) to run as it is, for networks that take no pictures (repeatable).",
)
@click.option("--pairs", nargs=2, metavar="DEGRADED CLEAN", help="Two folders whose files match by name.")
@click.option(
    "--degradation", metavar="KIND", help="With --data, for example gaussian:25 (default: the student's own)."
)
@click.option("--teacher", metavar="MODEL", help="Compare with this network, too (default: none).")
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Run the first N pictures only.")
@click.option("--html", type=click.Path(), metavar="FILE", help="Write the report as one page, too.")
@click.option("--hops", type=click.FloatRange(min=0), metavar="N", help="Mean number of hops of a spike on the chip.")
@click.option(
    "--step-time", type=click.FloatRange(min=0, min_open=True), metavar="SECONDS", help="Length of a time step."
)
@click.option("--chips", type=click.IntRange(min=1), metavar="N", help="Number of chips (default: estimated).")
@click.option("--allow-partial", is_flag=True, help="Take partial sums where an operation has no price: exit code 0.")
@click.option("--allow-estimates", is_flag=True, help="Use prices that are estimates.")
@tile_option
@steps_option
@dt_option
@white_option
@force_option
def command(
    settings: Settings,
    model: str,
    profiles: tuple[str, ...],
    data: str | None,
    inputs: tuple[str, ...],
    pairs: tuple[str, str] | None,
    degradation: str | None,
    teacher: str | None,
    limit: int | None,
    html: str | None,
    hops: float | None,
    step_time: float | None,
    chips: int | None,
    allow_partial: bool,
    allow_estimates: bool,
    tile: int | None,
    steps: int | None,
    dt: float | None,
    white: float | None,
    force: bool,
) -> int:
    """Count the operations of real runs and price them.

    Counts are exact integers from the simulated run; prices come from hardware profiles, each with its source. A total
    is withheld while any operation that occurred has no published price (exit code 1, unless --allow-partial).

    Examples:
      neurodeploy energy-report demo --data builtin
      neurodeploy energy-report demo --profile loihi1-davies2018 --teacher ffdnet-gray --html energy.html
      neurodeploy energy-report network.net --steps 17 --input frame.npy --allow-partial
      neurodeploy --json energy-report runs/mine --data photos --profile my_chip.toml --allow-partial
    """
    from neurodeploy.hardware.profile import load_profile
    from neurodeploy.report.arrays import are_arrays, arrays_report
    from neurodeploy.report.evaluate import open_dataset
    from neurodeploy.report.measure import DEFAULT_PROFILES, Pricing, measure_energy
    from neurodeploy.zoo import resolve

    chosen = resolve(model, steps=steps, dt=dt, white=white, arrays=bool(inputs))
    if inputs:
        if data is not None or pairs is not None or html is not None or teacher is not None or not are_arrays(inputs):
            raise click.UsageError(
                "--input takes .npy files, without --data, --pairs, --teacher and --html beside them"
            )
        report = arrays_report(
            chosen,
            inputs,
            [load_profile(name) for name in profiles or DEFAULT_PROFILES],
            hops=hops,
            step_seconds=step_time,
            chips=chips,
            allow_partial=allow_partial,
            allow_estimates=allow_estimates,
            reproduce={"command": settings.command_line},
        )
        answer(settings, report, lambda: _text(report))
        return 0 if report["ok"] else 1
    dataset = open_dataset(
        chosen,
        data="builtin" if data is None and pairs is None else data,
        pairs=pairs,
        degradation=degradation,
        seed=seed_of(settings),
    )
    with progress(settings, "counting") as update:
        report = measure_energy(
            chosen,
            dataset,
            profiles=profiles or DEFAULT_PROFILES,
            teacher=None if teacher is None else resolve(teacher),
            limit=limit,
            tile=tile,
            pricing=Pricing(hops, step_time, chips, allow_partial, allow_estimates),
            reproduce={"command": settings.command_line, "seed": seed_of(settings)},
            html=html,
            force=force,
            progress=update,
        )
    if html is not None:
        say(settings, f"page: {html}")
    answer(settings, report, lambda: _text(report))
    return 0 if report["ok"] else 1


def _text(report: dict[str, Any]) -> str:
    from neurodeploy.report.energy import energy_tables

    parts = [f"{report['model']}: {report['data']}", report["verdict"]["sentence"]]
    parts += [f"{part.title}\n{table(part.rows, part.columns)}" for part in energy_tables(report) if part.rows]
    if not report["ok"]:
        parts.append("A total is withheld: operations that occurred have no published price (--allow-partial).")
    return "\n\n".join(parts)
