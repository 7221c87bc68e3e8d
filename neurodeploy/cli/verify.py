"""``neurodeploy verify``."""

from __future__ import annotations

from typing import Any

import click

from neurodeploy.cli.output import answer, table
from neurodeploy.cli.settings import Settings, verb


def _names(_context: click.Context, _parameter: click.Parameter, values: tuple[str, ...]) -> list[str] | None:
    """``("a,b", "c")`` -> [a, b, c]; None where nothing was asked for."""
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    return names or None


@verb("verify")
@click.argument("bundle", metavar="BUNDLE", type=click.Path())
@click.option(
    "--against",
    multiple=True,
    callback=_names,
    metavar="NAME,...",
    help="Readers that must run: lava, norse, snntorch, spikingjelly, onnxruntime, sinabs (default: all installed).",
)
def command(settings: Settings, bundle: str, against: list[str] | None) -> int:
    """Run a bundle in every reader that is installed, and compare.

    Every reader loads the bundle's own files and runs the proof's input; its spikes and output are compared with the
    proof. The first difference is named by file, layer, step and neuron. Exit code 1 if there is one.

    Examples:
      neurodeploy verify bundle
      neurodeploy verify bundle --against norse,snntorch,spikingjelly
      neurodeploy --json verify bundle
    """
    from neurodeploy.targets.verify import verify

    data = verify(bundle, against)
    answer(settings, data, lambda: _text(data))
    return 0 if data["ok"] else 1


def _text(data: dict[str, Any]) -> str:
    rows = []
    for reader in data["readers"]:
        result = "skipped" if reader["equal"] is None else "equal" if reader["equal"] else "differs"
        rows.append({**reader, "result": result, "said": reader["skipped_reason"] or reader["note"]})
    columns = [("name", "READER"), ("version", "VERSION"), ("result", "RESULT"), ("steps", "T"), ("neurons", "NEURONS")]
    parts = [
        f"{data['bundle']} for {data['target']}: {'every reader agrees' if data['ok'] else 'not every reader agrees'}",
        table(rows, [*columns, ("said", "")]),
    ]
    for reader in data["readers"]:
        first = reader["first_difference"]
        if first is not None:
            where = ", ".join(f"{key} {value}" for key, value in first.items() if key not in ("have", "want"))
            parts.append(f"{reader['name']}: first difference at {where}: have {first['have']}, want {first['want']}")
    return "\n\n".join(parts)
