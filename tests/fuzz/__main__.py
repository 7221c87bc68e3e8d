"""Fuzzes the readers: ``python -m tests.fuzz [--count 20000] [--seed 0] [--record FILE] [--page FILE] [READER ...]``.

Every reader reads so many damaged files in child processes, whose memory and time are limited; one that dies is begun
again behind the file that killed it. Exit code 1 if there is any finding. ``--keep DIR`` keeps the files of findings.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from neurodeploy import __version__
from tests.fuzz.readers import READERS, ROOT

BATCH = 500
"""Files that one child reads: what a library leaks does not add up."""

PATIENCE = 30
"""Seconds of processor time without progress after which a child hangs where no signal reaches it."""


def fuzz(
    name: str,
    count: int,
    seed: int,
    *,
    keep: Path | None = None,
    before: dict[str, Any] | None = None,
    save: Callable[[dict[str, Any]], None] = lambda _result: None,
) -> dict[str, Any]:
    """Runs one reader over ``count`` damaged files.

    Args:
        name: The reader.
        count: How many files, from number 0 on.
        seed: Of the damage.
        keep: Folder for the files of findings.
        before: What an earlier run with this seed found; it goes on behind that.
        save: Called with the result so far after every child.

    Returns:
        ``files``, ``seed``, ``outcomes`` (read, refused, and names of findings) and ``findings``.
    """
    result: dict[str, Any] = {"files": 0, "seed": seed, "neurodeploy": __version__, "outcomes": {}, "findings": []}
    if before is not None and before["seed"] == seed:
        result = before
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(scratch)
        (folder / "seeds").mkdir()
        READERS[name].seeds(folder / "seeds")
        while result["files"] < count:
            place = result["files"]
            lines, died = _child(name, place, min(BATCH, count - place), seed, folder)
            found = [line for line in lines if "tally" not in line]
            tally = Counter(result["outcomes"])
            for line in lines:
                tally.update(line.get("tally", {}))
            done = min(BATCH, count - place)
            if died:
                if not (folder / "at").exists():
                    raise RuntimeError(f"{name}: the sound files are not read: {died}")
                done = int((folder / "at").read_text()) - place + 1
                # the tally of a child that died is lost: what it found stands, the rest was read or refused
                tally.update(line["outcome"] for line in found)
                tally.update({"dead": 1, "read or refused": done - 1 - len(found)})
                found.append({"number": place + done - 1, "outcome": "dead", "said": died})
            for line in found if keep is not None else ():
                _keep(name, line["number"], seed, folder, keep)
            result = {
                **result,
                "files": place + done,
                "outcomes": dict(sorted(tally.items())),
                "findings": [*result["findings"], *found],
            }
            save(result)
    return result


def _child(name: str, first: int, count: int, seed: int, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """What a child printed, and how it died (empty where it did not)."""
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(first), str(count), str(seed), str(folder)]
    (folder / "at").unlink(missing_ok=True)
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
        last, since, died = "", 0.0, ""
        while process.poll() is None:
            time.sleep(0.2)
            now = (folder / "at").read_text() if (folder / "at").exists() else ""
            taken = _processor_seconds(process.pid)
            if now != last:
                last, since = now, taken
            elif taken - since > PATIENCE:
                process.kill()
                died = f"no progress in {PATIENCE} s of processor time"
        if process.returncode != 0 and not died:
            err.seek(0)
            words = err.read().strip().splitlines()
            died = f"exit code {process.returncode}: {words[-1] if words else ''}"[:400]
        out.seek(0)
        return [json.loads(line) for line in out.read().splitlines() if line.startswith("{")], died


def _processor_seconds(pid: int) -> float:
    """What a process has taken so far; a busy machine does not make it a hang."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _keep(name: str, number: int, seed: int, folder: Path, keep: Path) -> None:
    from random import Random

    rng = Random(f"{seed}/{name}/{number}")
    sound = rng.choice(sorted((folder / "seeds").iterdir()))
    target = keep / name / f"{number}{sound.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    READERS[name].mutate(sound, target, rng)


def page(record: dict[str, Any]) -> str:
    """The record as a page."""
    rows = ["| reader | damaged files | read all the same | refused | findings | seed |", "|---|---|---|---|---|---|"]
    for name in (name for name in READERS if name in record["readers"]):
        found = record["readers"][name]
        outcomes = found["outcomes"]
        others = {key: count for key, count in outcomes.items() if key not in ("read", "refused")}
        said = ", ".join(f"{count} {key}" for key, count in others.items()) or "none"
        counts = [outcomes.get(key, 0) for key in ("read", "refused")]
        cells = [name, f"{found['files']:,}", *(f"{count:,}" for count in counts), said, str(found["seed"])]
        rows.append(f"| {' | '.join(cells)} |")
    return PAGE.format(table="\n".join(rows))


PAGE = """# Files of strangers

Every reader of the program was given damaged files: bytes changed, cut out and doubled; HDF5 objects replaced, linked
and made huge; keys and values of JSON and TOML exchanged; the chunks of pictures; nodes, shapes and names of ONNX. Each
file is read in a process with 2 s of processor time and 1 GiB beyond what it has after its imports, under a watch for
programs started, files written, connections and unpickling. A file is *refused* with one line that names it, or read;
anything else is a finding.

```console
$ python -m tests.fuzz --count 20000 --seed 1 --record docs/fuzz-record.json --page docs/fuzzing.md
```

{table}

What earlier runs found or pointed to is fixed and kept, one test each, in `tests/unit/test_fuzz_findings.py`:

| reader | what was found | now |
|---|---|---|
| NIR, netx | HDF5 goes round for ever at a free object of size 0 among a file's texts | these are walked first |
| NIR, netx | names of groups that claim to be larger than the file: HDF5 takes the memory | refused beforehand |
| NIR, netx | free places among a group's names that go in a circle: HDF5 takes all memory | walked first |
| NIR, netx | headers and texts that claim to be larger than the file: HDF5 takes the memory | refused beforehand |
| NIR, netx | one text to which many refer: a small file, gigabytes once it is read | counted every time |
| NIR, netx | an array that nobody stored: many MiB of zeros from some kB | refused by the bytes that are stored |
| netx | a type, a data set or nothing where a layer or its shape belongs: crashes | refused by name |
| netx | thresholds of 16 million neurons: sorted, for more than 2 s | compared, not sorted |
| netx | channels that do not fit: refused without the name of the file | named |
| NIR | a word for a stride, 0 for a stride of a pool: two kinds of crash | refused by name |
| netx | names of layers that are no UTF-8: a crash | refused by name |
| pictures | a PNG with a part that claims a gigabyte: Pillow takes the memory | refused beforehand |
| NIR | an infinite stride: a crash | refused by name |
| pictures | a PNG of millions of rows in half a kB: a gigabyte, and seconds | refused by the bytes that are stored |
| pictures | a TIFF of nine rows that claims millions: made, black, for more than 2 s | refused |
| NIR | a text of an encoding that h5py does not know: a crash | refused by name |
| NIR | a damaged hint: refused without the name of the file | named |
| arrays, proofs | numpy reads headers with Python's parser, which raises what it likes | refused |
| proofs | an archive of another version, or encrypted: crashes | refused |
| proofs | a member that claims to be larger than its archive: the memory is taken | refused beforehand |
| arrays | a header of 4 GB: the memory is taken before it is refused | its length is looked at first |
| recipes, profiles, run folders | integers of 5,000 digits, brackets 900 deep: crashes | refused |
| ONNX | a name that is no text | refused |

A bounded run is part of the tests: `pytest tests/fuzz` lets hypothesis choose the damage, `pytest -m slow tests/fuzz`
starts the limited processes.
"""


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)} (default: all)")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="JSON file; readers that are not run keep what it says of them")
    parser.add_argument("--keep", type=Path)
    parser.add_argument("--resume", action="store_true", help="go on where the record of the same seed ends")
    parser.add_argument("--merge", type=Path, nargs="+", default=[], help="other records to take in; nothing is run")
    parser.add_argument("--page", type=Path, help="the record as a page of the docs")
    chosen = parser.parse_args()
    record: dict[str, Any] = {"readers": {}}
    for path in [chosen.record, *chosen.merge]:
        if path is not None and path.is_file():
            record["readers"] |= json.loads(path.read_text())["readers"]
    bad = 0
    for name in () if chosen.merge else chosen.readers or READERS:

        def save(result: dict[str, Any], name: str = name) -> None:
            record["readers"][name] = result
            if chosen.record is not None:
                chosen.record.write_text(json.dumps(record, indent=1) + "\n")

        before = record["readers"].get(name) if chosen.resume else None
        result = fuzz(name, chosen.count, chosen.seed, keep=chosen.keep, before=before, save=save)
        bad += len(result["findings"])
        print(name, result["files"], json.dumps(result["outcomes"]), flush=True)
        for found in result["findings"][:20]:
            print("   ", json.dumps(found), flush=True)
    if chosen.merge and chosen.record is not None:
        chosen.record.write_text(json.dumps(record, indent=1) + "\n")
    if chosen.page is not None:
        chosen.page.write_text(page(record), encoding="utf-8")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
