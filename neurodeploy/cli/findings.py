"""Findings as a person reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurodeploy.cli.output import table

COLUMNS = [
    ("severity", ""),
    ("node", "WHERE"),
    ("rule", "WHAT"),
    ("have", "HAVE"),
    ("limit", "LIMIT"),
    ("instead", "INSTEAD"),
]
_ORDER = {"error": 0, "warning": 1, "note": 2}


def findings_text(findings: Sequence[Mapping[str, Any]]) -> str:
    """A table of findings, errors first; empty without any. Columns that nothing stands in are left out."""
    if not findings:
        return ""
    rows = sorted(findings, key=lambda row: _ORDER[row["severity"]])
    return table(rows, [(key, head) for key, head in COLUMNS if any(row[key] for row in rows)])
