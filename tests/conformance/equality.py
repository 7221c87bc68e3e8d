"""One model, exported and run in the frameworks of others and in Lava: what differs, at every layer and step.

``python -m tests.conformance.equality [MODEL ...] [--steps 1,4,8,32] [--write docs/equality.md]``

For every number of time steps T and every picture the network is exported to NIR and to Lava, each reader runs the
file, and all its spikes and its output are compared with the proof: with the integers where they and the float graph
are equal by construction (nothing decays between steps), else readers of NIR with the float interpretation of the
quantised network. Lava is compared with the integers throughout, currents and membranes included.

A student of integer levels is trained for T = 1, where nothing decays. For larger T its populations run as the binary
neurons that they are on a chip, and they are given a leak, so that there is something to be remembered.
"""

from __future__ import annotations

import argparse
import json
import shlex
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.errors import UserError
from neurodeploy.files import writing_file
from neurodeploy.images.degradations import parse_degradation
from neurodeploy.images.io import read_image, to_unit
from neurodeploy.model.base import Model
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.network import IntegerLif, IntegerNetwork
from neurodeploy.report.evaluate import trained_degradation
from neurodeploy.targets.base import Deployable
from neurodeploy.targets.bundle import equality, read_bundle
from neurodeploy.targets.export import export
from neurodeploy.targets.manifest import Manifest
from neurodeploy.targets.verify import verify
from neurodeploy.zoo import resolve

FRAMEWORKS = ("norse", "snntorch", "spikingjelly")
LEAK = 1024
"""Share of a membrane lost a step, in 4096ths, given to networks that remember nothing."""


def for_steps(net: IntegerNetwork, steps: int) -> IntegerNetwork:
    """The network with T steps; where it would remember nothing, every membrane loses a quarter a step."""
    host = net.host.model_copy(update={"steps": steps})
    if steps == 1:
        return replace(net, host=host)
    wide = expand_levels(net)
    forgets = all(np.all(np.asarray(node.v_decay) == 4096) for node in wide.lifs())
    nodes = {
        name: replace(node, v_decay=LEAK) if forgets and isinstance(node, IntegerLif) else node
        for name, node in wide.nodes.items()
    }
    return replace(wide, nodes=nodes, host=host)


def pictures(model: Model, names: Sequence[str], size: tuple[int, int]) -> dict[str, np.ndarray]:
    """The centre of every picture, degraded as the model was trained for; built-in photographs without names."""
    if names:
        clean = {Path(name).stem: read_image(name, channels=model.channels) for name in names}
    else:
        from neurodeploy.images.datasets import Builtin

        chosen = Builtin("test", None, model.channels)
        clean = {name: to_unit(chosen.levels(place)) for place, name in enumerate(chosen.names[:3])}
    degradation = trained_degradation(model) or parse_degradation("gaussian:25")
    found = {}
    for name, image in clean.items():
        top, left = (image.shape[1] - size[0]) // 2, (image.shape[2] - size[1]) // 2
        part = image[:, top : top + size[0], left : left + size[1]]
        found[name] = degradation.apply(part, np.random.RandomState(0))[0].astype(np.float32)
    return found


def compare(
    model: Model, steps: int, image: np.ndarray, readers: Sequence[str], lava: bool, folder: Path
) -> list[dict[str, Any]]:
    """One row a reader for one picture and T: ``reader, version, against, compared, result``."""
    net = for_steps(model.integer(), steps)
    size = (image.shape[1], image.shape[2])
    rows = []
    for target, names in (("nir", readers), ("lava", ("lava",) if lava else ())):
        if not names:
            continue
        try:
            bundle = export(Deployable(model.name, net, size, image), target, folder / target, force=True)
        except UserError as error:
            rows += [{"reader": name, "result": f"not exported: {error}"} for name in names]
            continue
        rows += _rows(bundle.path, names, net)
    return rows


def _rows(path: Path, names: Sequence[str], net: IntegerNetwork) -> list[dict[str, Any]]:
    """One row a reader; all of them together, or one by one where one of them cannot run."""
    try:
        answer = verify(path, against=names)
    except UserError as error:
        if len(names) == 1:
            return [{"reader": names[0], "result": f"cannot run: {error.message}"}]
        return [row for name in names for row in _rows(path, [name], net)]
    return [_row(read_bundle(path).manifest, reader, net) for reader in answer["readers"] if reader["name"] in names]


def _row(manifest: Manifest, found: dict[str, Any], net: IntegerNetwork) -> dict[str, Any]:
    name = found["name"]
    integers = name == "lava" or equality(net).integers_equal_float
    row: dict[str, Any] = {"reader": name, "against": "integers" if integers else "float graph"}
    first = found["first_difference"]
    fields = 3 if name == "lava" else 1
    return {
        **row,
        "version": found["version"],
        "layers": len(manifest.proof.layers),
        "compared": fields * found["steps"] * found["neurons"],
        "margin": manifest.proof.smallest_margin,
        "result": "0" if found["equal"] else f"first difference at {first['layer']}, step {first['step']}",
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The page's table: a line a model, T and reader, all pictures together."""
    keys = list(dict.fromkeys((row["model"], row["T"], row["reader"]) for row in rows))
    lines = [
        "| model | T | reader | pictures | pixels | compared with | values compared | different |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for key in keys:
        group = [row for row in rows if (row["model"], row["T"], row["reader"]) == key]
        results = list(dict.fromkeys(row["result"] for row in group))
        reader = f"{key[2]} {group[0].get('version', '')}".strip()
        compared = sum(row.get("compared", 0) for row in group)
        what = " + ".join(dict.fromkeys(row["against"] for row in group if "against" in row))
        names, side = ", ".join(row["picture"] for row in group), group[0]["size"]
        cells = [*key[:2], reader, names, f"{side}x{side}", what, f"{compared:,}", "; ".join(results)]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _parsed(arguments: Sequence[str]) -> argparse.Namespace:
    def integers(text: str) -> list[int]:
        return [int(part) for part in text.split(",") if part]

    def words(text: str) -> list[str]:
        return [part for part in text.split(",") if part]

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", default=["demo"])
    parser.add_argument("--steps", type=integers, default=[1, 4, 8, 32])
    parser.add_argument("--readers", type=words, default=list(FRAMEWORKS))
    parser.add_argument("--lava-steps", type=integers, default=[], help="T for which Lava runs, too; it takes minutes")
    parser.add_argument("--image", action="append", default=[], help="picture (default: three built-in photographs)")
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--lava-size", type=int, default=32)
    parser.add_argument("--keep", type=Path, help="JSON of all runs so far: new rows take the place of old ones")
    parser.add_argument("--write", type=Path, help="the page, of all runs that --keep holds")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str]) -> int:
    """Command line; exit code 1 where anything differs."""
    chosen = _parsed(arguments)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        for name in chosen.models:
            model = resolve(name, untrained=True)
            for steps in chosen.steps:
                runs = [(chosen.size, chosen.readers, False)]
                runs += [(chosen.lava_size, (), True)] if steps in chosen.lava_steps else []
                for side, readers, lava in runs:
                    for picture, image in pictures(model, chosen.image, (side, side)).items():
                        for row in compare(model, steps, image, readers, lava, Path(scratch)):
                            rows.append({"model": model.name, "T": steps, "picture": picture, "size": side, **row})
                            print({key: rows[-1].get(key) for key in ("model", "T", "picture", "reader", "result")})
    command = "python -m tests.conformance.equality " + " ".join(shlex.quote(word) for word in arguments)
    runs_so_far = _kept(chosen.keep, command, rows)
    if chosen.write is not None:
        with writing_file(chosen.write, force=True) as path:
            commands = "\n".join(f"$ {line}" for line in runs_so_far["commands"])
            path.write_text(PAGE.format(commands=commands, table=table(runs_so_far["rows"])), encoding="utf-8")
    return 0 if rows and all(row["result"] == "0" for row in rows) else 1


def _kept(path: Path | None, command: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """The commands and rows of all runs so far, this one included."""
    kept: dict[str, Any] = {"commands": [], "rows": []}
    if path is not None and path.is_file():
        kept = json.loads(path.read_text(encoding="utf-8"))
    keys = ("model", "T", "picture", "reader")
    new = {tuple(row[key] for key in keys) for row in rows}
    kept["rows"] = [row for row in kept["rows"] if tuple(row[key] for key in keys) not in new] + rows
    kept["commands"] = [line for line in kept["commands"] if line != command] + [command]
    if path is not None:
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")
    return kept


PAGE = """# Equal, not similar

Each network below was exported, read by the reader's own importer and run on degraded pictures; every spike of every
layer and step, and the output, were compared. Where nothing decays between steps the integers of the chip are what all
of them owe. Elsewhere the chip truncates and floats do not: there the readers of NIR owe the float interpretation of
the quantised network, and Lava owes the integers, its currents and membranes (u, v) included.

A network of integer levels is trained for T = 1. With more steps its populations run as the binary neurons that they
are on a chip, with a leak of a quarter a step, so that there is something to be remembered.

```console
{commands}
```

{table}
A threshold lies off the grid of the membranes, so that no reader meets a tie: `>` and `>=` are the same there. The
distance that the proof came to one stands in every bundle's manifest.
"""


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
