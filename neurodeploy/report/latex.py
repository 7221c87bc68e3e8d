"""The rows that a paper needs: one LaTeX table (booktabs) of a network and everything that it is compared with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurodeploy.report import numbers

_SPECIAL = {"\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{",
            "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}  # fmt: skip


def latex_table(
    reports: Sequence[Mapping[str, Any]], compared: Sequence[Mapping[str, Any]] = (), data: str | None = None
) -> str:
    """A table of one or several energy reports.

    A row is a network: PSNR, parameters, T, analog MACs, synaptic operations, and the arithmetic-only energy at 45 nm
    with fp32 and with int8. Then come the baselines, those of each network by its name where there are several.
    Figures are means over the images.

    Args:
        reports: Of spiking networks.
        compared: Rows of a comparison; those of networks without spikes are taken from here.
        data: What was run; by default what the first report says.
    """
    first, several = reports[0], len(reports) > 1
    rows: list[list[str] | None] = [_network(report) for report in reports]
    rows += [_ann(row) for row in compared if row["kind"] == "ann"]
    for report in reports:
        rows.append(None)
        of = f" ({report['model']})" if several else ""
        bases = [base for base in report["baselines"].values() if base["key"] != "ann_int8"]
        rows += [_baseline(base, report["op_only"], of) for base in bases]
    counts = sorted({report["counts"]["images"] for report in reports})
    images = " or ".join(str(count) for count in counts)
    caption = (
        f"Operations and arithmetic-only energy an image, mean of {images} image{'s' if counts[-1] > 1 else ''}"
        f" ({first['data'] if data is None else data}). 45\\,nm CMOS:"
        " 4.6/0.9\\,pJ (fp32) and 0.23/0.03\\,pJ (int8) a MAC/AC;"
        " memory, movement and static power are not included."
    )
    head = ["Network", "PSNR (dB)", "Params", "$T$", "MAC", "SOP", "fp32 (\\textmu J)", "int8 (\\textmu J)"]
    body = [r"\midrule" if row is None else " & ".join(row) + r" \\" for row in rows]
    lines = [
        f"% neurodeploy {first['reproduce']['versions']['neurodeploy']}: {_command(first)}",
        r"\begin{table}",
        r"\centering",
        f"\\caption{{{_percent(caption)}}}",
        r"\begin{tabular}{lrrrrrrr}",
        r"\toprule",
        " & ".join(head) + r" \\",
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}",
        r"\end{table}",
    ]
    return "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    """Text with LaTeX's special characters made harmless."""
    return "".join(_SPECIAL.get(character, character) for character in " ".join(text.split()))


def _percent(text: str) -> str:
    """The data set's description may hold anything; the rest of the caption is LaTeX already."""
    start, end = text.index("(") + 1, text.rindex("). 45")
    return text[:start] + escaped(text[start:end]) + text[end:]


def _command(report: Mapping[str, Any]) -> str:
    return " ".join(str(report["reproduce"].get("command", "")).split())


def _network(report: Mapping[str, Any]) -> list[str]:
    quality, mean, alone = report.get("quality"), report["counts"]["mean_per_image"], report["op_only"]
    return [
        escaped(report["model"]),
        "--" if quality is None else f"{quality['psnr_db']:.2f}",
        _count(report["parameters"]["total"]),
        str(report["counts"]["steps"]),
        _count(mean["mac"]),
        _count(mean["sop"]),
        _microjoules(alone["fp32"]["student_pj"]),
        _microjoules(alone["int8"]["student_pj"]),
    ]


def _ann(row: Mapping[str, Any]) -> list[str]:
    return [
        escaped(row["model"]),
        "--" if row["psnr_db"] is None else f"{row['psnr_db']:.2f}",
        _count(row["parameters"]),
        "--",
        _count(row["mac"]),
        "0",
        _microjoules(row["op_only_fp32_pj"]),
        _microjoules(row["op_only_int8_pj"]),
    ]


def _baseline(base: Mapping[str, Any], alone: Mapping[str, Any], of: str = "") -> list[str]:
    int8 = _microjoules(alone["int8"]["mac_pj"] * base["mac"])
    return [
        escaped(base["label"] + of),
        "--",
        "--",
        "--",
        _count(base["mac"]),
        "0",
        "--" if base["key"] == "qnn" else _microjoules(alone["fp32"]["mac_pj"] * base["mac"]),
        f"$\\leq$ {int8}" if base["key"] == "qnn" else int8,
    ]


def _count(value: float) -> str:
    text = numbers.short(value)
    return text.replace(",", r"\,").replace(" ", r"\,")


def _microjoules(picojoules: float) -> str:
    value = picojoules * 1e-6
    return f"{value:,.1f}".replace(",", r"\,") if value >= 9.95 else f"{value:.3g}"
