"""``neurodeploy doctor``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.output import answer, say, table
from neurodeploy.cli.settings import Settings, verb


@verb("doctor")
@click.option("--install-lava", is_flag=True, help="Make the environment that Lava needs (Python 3.10; several GB).")
def command(settings: Settings, install_lava: bool) -> None:
    """Say what this machine can do, and what to install.

    Put its output into a report of a fault. Lava was archived with Python 3.10, numpy 1 and torch 2.3; --install-lava
    gives it an environment of its own, in $NEURODEPLOY_LAVA or under your data folder, that nothing else depends on.

    Examples:
      neurodeploy doctor
      neurodeploy --json doctor
      neurodeploy doctor --install-lava
    """
    from neurodeploy.report.doctor import diagnose

    if install_lava:
        from neurodeploy.lava_env import install

        settings.kept = "the environment of Lava is not complete; the next --install-lava starts anew"
        install(lambda line: say(settings, line))

    data = diagnose()
    answer(settings, data, lambda: _text(data))


def _text(data: dict[str, Any]) -> str:
    memory = "" if data["memory_gib"] is None else f", {data['memory_gib']} GiB"
    lines = [
        f"neurodeploy {data['neurodeploy']}, Python {data['python']}, {data['platform']}",
        f"{data['cores']} cores{memory}; simulators: {', '.join(data['simulators'])}",
        f"kernel: {data['kernel']}",
        f"torch devices: {', '.join(data['devices']) or 'none, torch is not installed'}",
        f"Lava: {data['lava'] or 'no environment'}",
        *(f"{name}: {found['entries']} in {found['path']}" for name, found in data["shipped"].items()),
        "",
        table(data["packages"], [("name", "PACKAGE"), ("version", "VERSION"), ("extra", "OF")]),
    ]
    if data["advice"]:
        lines += ["", "to install:", *(f"  {line}" for line in data["advice"])]
    return "\n".join(lines)
