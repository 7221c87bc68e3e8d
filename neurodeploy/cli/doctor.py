"""``neurodeploy doctor``."""

from __future__ import annotations

from typing import Any

from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


@verb("doctor")
def command(settings: Settings) -> None:
    """Say what this machine can do, and what to install.

    Put its output into a report of a fault.

    Examples:
      neurodeploy doctor
      neurodeploy --json doctor
    """
    from neurodeploy.report.doctor import diagnose

    data = diagnose()
    answer(settings, data, lambda: _text(data))


def _text(data: dict[str, Any]) -> str:
    memory = "" if data["memory_gib"] is None else f", {data['memory_gib']} GiB"
    lines = [
        f"neurodeploy {data['neurodeploy']}, Python {data['python']}, {data['platform']}",
        f"{data['cores']} cores{memory}; simulators: {', '.join(data['simulators'])}",
        f"torch devices: {', '.join(data['devices']) or 'none, torch is not installed'}",
        *(f"{name}: {found['entries']} in {found['path']}" for name, found in data["shipped"].items()),
        "",
        table(data["packages"], [("name", "PACKAGE"), ("version", "VERSION"), ("extra", "OF")]),
    ]
    if data["advice"]:
        lines += ["", "to install:", *(f"  {line}" for line in data["advice"])]
    return "\n".join(lines)
