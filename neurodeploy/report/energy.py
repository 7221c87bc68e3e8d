"""The energy report: counts, prices, baselines and a verdict as one JSON answer, and its tables for a terminal."""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from neurodeploy import __version__
from neurodeploy.energy.baselines import Teacher, baselines
from neurodeploy.energy.op_only import op_only
from neurodeploy.energy.parameters import parameter_table
from neurodeploy.energy.price import price
from neurodeploy.energy.results import Counts
from neurodeploy.energy.verdict import verdict
from neurodeploy.hardware.profile import Profile
from neurodeploy.quantize.digits import as_trained
from neurodeploy.report import numbers
from neurodeploy.report.neurobench import neurobench
from neurodeploy.report.placing import chips_of, placements

SCHEMA_VERSION = 1

NOT_COUNTED = (
    "the host's share: pixel-unshuffle, scaling to integers, a map of the noise where there is one, the mean over time"
    " steps, pixel-shuffle, the residual",
    "input and output of the chip: moving codes in and sums out",
    "copying weights and thresholds to the chip, once a network",
    "placement: how far spikes travel, unless a mean number of hops is given",
    "training",
)
NOT_CLAIMED = (
    "that a chip was measured: every energy here is a count times a published price",
    "that arithmetic alone decides: at 45 nm memory and movement cost more than both columns together",
    "that the student beats a good accelerator: a baseline that skips zeros and reuses data stands beside it",
    "any energy of one operation on Loihi 2, Speck, Xylo or Akida: none is published",
)


@dataclass(frozen=True)
class Table:
    """Rows for a terminal: (key, heading) pairs, and values by key."""

    title: str
    columns: tuple[tuple[str, str], ...]
    rows: tuple[Mapping[str, Any], ...]


def energy_report(
    counts: Counts,
    profiles: Sequence[Profile],
    *,
    model: str,
    teacher: Teacher | None = None,
    data: str = "",
    hops: float | None = None,
    step_seconds: float | None = None,
    chips: int | None = None,
    allow_partial: bool = False,
    allow_estimates: bool = False,
    size: tuple[int, int] | None = None,
    target_size: tuple[int, int] | None = None,
    quality: Mapping[str, Any] | None = None,
    activity: Mapping[str, Any] | None = None,
    reproduce: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The whole report as JSON values.

    Args:
        counts: What a counter saw.
        profiles: Chips and technologies to price by.
        model: Name of the model.
        teacher: The network that it was distilled from, for the baselines.
        data: Which images were run, in words.
        hops: Mean hops of a spike.
        step_seconds: Length of a time step.
        chips: Number of chips that there are; by default what the placement (or the neurons alone) ask for.
        allow_partial: Take partial sums for an answer; the totals stay withheld.
        allow_estimates: Use prices of the kind ``estimated``.
        size: (H, W) of the image that one run takes, for the placement; by default the largest image that was run.
        target_size: (H, W) of the picture to restore, for what would have to change.
        quality: PSNR and SSIM of the same runs, where they were scored.
        activity: What the neurons did on one picture, see :mod:`neurodeploy.report.activity`.
        reproduce: Command, seed, hashes: whatever it takes to run this again.

    Returns:
        ``ok`` is False where a total is withheld and no partial sum was asked for; energies are in pJ, one image.
    """
    compared = baselines(counts, teacher)
    placed = placements(counts, profiles, size or _largest(counts), target_size=target_size, chips=chips)
    priced = [
        price(
            counts,
            profile,
            hops=hops,
            step_seconds=step_seconds,
            chips=chips if chips is not None else chips_of(placed, profile),
            allow_partial=allow_partial,
            allow_estimates=allow_estimates,
        )
        for profile in profiles
    ]
    prices = {entry.profile.id: _with_formula(entry.as_dict(compared)) for entry in priced}
    return {
        "schema_version": SCHEMA_VERSION,
        "report": "energy",
        "model": model,
        "data": data,
        "ok": all(entry.ok for entry in priced),
        "verdict": verdict(counts, compared, priced),
        "quality": None if quality is None else dict(quality),
        "counts": counts.as_dict(),
        "baselines": {base.key: base.as_dict() for base in compared},
        "op_only": op_only(counts, teacher),
        "prices": prices,
        "not_priced": [{"profile": name, **line} for name, one in prices.items() for line in one["not_priced"]],
        "parameters": _parameters(counts, teacher),
        "placements": placed,
        "activity": None if activity is None else dict(activity),
        "neurobench": neurobench(counts),
        "not_counted": list(NOT_COUNTED),
        "not_claimed": list(NOT_CLAIMED),
        "reproduce": {"versions": versions(), **(reproduce or {})},
    }


def _largest(counts: Counts) -> tuple[int, int]:
    """(H, W) in pixels of the largest image that was run."""
    unit = counts.net.host.unshuffle
    height, width = max((image.extent for image in counts.images), key=lambda extent: extent[0] * extent[1])
    return height * unit, width * unit


def versions() -> dict[str, str]:
    """Versions that a figure may depend on."""
    return {"neurodeploy": __version__, "python": platform.python_version(), "numpy": np.__version__}


def energy_tables(report: Mapping[str, Any]) -> list[Table]:
    """The report for a terminal: layers, prices, baselines, and what is not priced."""
    return [_layer_table(report), _price_table(report), _baseline_table(report), _unpriced_table(report)]


def _parameters(counts: Counts, teacher: Teacher | None) -> dict[str, Any]:
    tensors = parameter_table(as_trained(counts.net))
    return {
        "total": sum(row["count"] for row in tensors),
        "repeated": counts.total("parameters_repeated"),
        "bits": sum(row["count"] * row["bits"] for row in tensors),
        "teacher": None if teacher is None else teacher.parameters,
        "tensors": tensors,
    }


def _with_formula(priced: dict[str, Any]) -> dict[str, Any]:
    """The sum with its numbers filled in."""
    parts = []
    for term in priced["terms"]:
        share = f" × {term['share']:g}" if term["share"] != 1 else ""
        cost = f"{numbers.count(term['count'])} × {term['price']['value']:g} {term['price']['unit']}{share}"
        parts.append(cost)
    relation = "=" if priced["total_pj"] is not None and priced["high_pj"] is not None else "≥"
    total = numbers.energy(priced["partial_pj"])
    return {**priced, "formula": f"E {relation} {' + '.join(parts)} = {total}" if parts else ""}


def _layer_table(report: Mapping[str, Any]) -> Table:
    images = report["counts"]["images"]
    columns = (
        ("name", "LAYER"),
        ("rate", "SPIKE RATE"),
        ("spikes", "SPIKES"),
        ("sop", "SOP"),
        ("mac", "MAC"),
        ("updates", "NEURON UPDATES"),
        ("fanout", "FAN-OUT"),
        ("dense", "ANN MAC"),
        ("parameters", "PARAMETERS"),
    )
    rows = []
    for layer in report["counts"]["layers"]:
        rows.append(
            {
                "name": layer["name"],
                "rate": numbers.percent(layer["rate"]) if layer["kind"] == "spiking" else "",
                "spikes": _per_image(layer["spikes"], images),
                "sop": _per_image(layer["sop"], images),
                "mac": _per_image(layer["mac"], images),
                "updates": _per_image(layer["neuron_updates"], images),
                "fanout": round(layer["in_bounds_fanout"], 1),
                "dense": _per_image(layer["dense_mac"], images),
                "parameters": layer["parameters"],
            }
        )
    return Table(f"Operations an image, mean of {images}", columns, tuple(rows))


def _per_image(total: int, images: int) -> int | float:
    mean = total / images
    return round(mean) if mean.is_integer() or mean >= 1e4 else round(mean, 1)


def _price_table(report: Mapping[str, Any]) -> Table:
    columns = (
        ("profile", "PROFILE"),
        ("energy", "ENERGY AN IMAGE"),
        ("range", "RANGE"),
        ("kinds", "KINDS"),
        ("static", "STATIC, APART"),
        ("boundary", "WHAT IT HOLDS"),
    )
    rows = [
        {
            "profile": name,
            "energy": energy_words(entry),
            "range": range_words(entry),
            "kinds": ", ".join(entry["kinds"]),
            "static": numbers.energy(entry["static"]["energy_pj"]),
            "boundary": entry["boundary"],
        }
        for name, entry in report["prices"].items()
    ]
    return Table("Prices", columns, tuple(rows))


def spread_words(report: Mapping[str, Any]) -> str:
    """How much the images differ, in synaptic operations."""
    spread = report["counts"]["spread"]["sop"]
    mean, low, high, p95, worst = (
        numbers.short(spread[key]) for key in ("mean", "ci95_low", "ci95_high", "p95", "worst")
    )
    return (
        f"Over the images: {mean} synaptic operations on average (95 % interval {low} to {high}),"
        f" 95th percentile {p95}, worst {worst}."
    )


def energy_words(priced: Mapping[str, Any]) -> str:
    """What a profile says of one image: a total, a lower bound, or that it is withheld."""
    if priced["total_pj"] is not None:
        return f"{'≥ ' if priced['high_pj'] is None else ''}{numbers.energy(priced['total_pj'])}"
    if not priced["terms"]:
        return "withheld"
    return f"withheld (≥ {numbers.energy(priced['partial_pj'])})"


def range_words(priced: Mapping[str, Any]) -> str:
    """The range that the quoted prices span; empty for a part or a single value."""
    low, high = priced["low_pj"], priced["high_pj"]
    ends = (numbers.energy(low), numbers.energy(high) if high is not None else "open")
    return "" if priced["total_pj"] is None or not low or ends[0] == ends[1] else " – ".join(ends)


def _baseline_table(report: Mapping[str, Any]) -> Table:
    shown = [name for name, entry in report["prices"].items() if _has_baselines(entry)]
    columns = (
        ("label", "COMPARED WITH"),
        ("mac", "MAC AN IMAGE"),
        ("sop_per_mac", "SOP A MAC"),
        *((name, f"AT {name}") for name in shown),
    )
    sop = report["counts"]["mean_per_image"]["sop"]
    rows = []
    for key, base in report["baselines"].items():
        row = {"label": base["label"], "mac": _per_image(base["mac"], 1), "sop_per_mac": ""}
        row["sop_per_mac"] = f"{sop / base['mac']:.3g}" if base["mac"] else ""
        for name in shown:
            entry = report["prices"][name]["baselines"][key]
            times = f" (SNN {numbers.ratio(entry['snn_over_it'])})" if entry["snn_over_it"] is not None else ""
            bound = "≥ " if entry["at_least"] and entry["energy_pj"] is not None else "≤ " if entry["at_most"] else ""
            row[name] = f"{bound}{numbers.energy(entry['energy_pj'])}{times}"
        rows.append(row)
    return Table("Baselines", columns, tuple(rows))


def _has_baselines(priced: Mapping[str, Any]) -> bool:
    return any(entry["energy_pj"] is not None for entry in priced["baselines"].values())


def _unpriced_table(report: Mapping[str, Any]) -> Table:
    columns = (("profile", "PROFILE"), ("count", "COUNT"), ("label", "NOT PRICED"), ("why", "WHY"))
    rows = [{**line, "count": numbers.count(line["count"])} for line in report["not_priced"]]
    return Table("Not priced", columns, tuple(rows))
