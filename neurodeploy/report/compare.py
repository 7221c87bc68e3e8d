"""Several models side by side: what each restores, computes and costs, and whether it wins, and against what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from neurodeploy.energy.op_only import op_only_of_ann
from neurodeploy.errors import UserError
from neurodeploy.model import Model, TeacherModel
from neurodeploy.report import numbers
from neurodeploy.report.energy import SCHEMA_VERSION, Table, energy_words
from neurodeploy.report.evaluate import ImageSet, evaluate
from neurodeploy.report.measure import Pricing, count_teacher, measure_energy

OnProgress = Callable[[int, int, str], None]


def compare_energy(
    models: Sequence[Model],
    open_set: Callable[[Model], ImageSet],
    *,
    profiles: Sequence[str],
    teacher: Model | None = None,
    limit: int | None = None,
    tile: int | None = None,
    pricing: Pricing | None = None,
    reproduce: dict[str, Any] | None = None,
    progress: OnProgress | None = None,
) -> dict[str, Any]:
    """The energy report of every model, and a row for each.

    Args:
        models: Spiking networks, and networks without spikes, which are counted and scored on the pictures of the first
            spiking one.
        open_set: The pictures of a model.
        profiles: As for one report.
        teacher: As for one report.
        limit: As for one report.
        tile: As for one report.
        pricing: As for one report.
        reproduce: As for one report.
        progress: Called after every picture.

    Returns:
        ``rows[]`` (one a model, in the order given), ``reports`` by model, ``ok``.

    Raises:
        UserError: Fewer than two models, two of one name, or none with spikes.
    """
    names = [model.name for model in models]
    if len(models) < 2:
        raise UserError(
            "there is nothing to compare", node="--compare", have=f"{len(models)} model", instead="name two"
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError("stands twice", node=sorted(twice)[0])
    spiking = [model for model in models if not isinstance(model, TeacherModel)]
    if not spiking:
        raise UserError("none of the models has spikes", node="--compare", instead="name a student among them")
    reports = {
        model.name: measure_energy(
            model,
            open_set(model),
            profiles=profiles,
            teacher=teacher,
            limit=limit,
            tile=tile,
            pricing=pricing,
            reproduce=reproduce,
            progress=progress,
        )
        for model in spiking
    }
    pictures = open_set(spiking[0])
    rows = [
        _ann(model, pictures, spiking[0], limit) if isinstance(model, TeacherModel) else _row(reports[model.name])
        for model in models
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "report": "energy-comparison",
        "ok": all(report["ok"] for report in reports.values()),
        "data": reports[spiking[0].name]["data"],
        "rows": rows,
        "reports": reports,
    }


def comparison_tables(answer: Mapping[str, Any]) -> list[Table]:
    """The comparison for a terminal or a page."""
    shown = next(iter(answer["reports"].values()))["prices"]
    columns = (
        ("model", "MODEL"),
        ("psnr", "PSNR dB"),
        ("parameters", "PARAMETERS"),
        ("steps", "T"),
        ("mac", "MAC"),
        ("sop", "SOP"),
        ("sps", "SOP A MAC"),
        ("fp32", "45 nm fp32"),
        ("int8", "45 nm int8"),
        *((name, name) for name in shown),
    )
    rows = [
        {
            "model": row["model"],
            "psnr": numbers.decimals(row["psnr_db"]),
            "parameters": row["parameters"],
            "steps": row["steps"],
            "mac": round(row["mac"]),
            "sop": round(row["sop"]),
            "sps": numbers.decimals(row["sop_per_mac"]),
            "fp32": numbers.energy(row["op_only_fp32_pj"]),
            "int8": numbers.energy(row["op_only_int8_pj"]),
            **{name: row["energy"].get(name, numbers.NONE) for name in shown},
        }
        for row in answer["rows"]
    ]
    return [Table("Side by side, an image", columns, tuple(rows))]


def _row(report: Mapping[str, Any]) -> dict[str, Any]:
    quality, mean, alone = report["quality"], report["counts"]["mean_per_image"], report["op_only"]
    return {
        "model": report["model"],
        "kind": "spiking",
        "psnr_db": None if quality is None else quality["psnr_db"],
        "parameters": report["parameters"]["total"],
        "steps": report["counts"]["steps"],
        "mac": mean["mac"],
        "sop": mean["sop"],
        "sop_per_mac": report["verdict"]["sps"],
        "op_only_fp32_pj": alone["fp32"]["student_pj"],
        "op_only_int8_pj": alone["int8"]["student_pj"],
        "energy": {name: energy_words(entry) for name, entry in report["prices"].items()},
        "wins": [line for line in report["verdict"]["against"] if line["snn_wins"]],
        "sentence": _sentence(report),
    }


def _sentence(report: Mapping[str, Any]) -> str:
    """Whether it wins, and against what, in one sentence."""
    verdict = report["verdict"]
    lines = verdict["against"]
    if not lines:
        return f"{verdict['sentences'][0]} No profile of this report prices both sides."

    def said(wins: bool) -> str:
        found = [
            f"{line['baseline'].replace('_', ' ')} at {line['profile']}" for line in lines if line["snn_wins"] is wins
        ]
        return ", ".join(found)

    parts = [f"it {word} against {said(wins)}" for wins, word in ((True, "wins"), (False, "loses")) if said(wins)]
    return f"{verdict['sentences'][0]} Priced, {' and '.join(parts)}."


def _ann(model: TeacherModel, pictures: ImageSet, beside: Model, limit: int | None) -> dict[str, Any]:
    """A network without spikes, on the pictures of a spiking one."""
    if model.channels != beside.channels:
        raise UserError(
            f"restores other pictures than {beside.name}",
            node=model.name,
            have=f"{model.channels} channels",
            limit=f"{beside.channels}",
        )
    scored = evaluate(model, pictures, limit=limit)
    counted = count_teacher(model, [(row["height"], row["width"]) for row in scored["images"]])
    fp32, int8 = op_only_of_ann(counted.mac)
    return {
        "model": model.name,
        "kind": "ann",
        "psnr_db": scored["psnr_db"],
        "parameters": model.parameters,
        "steps": None,
        "mac": counted.mac,
        "sop": 0.0,
        "sop_per_mac": None,
        "op_only_fp32_pj": fp32,
        "op_only_int8_pj": int8,
        "energy": {},
        "wins": [],
        "sentence": f"{model.name} is a network without spikes: {numbers.short(counted.mac)} MACs an image.",
    }
