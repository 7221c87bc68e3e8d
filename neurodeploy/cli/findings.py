"""Findings as a person reads them."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from neurodeploy.cli.output import width
from neurodeploy.errors import Finding

_ORDER = {"error": 0, "warning": 1, "note": 2}


def findings_text(findings: Sequence[Mapping[str, Any]]) -> str:
    """Findings one below the other, errors first, wrapped at a terminal's edge; empty without any."""
    edge = width()
    lines = []
    for row in sorted(findings, key=lambda row: _ORDER[row["severity"]]):
        line = f"{row['severity']:<7}  {Finding(**row)}"
        lines.append(line if edge is None else textwrap.fill(line, edge, subsequent_indent=" " * 9))
    return "\n".join(lines)
