"""``neurodeploy inspect``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.findings import findings_text
from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


@verb("inspect")
@click.argument("path", metavar="FILE", type=click.Path())
def command(settings: Settings, path: str) -> None:
    """Say what is in a file, a bundle or a model of the zoo.

    FILE is a student or other .safetensors, a .nir graph, a Lava .net, a bundle, a run folder, a recipe, a hardware
    profile, or a picture; or the name of a model. It is checked as it is read.

    Examples:
      neurodeploy inspect runs/mine/student.safetensors
      neurodeploy inspect denoise-gray-25
      neurodeploy inspect graph.nir
      neurodeploy --json inspect bundle
    """
    from neurodeploy.report.inspect import inspect_path

    data = inspect_path(path)
    answer(settings, data, lambda: _text(data))


def _text(data: dict[str, Any]) -> str:
    facts = [{"key": key, "value": value} for key, value in data["facts"].items() if value is not None]
    parts = [f"{data['path']}: {data['kind']}"]
    if facts:
        size = max(len(row["key"]) for row in facts)
        parts.append("\n".join(f"  {row['key'].ljust(size)}  {row['value']}" for row in facts))
    if data["rows"]:
        keys = dict.fromkeys(key for row in data["rows"] for key in row)
        parts.append(table(data["rows"], [(key, key.upper()) for key in keys]))
    if data["findings"]:
        parts.append(findings_text(data["findings"]))
    return "\n\n".join(parts)
