"""Several models side by side: what each restores, computes and costs, and whether it wins, and against what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from neurodeploy.energy.op_only import op_only_of_ann
from neurodeploy.errors import UserError
from neurodeploy.model.base import Model
from neurodeploy.model.teacher import TeacherModel
from neurodeploy.report import numbers
from neurodeploy.report.energy import SCHEMA_VERSION, Table, energy_words
from neurodeploy.report.evaluate import ImageSet, evaluate
from neurodeploy.report.measure import Pricing, count_teacher, measure_energy

OnProgress = Callable[[int, int, str], None]


def compare_energy(
    models: Sequence[Model],
    open_set: Callable[[Model], ImageSet],
    *,
    typed: Sequence[str] = (),
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
            spiking one that has their channels.
        open_set: The pictures of a model.
        typed: What the models were asked for by; tells apart those of one name.
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
    names = _names(models, typed)
    if len(models) < 2:
        raise UserError(
            "there is nothing to compare", node="--compare", have=f"{len(models)} model", instead="name two"
        )
    twice = {name for name in names if names.count(name) > 1}
    if twice:
        raise UserError("stands twice", node=sorted(twice)[0])
    named = dict(zip(names, models, strict=True))
    spiking = {name: model for name, model in named.items() if not isinstance(model, TeacherModel)}
    if not spiking:
        raise UserError("none of the models has spikes", node="--compare", instead="name a student among them")
    beside = {name: _beside(model, spiking) for name, model in named.items() if isinstance(model, TeacherModel)}
    reports = {
        name: measure_energy(
            model,
            open_set(model),
            name=name,
            profiles=profiles,
            teacher=teacher,
            limit=limit,
            tile=tile,
            pricing=pricing,
            reproduce=reproduce,
            progress=progress,
        )
        for name, model in spiking.items()
    }
    rows = [
        {**_ann(model, open_set(beside[name]), limit), "model": name}
        if isinstance(model, TeacherModel)
        else row_of(reports[name])
        for name, model in named.items()
    ]
    return {
        "schema_version": SCHEMA_VERSION,
        "report": "energy-comparison",
        "ok": all(report["ok"] for report in reports.values()),
        "data": _data(reports),
        "rows": rows,
        "reports": reports,
    }


def _names(models: Sequence[Model], typed: Sequence[str]) -> list[str]:
    """A name for each: its own, or what was typed where two of them share one."""
    names = [model.name for model in models]
    if len(typed) != len(names):
        return names
    return [text if names.count(name) > 1 else name for name, text in zip(names, typed, strict=True)]


def _data(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """What was run: once where it is the same for all, else model by model."""
    said = {name: report["data"] for name, report in reports.items()}
    if len(set(said.values())) == 1:
        return str(next(iter(said.values())))
    return "; ".join(f"{name}: {data}" for name, data in said.items())


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


def row_of(report: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a spiking network, from its report."""
    quality, mean, alone = report["quality"], report["counts"]["mean_per_image"], report["op_only"]
    return {
        "model": report["model"],
        "kind": "spiking",
        "data": report["data"],
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

    parts = []
    for profile in dict.fromkeys(line["profile"] for line in lines):
        same = [line for line in lines if line["profile"] == profile]
        told = [
            f"{word} against {' and '.join(line['baseline'].replace('_', ' ') for line in which)}"
            for word, wins in (("wins", True), ("loses", False))
            if (which := [line for line in same if line["snn_wins"] is wins])
        ]
        parts.append(f"at {profile}{_alone(same[0])} it {', and '.join(told)}")
    return f"{verdict['sentences'][0]} Priced {'; '.join(parts)}."


def _alone(line: Mapping[str, Any]) -> str:
    return " (arithmetic alone)" if line["model"] == "arithmetic" else ""


def _beside(model: TeacherModel, spiking: Mapping[str, Model]) -> Model:
    """The first spiking network on whose pictures one without spikes can run."""
    found = next((other for other in spiking.values() if other.channels == model.channels), None)
    if found is None:
        raise UserError(
            f"restores other pictures than {', '.join(spiking)}",
            node=model.name,
            have=f"{model.channels} channels",
            limit=", ".join(sorted({str(other.channels) for other in spiking.values()})),
        )
    return found


def _ann(model: TeacherModel, pictures: ImageSet, limit: int | None) -> dict[str, Any]:
    """A network without spikes, on the pictures of a spiking one."""
    scored = evaluate(model, pictures, limit=limit)
    counted = count_teacher(model, [(row["height"], row["width"]) for row in scored["images"]])
    fp32, int8 = op_only_of_ann(counted.mac)
    return {
        "model": model.name,
        "kind": "ann",
        "data": pictures.describe(),
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
