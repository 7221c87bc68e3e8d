"""The reports as Markdown: for a repository, an issue, a paper's supplement."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from neurodeploy.report import numbers
from neurodeploy.report.energy import Table, energy_tables, energy_words
from neurodeploy.report.page import DeployReport, Reader


def energy_markdown(report: Mapping[str, Any]) -> str:
    """An energy report as Markdown."""
    counts = report["counts"]
    lines = [
        f"# Operations and energy of {report['model']}",
        "",
        f"{counts['images']} image(s), {counts['steps']} time step(s) each. {report['data']}".rstrip(),
        "",
        *_quality(report),
        *_energy_body(report, "##"),
        "## Reproduce",
        "",
        *(f"- {key}: {_plain(value)}" for key, value in report["reproduce"].items()),
    ]
    return _joined(lines)


def _quality(report: Mapping[str, Any]) -> Iterator[str]:
    """PSNR, the arithmetic-only ratio of model cards, and conditions, where there are any."""
    quality, alone = report.get("quality"), report["op_only"]
    if quality:
        before = f"degraded {quality['input_psnr_db']:.2f} dB"
        yield f"- PSNR {quality['psnr_db']:.2f} dB, SSIM {numbers.decimals(quality['ssim'], 4)}; {before}"
    if alone["fp32"]["teacher_over_student"]:
        ratios = [numbers.ratio(alone[key]["teacher_over_student"]) for key in ("fp32", "int8")]
        yield f"- the teacher's arithmetic is {ratios[0]} the student's in fp32, {ratios[1]} in int8 ({alone['note']})"
    for check in report.get("checks", []):
        yield f"- {'holds' if check['ok'] else 'fails'}: `{check['check']}`, have {check['value']}"
    yield ""


def tables_markdown(title: str, tables: Sequence[Table], sentences: Sequence[str]) -> str:
    """Tables and sentences under one heading."""
    lines = [f"# {title}", ""]
    for table in tables:
        lines += [f"## {table.title}", "", *_markdown(table), ""]
    return _joined([*lines, *(f"- {sentence}" for sentence in sentences)])


def deploy_markdown(report: DeployReport) -> str:
    """The answer of ``deploy`` as Markdown, without pictures."""
    lines = [
        f"# {report.title}",
        "",
        f"Model {report.model}, target {report.target}. {report.degradation}".rstrip(),
        "",
    ]
    if report.findings:
        lines += [*(f"- {line}" for line in report.findings), ""]
    for scores in report.scores:
        rows = [
            [row.label, numbers.decimals(row.psnr_db), numbers.decimals(row.ssim, 4), row.note] for row in scores.stages
        ]
        lines += [f"## PSNR and SSIM on {scores.data}", "", *_table(["stage", "PSNR, dB", "SSIM", ""], rows, "lrrl")]
        lines += ["", f"Mean of {scores.images} image(s). {scores.protocol}", ""]
    parameters = report.parameters
    teacher = f"; the teacher has {parameters.teacher:,}" if parameters.teacher else ""
    lines += ["## Parameters", "", f"{parameters.total:,}, tensor by tensor{teacher}; with the copies that threshold"]
    lines += [f"populations need, {parameters.repeated:,}.", "", *_energy_body(report.energy, "##", report.not_claimed)]
    lines += ["## Read back and verified", "", *_readers(report.readers), ""]
    files = [[file.path, f"{file.size:,}", f"`{file.sha256}`"] for file in report.bundle.files]
    lines += ["## Bundle", "", f"`{report.bundle.folder}`, for {report.bundle.target}.", ""]
    lines += [
        *_table(["file", "bytes", "SHA-256"], files, "lrl"),
        "",
        *(f"- {note}" for note in report.bundle.notes),
        "",
    ]
    lines += ["## Reproduce", "", "```", report.reproduce.command, "```", ""]
    lines += [f"- {name} {version}" for name, version in report.reproduce.versions.items()]
    lines += [f"- {name}: `{value}`" for name, value in report.reproduce.hashes.items()]
    return _joined(lines)


def _energy_body(report: Mapping[str, Any], level: str, not_claimed: Sequence[str] = ()) -> Iterator[str]:
    """Verdict, tables, what is withheld, measured tasks, limits."""
    first, *rest = report["verdict"]["sentences"]
    yield from (f"{level} Verdict", "", f"**{first}**", "", *(f"- {line}" for line in rest), "")
    for table in energy_tables(report):
        if table.rows:
            yield from (f"{level} {table.title}", "", *_markdown(table), "")
    for name, price in report["prices"].items():
        yield from (f"{level}# {price['name']} (`{name}`): {energy_words(price)}", "", price["caveat"], "")
        if price["formula"] and len(price["terms"]) <= 12:
            yield from (f"`{price['formula']}`", "")
        if price["anchors"]:
            yield from ("Measured tasks on this chip, beside and never used to price:", "")
            yield from (*(f"- {_anchor(anchor)}" for anchor in price["anchors"]), "")
    if report.get("placements"):
        yield from (f"{level} Does it fit", "", *_placements(report["placements"]), "")
    yield from (f"{level} Not counted", "", *(f"- {line}" for line in report["not_counted"]), "")
    yield from (f"{level} Not claimed", "", *(f"- {line}" for line in [*not_claimed, *report["not_claimed"]]), "")


def _placements(placements: Mapping[str, Any]) -> Iterator[str]:
    """One line a chip, and what would have to change."""
    for name, entry in placements.items():
        placed, said = entry["placement"], entry["advice"]
        size = "x".join(map(str, placed["image_size"]))
        estimate = f"{_span(placed['cores'])} cores, {_span(placed['chips'])} chips by estimate"
        yield f"- {name}, {size} pixels a run: {estimate}; tightest: {placed['tightest']}"
        yield from (f"  - instead: {change}" for change in (said or {}).get("changes", []))


def _span(pair: Sequence[int] | None) -> str:
    if pair is None:
        return "unknown"
    return f"{pair[0]:,}" if pair[0] == pair[1] else f"{pair[0]:,} to {pair[1]:,}"


def _anchor(anchor: Mapping[str, Any]) -> str:
    figure = anchor.get("result") or ", ".join(
        f"{anchor[key]:g} {anchor[unit]}"
        for key, unit in (("energy", "unit"), ("power", "power_unit"), ("latency", "latency_unit"))
        if key in anchor
    )
    beside = f"; beside: {anchor['beside']}" if anchor.get("beside") else ""
    return f"{anchor['task']}: {figure} ({anchor['boundary']}){beside} [{anchor['source']}]"


def _readers(readers: Sequence[Reader]) -> list[str]:
    if not readers:
        return ["No reader was run."]
    words = {True: "equal", False: "differs", None: "skipped"}
    rows = [
        [one.name, one.version, words[one.equal], one.first_difference or one.skipped_reason or ""] for one in readers
    ]
    return _table(["reader", "version", "result", ""], rows, "llll")


def _markdown(table: Table) -> list[str]:
    right = [all(isinstance(row.get(key, 0), int | float) for row in table.rows) for key, _ in table.columns]
    rows = [[_plain(row.get(key, "")) for key, _ in table.columns] for row in table.rows]
    heads = [_heading(heading) for _, heading in table.columns]
    return _table(heads, rows, "".join("r" if one else "l" for one in right))


def _heading(text: str) -> str:
    """A terminal's heading in small letters, names of things as they are."""
    return " ".join(word if word in ("SOP", "MAC", "ANN") else word.lower() for word in text.split())


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]], sides: str) -> list[str]:
    marks = ["---:" if side == "r" else "---" for side in sides]
    return [_row(heads), _row(marks), *(_row(row) for row in rows)]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _plain(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {item}" for key, item in value.items())
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:,}"
    return str(value)


def _joined(lines: Iterable[str]) -> str:
    """Lines with at most one blank line between them."""
    kept: list[str] = []
    for line in lines:
        if line or (kept and kept[-1]):
            kept.append(line)
    return "\n".join(kept).rstrip("\n") + "\n"
