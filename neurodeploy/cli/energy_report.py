"""``neurodeploy energy-report``."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neurodeploy.cli.options import (
    FiniteRange,
    assume_option,
    code_option,
    dt_option,
    first_step_bias_option,
    force_option,
    scheduler_option,
    seed_of,
    steps_option,
    target_size_option,
    tile_option,
    white_option,
)
from neurodeploy.cli.output import answer, progress, say, say_if_slow, table
from neurodeploy.cli.settings import Settings, verb
from neurodeploy.errors import UserError

if TYPE_CHECKING:
    from neurodeploy.model.base import Model
    from neurodeploy.report.evaluate import ImageSet

STDOUT = "-"


def _file(name: str, text: str) -> Callable[[Any], Any]:
    """An option that takes a file, or none: then it goes to stdout."""
    return click.option(
        name, is_flag=False, flag_value=STDOUT, metavar="[FILE]", help=f"{text}; without FILE on stdout."
    )


@verb("energy-report")
@click.argument("models", metavar="MODEL...", nargs=-1)
@click.option(
    "--profile",
    "profiles",
    multiple=True,
    metavar="PROFILE",
    help="Chip or technology: a shipped name or a .toml (repeatable; default: loihi2 and four of CMOS).",
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
@click.option("--compare", is_flag=True, help="Put several MODELs side by side.")
@click.option(
    "--check", "checks", multiple=True, metavar="CONDITION", help="For example 'sop_per_mac<0.7' (repeatable)."
)
@click.option(
    "--html", type=click.Path(), metavar="FILE", help="Write the report, or the comparison, as one page, too."
)
@_file("--markdown", "Write it as Markdown")
@_file("--latex", "Write the table of a paper")
@_file("--neurobench", "Write the counts under NeuroBench's keys")
@click.option("--hops", type=FiniteRange(min=0), metavar="N", help="Mean number of hops of a spike on the chip.")
@click.option("--step-time", type=FiniteRange(min=0, min_open=True), metavar="SECONDS", help="Length of a time step.")
@click.option("--chips", type=click.IntRange(min=1), metavar="N", help="Chips that there are (default: estimated).")
@target_size_option
@assume_option
@click.option("--allow-partial", is_flag=True, help="Take partial sums where an operation has no price: exit code 0.")
@click.option("--allow-estimates", is_flag=True, help="Use prices that are estimates.")
@click.option(
    "--measure",
    type=click.Choice(["cpu", "gpu"]),
    help="Measure an ANN on this machine and write a profile (needs no MODEL; --teacher names the ANN).",
)
@click.option("--out", type=click.Path(), metavar="FILE", help="The profile that --measure writes.")
@click.option("--batch", "batches", multiple=True, type=click.IntRange(min=1), metavar="N", help="Batches to measure.")
@click.option("--repeats", type=click.IntRange(min=2), default=10, metavar="N", help="Measurements each (default 10).")
@scheduler_option
@tile_option
@steps_option
@dt_option
@white_option
@first_step_bias_option
@code_option
@force_option
def command(settings: Settings, models: tuple[str, ...], measure: str | None, **options: Any) -> int:
    """Count the operations of real runs and price them.

    Counts are exact integers from the simulated run; prices come from hardware profiles, each with its source. A total
    is withheld while any operation that occurred has no published price (exit code 1, unless --allow-partial). With
    --check the exit code answers the conditions instead: 1 if one of them fails.

    Examples:
      neurodeploy energy-report demo --data builtin
      neurodeploy energy-report demo --profile loihi1-davies2018 --teacher ffdnet-gray --html energy.html
      neurodeploy --json energy-report runs/mine --data photos --profile my_chip.toml --allow-partial
      neurodeploy energy-report runs/mine --data photos --check 'sop_per_mac<0.7' --check 'psnr_db>29'
      neurodeploy energy-report --compare runs/a runs/b ffdnet-gray --data photos --latex table.tex
      neurodeploy energy-report network.net --steps 17 --input frame.npy --allow-partial
      neurodeploy energy-report runs/mine --data photos --code digits
      neurodeploy energy-report --measure cpu --out my_cpu.toml
    """
    if measure is not None:
        return _measure(settings, measure, models, options)
    if not models:
        raise click.UsageError("Missing argument 'MODEL...'.", click.get_current_context())
    if options["scheduler"] and (options["compare"] or options["inputs"]):
        raise UserError("spreads the pictures of one report", node="--scheduler", instead="leave it out")
    if len(models) > 1 and not options["compare"]:
        raise UserError("one report is of one model", have=f"{len(models)}", instead="put them side by side: --compare")
    return _compare(settings, models, options) if options["compare"] else _report(settings, models[0], options)


def _told(options: Mapping[str, Any]) -> dict[str, Any]:
    """What the user says of a file that does not say it itself."""
    return {key: options[key] for key in ("steps", "dt", "white", "first_step_bias", "code")}


def _report(settings: Settings, model: str, options: Mapping[str, Any]) -> int:
    from neurodeploy.report.checks import parse_checks
    from neurodeploy.report.latex import latex_table
    from neurodeploy.report.markdown import energy_markdown
    from neurodeploy.report.measure import DEFAULT_PROFILES, measure_energy
    from neurodeploy.simulate.cluster import connected
    from neurodeploy.zoo import resolve

    if options["inputs"]:
        return _arrays(settings, model, options)
    checks = parse_checks(options["checks"])
    printed = _to_stdout(settings, options)
    chosen = resolve(model, **_told(options))
    html = options["html"]
    say_if_slow(settings)
    with connected(options["scheduler"]) as pool, progress(settings, "counting") as update:
        report = measure_energy(
            chosen,
            _opener(settings, options)(chosen),
            profiles=options["profiles"] or DEFAULT_PROFILES,
            teacher=None if options["teacher"] is None else resolve(options["teacher"]),
            checks=checks,
            html=html,
            force=options["force"],
            progress=update,
            pool=pool,
            **_how(settings, options),
        )
    if html is not None:
        say(settings, f"page: {html}")
    texts = {
        "markdown": lambda: energy_markdown(report),
        "latex": lambda: latex_table([report]),
        "neurobench": lambda: json.dumps(report["neurobench"], indent=2) + "\n",
    }
    _write(settings, options, texts)
    if printed is None:
        answer(settings, report, lambda: _text(report))
    if checks:
        return 0 if all(check["ok"] for check in report["checks"]) else 1
    return 0 if report["ok"] else 1


def _arrays(settings: Settings, model: str, options: Mapping[str, Any]) -> int:
    """The report of a network that takes no pictures."""
    from neurodeploy.files import writing_file
    from neurodeploy.report.arrays import are_arrays, arrays_report
    from neurodeploy.report.measure import DEFAULT_PROFILES, load_profiles
    from neurodeploy.report.page import energy_html
    from neurodeploy.zoo import resolve

    apart = ("data", "pairs", "teacher", "checks", "markdown", "latex", "neurobench")
    given = [f"--{name.removesuffix('s') if name == 'checks' else name}" for name in apart if options[name]]
    if given or not are_arrays(options["inputs"]):
        raise click.UsageError(f"--input takes .npy files, and no {', '.join(given) or 'pictures'} beside them")
    report = arrays_report(
        resolve(model, **_told(options), arrays=True),
        options["inputs"],
        load_profiles(options["profiles"] or DEFAULT_PROFILES),
        hops=options["hops"],
        step_seconds=options["step_time"],
        chips=options["chips"],
        allow_partial=options["allow_partial"],
        allow_estimates=options["allow_estimates"],
        reproduce={"command": settings.command_line},
    )
    report["checks"] = []
    html = options["html"]
    if html is not None:
        with writing_file(html, force=options["force"]) as page:
            page.write_text(energy_html(report), encoding="utf-8")
        say(settings, f"page: {html}")
    answer(settings, report, lambda: _text(report))
    return 0 if report["ok"] else 1


def _compare(settings: Settings, models: Sequence[str], options: Mapping[str, Any]) -> int:
    from neurodeploy.report.checks import parse_checks
    from neurodeploy.report.compare import compare_energy, comparison_tables
    from neurodeploy.report.compare_page import compare_html
    from neurodeploy.report.latex import latex_table
    from neurodeploy.report.markdown import tables_markdown
    from neurodeploy.report.measure import DEFAULT_PROFILES
    from neurodeploy.zoo import resolve

    if options["neurobench"] is not None:
        raise UserError("is of one model", node="--neurobench", instead="leave out --compare, or write --markdown")
    checks = parse_checks(options["checks"])
    printed = _to_stdout(settings, options)
    say_if_slow(settings)
    with progress(settings, "counting") as update:
        found = compare_energy(
            [resolve(model, **_told(options)) for model in models],
            _opener(settings, options),
            typed=models,
            profiles=options["profiles"] or DEFAULT_PROFILES,
            teacher=None if options["teacher"] is None else resolve(options["teacher"]),
            progress=update,
            **_how(settings, options),
        )
    found["checks"] = [
        {"model": name, **check.of(report)} for name, report in found["reports"].items() for check in checks
    ]
    tables = comparison_tables(found)
    sentences = [f"{row['model']}: {row['sentence']}" for row in found["rows"]]
    texts = {
        "html": lambda: compare_html(found),
        "markdown": lambda: tables_markdown(f"Side by side: {found['data']}", tables, sentences),
        "latex": lambda: latex_table(list(found["reports"].values()), found["rows"], found["data"]),
    }
    _write(settings, options, texts)
    if printed is None:
        parts = [found["data"], *(f"{part.title}\n{table(part.rows, part.columns)}" for part in tables), *sentences]
        answer(settings, found, lambda: "\n\n".join([*parts, *_failed(found["checks"])]))
    if checks:
        return 0 if all(check["ok"] for check in found["checks"]) else 1
    return 0 if found["ok"] else 1


def _measure(settings: Settings, host: str, models: Sequence[str], options: Mapping[str, Any]) -> int:
    from neurodeploy.report.host import measure_host
    from neurodeploy.zoo import resolve

    if models:
        raise UserError(
            "measures an ANN, and prices no model",
            node="--measure",
            instead="name the ANN with --teacher, then price a model with --profile and the file that this writes",
        )
    out = options["out"] or f"measured-{host}.toml"
    found = measure_host(
        "cpu" if host == "cpu" else "gpu",
        out,
        teacher=None if options["teacher"] is None else resolve(options["teacher"]),
        batches=options["batches"] or (1, 8),
        repeats=options["repeats"],
        force=options["force"],
    )
    answer(settings, found, lambda: _measured(found))
    return 0


def _opener(settings: Settings, options: Mapping[str, Any]) -> Callable[[Model], ImageSet]:
    from neurodeploy.report.evaluate import open_dataset

    data, pairs = options["data"], options["pairs"]
    return lambda model: open_dataset(
        model,
        data="builtin" if data is None and pairs is None else data,
        pairs=pairs,
        degradation=options["degradation"],
        seed=seed_of(settings),
    )


def _how(settings: Settings, options: Mapping[str, Any]) -> dict[str, Any]:
    from neurodeploy.report.measure import Pricing

    return {
        "limit": options["limit"],
        "tile": options["tile"],
        "pricing": Pricing(
            hops=options["hops"],
            step_seconds=options["step_time"],
            chips=options["chips"],
            allow_partial=options["allow_partial"],
            allow_estimates=options["allow_estimates"],
            target_size=options["target_size"],
            assume=options["assume"],
        ),
        "reproduce": {"command": settings.command_line, "seed": seed_of(settings)},
    }


def _to_stdout(settings: Settings, options: Mapping[str, Any]) -> str | None:
    """The one form that goes to stdout instead of the answer.

    Raises:
        UserError: Two of them would.
    """
    chosen = [name for name in ("markdown", "latex", "neurobench") if options[name] == STDOUT]
    if len(chosen) + settings.json > 1:
        both = " and ".join([*(f"--{name}" for name in chosen), *(["--json"] if settings.json else [])])
        raise UserError("would both go to stdout", node=both, instead=f"name a file, for example --{chosen[0]} FILE")
    return chosen[0] if chosen else None


def _write(settings: Settings, options: Mapping[str, Any], texts: Mapping[str, Callable[[], str]]) -> None:
    """Every form that was asked for, to its file or to stdout."""
    from neurodeploy.files import writing_file

    for name, make in texts.items():
        target = options[name]
        if target == STDOUT:
            click.echo(make().rstrip("\n"))
        elif target is not None:
            with writing_file(Path(target), force=options["force"]) as path:
                path.write_text(make(), encoding="utf-8")
            say(settings, f"{name}: {target}")


def _failed(checks: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a condition."""
    lines = []
    for check in checks:
        value = "no value" if check["value"] is None else f"{check['value']:.6g}"
        why = f" ({check['why']})" if check["why"] else ""
        whose = f"{check['model']}: " if "model" in check else ""
        lines.append(f"{'holds' if check['ok'] else 'FAILS'}  {whose}{check['check']}: have {value}{why}")
    return ["\n".join(lines)] if lines else []


def _measured(found: Mapping[str, Any]) -> str:
    columns = (("batch", "BATCH"), ("joules", "J A PICTURE"), ("mac", "pJ A MAC"), ("interval", "95 % INTERVAL"))
    rows = [
        {
            "batch": row["batch"],
            "joules": f"{row['joules_per_image']['mean']:.4g} (with idle {row['total_joules_per_image']['mean']:.4g})",
            "mac": f"{row['pj_per_mac']:.4g}",
            "interval": " to ".join(f"{end:.4g}" for end in row["pj_per_mac_ci95"] if end is not None),
        }
        for row in found["batches"]
    ]
    idle = f"{found['idle_w']['mean']:.3g} W idle, subtracted; {found['boundary']}"
    return f"{found['device']}: {found['network']}\n{idle}\n\n{table(rows, columns)}\n\nprofile: {found['profile']}"


def _text(report: Mapping[str, Any]) -> str:
    from neurodeploy.report.energy import energy_tables, spread_words

    parts = [f"{report['model']}: {report['data']}", report["verdict"]["sentence"]]
    quality = report["quality"]
    if quality is not None:
        parts.append(f"PSNR {quality['psnr_db']:.2f} dB, degraded {quality['input_psnr_db']:.2f} dB")
    parts += [f"{part.title}\n{table(part.rows, part.columns)}" for part in energy_tables(report) if part.rows]
    if report["counts"]["images"] > 1:
        parts.append(spread_words(report))
    levels = max(layer["populations"] for layer in report["counts"]["layers"])
    if levels > 1 and report["counts"]["steps"] == 1:
        fewer = f"In bursts its {levels} levels would take 1/{levels} of the synaptic operations: --code bursts"
        parts.append(f"{fewer}; as digits fewer still: --code digits.")
    if not report["ok"]:
        parts.append("A total is withheld: operations that occurred have no published price (--allow-partial).")
    return "\n\n".join([*parts, *_failed(report["checks"])])
