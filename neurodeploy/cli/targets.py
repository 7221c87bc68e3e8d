"""``neurodeploy targets``."""

from __future__ import annotations

from typing import Any

from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


@verb("targets")
def command(settings: Settings) -> None:
    """List what can be exported to, and what each target supports.

    Examples:
      neurodeploy targets
      neurodeploy --json targets
    """
    from neurodeploy.report.tables import list_targets

    data = list_targets()
    answer(settings, data, lambda: _text(data["targets"], data["refused"]))


def _text(targets: list[dict[str, Any]], refused: dict[str, str]) -> str:
    parts = [table(targets, [("name", "TARGET"), ("summary", "WHAT IT WRITES")])]
    names = [target["name"] for target in targets]
    rows = [
        {"operation": operation, **{t["name"]: "yes" if t["operations"][operation] is True else "no" for t in targets}}
        for operation in targets[0]["operations"]
    ]
    parts.append(table(rows, [("operation", "OPERATION"), *((name, name) for name in names)]))
    refusals = [
        {"target": target["name"], "operation": operation, "why": why}
        for target in targets
        for operation, why in target["operations"].items()
        if why is not True
    ]
    if refusals:
        parts.append(table(refusals, [("target", "TARGET"), ("operation", "REFUSES"), ("why", "BECAUSE")]))
    options = [
        {"target": target["name"], "option": key, "values": values}
        for target in targets
        for key, values in target["options"].items()
    ]
    if options:
        parts.append(table(options, [("target", "TARGET"), ("option", "--option"), ("values", "VALUES")]))
    if refused:
        rows = [{"chip": chip, "why": why} for chip, why in refused.items()]
        parts.append(table(rows, [("chip", "NO TARGET FOR"), ("why", "BECAUSE")]))
    return "\n\n".join(parts)
