"""Operation x target x reader: equal numbers, or a refusal with its reason.

``python -m tests.conformance.matrix [--target T ...] [--write docs/conformance.md]`` exports the sample of every
operation to every target, runs each bundle in every reader that is installed, and writes what came of it.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from neurodeploy.errors import FindingsError
from neurodeploy.files import writing_file
from neurodeploy.targets import TARGETS
from neurodeploy.targets.export import export
from neurodeploy.targets.ops import OPERATIONS, Operation
from neurodeploy.targets.readers import READERS
from neurodeploy.targets.verify import verify

EQUAL, DIFFERS = "equal", "DIFFERS"


def cells(operation: Operation, target: str, folder: Path) -> dict[str, str]:
    """Reader -> :data:`EQUAL`, :data:`DIFFERS` and where, or why it does not run; one key ``""`` where the target
    refuses.
    """
    try:
        bundle = export(operation.sample(target), target, folder / "bundle", force=True)
    except FindingsError as error:
        return {"": str(error.findings[0])}
    return {row["name"]: _cell(row) for row in verify(bundle.path)["readers"]}


def _cell(row: dict[str, Any]) -> str:
    if row["equal"] is None:
        return str(row["skipped_reason"])
    return EQUAL if row["equal"] else f"{DIFFERS}: {row['first_difference']}"


def page(
    found: Mapping[str, Mapping[str, Mapping[str, str]]], commands: Sequence[str], versions: Mapping[str, str]
) -> str:
    """The page: a table a target, and the reasons under it.

    Args:
        found: Target -> operation -> reader -> what came of it.
        commands: What was run.
        versions: Of the readers that were there.
    """
    parts = [HEAD.format(commands="\n".join(f"$ {command}" for command in commands))]
    for target, rows in sorted(found.items()):
        # a reader that the target has no file for has no column
        readers = [
            name
            for name in READERS
            if name in versions
            and any(EQUAL in row.get(name, "") or DIFFERS in row.get(name, "") for row in rows.values())
        ]
        reasons: dict[str, int] = {}

        def mark(text: str, reasons: dict[str, int] = reasons) -> str:
            return text if text == EQUAL else f"no [{reasons.setdefault(text, len(reasons) + 1)}]"

        heads = [f"{name} {versions[name]}" for name in readers]
        lines = [f"## `{target}`", "", f"| operation | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
        for title, row in rows.items():
            values = [mark(row[""])] * len(readers) if "" in row else [mark(row[name]) for name in readers]
            lines.append(f"| {title} | {' | '.join(values)} |")
        lines += ["", *(f"{number}. {text.replace('|', '/')}" for text, number in reasons.items())]
        parts.append("\n".join(lines) + "\n")
    return "\n".join(parts)


HEAD = """# What was run where

Every operation of the support table, exported to every target and run by every reader: each cell is a run whose spikes
at every layer and step, and whose output, were equal to what the proof owes, or says why there is none. A reader that
no bundle of a target has a file for has no column.

```console
{commands}
```

Random graphs of the portable vocabulary run the same way: `tests/conformance/test_random_graphs.py` takes two hundred
of them through every form that the program writes, `tests/external/test_random_graphs_elsewhere.py` through norse,
snnTorch and SpikingJelly. A target that leaves the first layer to the host gets a plain layer before the operation.
What target `spinnaker2` writes is checked by the rules of py-spinnaker2's importer and run by the reference alone:
py-spinnaker2 is not on PyPI.
"""


def main(arguments: Sequence[str]) -> int:
    """Command line; exit code 1 where anything differs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", action="append", choices=sorted(TARGETS))
    titles = [operation.title for operation in OPERATIONS]
    parser.add_argument("--operation", action="append", choices=titles, help="this one only; others stay as they were")
    parser.add_argument("--keep", type=Path, help="JSON of all runs so far: what runs now takes its place")
    parser.add_argument("--write", type=Path, help="the page, of all runs that --keep holds")
    chosen = parser.parse_args(arguments)
    kept: dict[str, Any] = {"commands": [], "versions": {}, "found": {}}
    if chosen.keep is not None and chosen.keep.is_file():
        kept = json.loads(chosen.keep.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as scratch:
        for target in chosen.target or sorted(TARGETS):
            before = kept["found"].get(target, {}) if chosen.operation else {}
            rows = kept["found"][target] = {}
            for operation in OPERATIONS:
                if chosen.operation and operation.title not in chosen.operation:
                    rows |= {title: row for title, row in before.items() if title == operation.title}
                    continue
                rows[operation.title] = cells(operation, target, Path(scratch))
                print(target, operation.title, rows[operation.title], flush=True)
    command = shlex.join(["python", "-m", "tests.conformance.matrix", *arguments])
    kept["commands"] = [line for line in kept["commands"] if line != command] + [command]
    there = {name: version for name, reader in READERS.items() if (version := reader.version())}
    kept["versions"] = kept.get("versions", {}) | there
    if chosen.keep is not None:
        chosen.keep.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    if chosen.write is not None:
        with writing_file(chosen.write, force=True) as path:
            path.write_text(page(kept["found"], kept["commands"], kept["versions"]), encoding="utf-8")
    cells_found = (cell for rows in kept["found"].values() for row in rows.values() for cell in row.values())
    return 1 if any(DIFFERS in cell for cell in cells_found) else 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
