"""Conditions on a report, for continuous integration: ``sop_per_mac<0.7``, ``psnr_db>29``."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from neurodeploy.errors import UserError

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    "<=": operator.le,
    ">=": operator.ge,
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    ">": operator.gt,
}
NAMES: Mapping[str, tuple[str, str]] = {
    "sop_per_mac": ("verdict.sps", "synaptic operations for each MAC of an ANN of the same shape"),
    "sps": ("verdict.sps", "the same"),
    "operations_per_mac": ("verdict.operations_per_mac", "synaptic operations and analog MACs for each such MAC"),
    "sop_per_teacher_mac": ("verdict.sps_teacher", "synaptic operations for each MAC of the teacher"),
    "spike_rate": ("verdict.spike_rate", "mean spikes a neuron and step"),
    "analog_share": ("verdict.analog_mac_share", "part of the operations that are analog MACs"),
    "psnr_db": ("quality.psnr_db", "PSNR of the chip's integers, mean over the images"),
    "ssim": ("quality.ssim", "SSIM of the same"),
    "input_psnr_db": ("quality.input_psnr_db", "PSNR of the degraded images"),
    "parameters": ("parameters.total", "parameters, each once"),
    "sop": ("counts.mean_per_image.sop", "synaptic operations an image"),
    "worst_sop": ("counts.spread.sop.worst", "synaptic operations of the worst image"),
    "p95_sop": ("counts.spread.sop.p95", "95th percentile of them"),
    "mac": ("counts.mean_per_image.mac", "analog MACs an image"),
    "spikes": ("counts.mean_per_image.spikes", "spikes an image"),
    "neuron_updates": ("counts.mean_per_image.neuron_updates", "neuron updates an image"),
    "teacher_over_student": ("op_only.fp32.teacher_over_student", "arithmetic alone, fp32"),
    "teacher_over_student_int8": ("op_only.int8.teacher_over_student", "arithmetic alone, int8 on both sides"),
}
"""Short names, each with its place in the report. Any other number is named by its dotted place."""

_EXPRESSION = re.compile(r"\s*([A-Za-z0-9_.-]+?)\s*(<=|>=|==|!=|<|>)\s*([-+]?[0-9.]+(?:[eE][-+]?[0-9]+)?)\s*")


@dataclass(frozen=True)
class Check:
    """One condition: a place in the report, an operator, a number."""

    text: str
    name: str
    place: str
    sign: str
    limit: float

    def of(self, report: Mapping[str, Any]) -> dict[str, Any]:
        """The condition on a report, with the keys of the JSON answers; a value that is not there fails.

        Raises:
            UserError: The report has no such place.
        """
        value = _found(report, self)
        ok = value is not None and OPERATORS[self.sign](value, self.limit)
        why = "" if value is not None else "the report has no value for it: withheld, or not measured in this run"
        return {"check": self.text, "value": value, "ok": bool(ok), "why": why}


def parse_checks(texts: Sequence[str]) -> list[Check]:
    """Conditions as they were typed.

    Raises:
        UserError: One of them is not of the form NAME<NUMBER, or has an unknown short name.
    """
    found = []
    for text in texts:
        match = _EXPRESSION.fullmatch(text)
        limit = _number(match.group(3)) if match else None
        if match is None or limit is None:
            raise UserError(
                "is not a condition of the form NAME<NUMBER",
                node=f"--check {text!r}",
                limit="one of < <= > >= == !=",
                instead="for example 'sop_per_mac<0.7'",
            )
        name = match.group(1)
        if name not in NAMES and "." not in name:
            near = get_close_matches(name, NAMES, n=1)
            hint = f"did you mean {near[0]!r}? " if near else ""
            known = ", ".join(NAMES)
            raise UserError(
                "is not a figure of the report",
                node=f"--check {text!r}",
                instead=f"{hint}{known}, or a dotted place such as prices.cmos45-int8.total_pj",
            )
        found.append(Check(text.strip(), name, NAMES[name][0] if name in NAMES else name, match.group(2), limit))
    return found


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _found(report: Mapping[str, Any], check: Check) -> float | None:
    value: Any = report
    for key in check.place.split("."):
        if value is None:
            return None
        if isinstance(value, Mapping) and key in value:
            value = value[key]
        elif isinstance(value, list) and key.isdecimal() and int(key) < len(value):
            value = value[int(key)]
        else:
            there = (
                ", ".join(value)
                if isinstance(value, Mapping)
                else f"{len(value)} items"
                if isinstance(value, list)
                else ""
            )
            raise UserError("is no place in the report", node=f"--check {check.text!r}", have=key, limit=there)
    if isinstance(value, bool):
        return float(value)
    if value is None or isinstance(value, int | float):
        return value
    raise UserError("is not a number", node=f"--check {check.text!r}", have=type(value).__name__)
