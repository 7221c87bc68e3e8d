"""The page of a comparison: every model beside the others, from the JSON of ``energy-report --compare``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurodeploy.report import svg
from neurodeploy.report.page import environment

COLOURS = 8
"""Of the parts of a bar; what is left over is one part."""
REST = "the rest"

COUNTS = (
    ("spikes", "spikes"),
    ("sop", "synaptic operations"),
    ("sop_nonzero", "of these, at weights that are not 0"),
    ("mac", "analog MACs"),
    ("neuron_updates", "neuron updates"),
    ("neuron_updates_active", "of these, with input"),
    ("bias_additions", "additions of biases"),
    ("resets", "resets"),
    ("leak_multiplications", "leak multiplications"),
    ("dense_mac", "MACs of an ANN of its shape"),
    ("ann_mac_nonzero", "of these, at inputs that are not 0"),
)
"""Counts of an image that the page shows, and what they are called."""
AGAINST = {
    "ann_dense": "an ANN of its own shape, dense",
    "ann_sparse": "an ANN of its own shape that skips zeros",
    "teacher": "the teacher",
}
"""Baselines that a chart is drawn for."""


def compare_html(answer: Mapping[str, Any]) -> str:
    """The page of ``energy-report --compare``: one HTML file without outside requests.

    Args:
        answer: ``rows``, ``reports``, ``data`` and ``checks``, see :func:`neurodeploy.report.compare.compare_energy`.
    """
    reports = answer["reports"]
    return (
        environment()
        .get_template("compare.html.j2")
        .render(
            answer=answer,
            reports=reports,
            first=next(iter(reports.values())),
            counts=COUNTS,
            bars=energy_bars(reports),
            withheld={profile: withheld(reports, profile) for profile in next(iter(reports.values()))["prices"]},
            charts=[chart for key in AGAINST for chart in _charts(reports, key)],
        )
    )


def energy_bars(reports: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """By profile, the parts of every model's energy on one scale, the same part in the same colour.

    The smallest parts are one where there are more than colours.

    Returns:
        ``profile, groups[], models[]``; the ``shares`` of a model are of the dearest one's sum, ordered as ``groups``.
    """
    found = []
    for profile in next(iter(reports.values()))["prices"]:
        sums = {name: _by_group(report["prices"][profile]["terms"]) for name, report in reports.items()}
        groups = list(dict.fromkeys(group for parts in sums.values() for group in parts))
        groups.sort(key=lambda group: -sum(parts.get(group, 0.0) for parts in sums.values()))
        if len(groups) > COLOURS:
            small, groups = groups[COLOURS - 1 :], [*groups[: COLOURS - 1], REST]
            sums = {
                name: {**parts, REST: sum(parts.get(group, 0.0) for group in small)} for name, parts in sums.items()
            }
        most = max(sum(parts.get(group, 0.0) for group in groups) for parts in sums.values())
        models = [
            {"model": name, "shares": [parts.get(group, 0.0) / most if most else 0.0 for group in groups]}
            for name, parts in sums.items()
        ]
        found.append({"profile": profile, "groups": groups, "models": models})
    return found


def withheld(reports: Mapping[str, Mapping[str, Any]], profile: str) -> list[dict[str, Any]]:
    """Operations without a price, those of one reason together, with the count of every model.

    Returns:
        ``why, instead, lines[]``; a line's ``counts`` are (model, count) pairs.
    """
    found: dict[tuple[str, str], dict[str, list[tuple[str, float]]]] = {}
    for name, report in reports.items():
        for line in report["prices"][profile]["not_priced"]:
            same = found.setdefault((line["why"], line["instead"]), {})
            same.setdefault(line["label"], []).append((name, line["count"]))
    return [
        {"why": why, "instead": instead, "lines": [{"label": label, "counts": said} for label, said in lines.items()]}
        for (why, instead), lines in found.items()
    ]


def _by_group(terms: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    sums: dict[str, float] = {}
    for term in terms:
        sums[term["group"]] = sums.get(term["group"], 0.0) + term["energy_pj"]
    return sums


def _charts(reports: Mapping[str, Mapping[str, Any]], key: str) -> list[dict[str, Any]]:
    """A chart for every profile at which some model and this baseline both have an energy."""
    found = []
    for profile in next(iter(reports.values()))["prices"]:
        courses = [
            course
            for place, (name, report) in enumerate(reports.items())
            if (course := _course(name, place, report, profile, key)) is not None
        ]
        if courses:
            chart = svg.break_even_of_several(courses, AGAINST[key])
            found.append({"profile": profile, "against": AGAINST[key], "chart": chart, "courses": courses})
    return found


def _course(name: str, place: int, report: Mapping[str, Any], profile: str, key: str) -> dict[str, Any] | None:
    """One model's way through a chart: its energy in times of the baseline's, where it runs and without a spike."""
    lines = report["verdict"]["against"]
    line = next((one for one in lines if (one["profile"], one["baseline"]) == (profile, key)), None)
    rate = report["verdict"]["spike_rate"]
    if line is None or not rate:
        return None
    ann = line["baseline_pj"]
    costs = report["prices"][profile]["per_image_pj"]
    images = [(image["rate"], cost / ann) for image, cost in zip(report["counts"]["per_image"], costs, strict=True)]
    return {
        "model": name,
        "style": place % svg.COLOURS,
        "rate": rate,
        "ratio": line["ratio"],
        "fixed": line["fixed_pj"] / ann,
        "break_even": line["break_even_rate"],
        "images": images if len(images) > 1 else [],
        "words": line["words"],
    }
