"""Fuzzes the readers: ``python -m tests.fuzz [--count 20000] [--seed 0] [--record FILE] [READER ...]``.

Every reader reads so many damaged files in child processes, whose memory and time are limited; one that dies is begun
again behind the file that killed it. Exit code 1 if there is any finding. ``--keep DIR`` keeps the files of findings.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

from neurodeploy import __version__
from tests.fuzz.readers import READERS, ROOT

BATCH = 2000
"""Files that one child reads: what a library leaks does not add up."""

PATIENCE = 120
"""Seconds without a word of progress after which a child hangs where no signal reaches it."""


def fuzz(name: str, count: int, seed: int, keep: Path | None = None, batch: int = BATCH) -> dict[str, Any]:
    """Runs one reader over ``count`` damaged files.

    Returns:
        ``files``, ``outcomes`` (read, refused, and names of findings) and ``findings``.
    """
    outcomes: Counter[str] = Counter()
    findings: list[dict[str, Any]] = []
    started = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as scratch, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        folder = Path(scratch)
        (folder / "seeds").mkdir()
        READERS[name].seeds(folder / "seeds")
        place = 0
        while place < count:
            size = min(batch, count - place)
            lines, died = _child(name, place, size, seed, folder)
            done = size
            for line in lines:
                if "tally" in line:
                    outcomes.update(line["tally"])
                else:
                    findings.append(line)
            if died:
                if not (folder / "at").exists():
                    raise RuntimeError(f"{name}: the sound files are not read: {died}")
                at = int((folder / "at").read_text())
                findings.append({"number": at, "outcome": "dead", "said": died})
                outcomes["dead"] += 1
                # the tally of a child that died is lost: what it found stands, the rest was read or refused
                found = sum("tally" not in line for line in lines)
                outcomes["read or refused"] += max(0, at - place - found)
                outcomes.update(line["outcome"] for line in lines if "tally" not in line)
                done = at - place + 1
            place += done
        for found in findings if keep is not None else ():
            _keep(name, found["number"], seed, folder, keep)
    seconds = round(time.perf_counter() - started)
    return {"files": count, "outcomes": dict(sorted(outcomes.items())), "findings": findings, "seconds": seconds}


def _child(name: str, first: int, count: int, seed: int, folder: Path) -> tuple[list[dict[str, Any]], str]:
    """What a child printed, and how it died (empty where it did not)."""
    command = [sys.executable, "-m", "tests.fuzz.child", name, str(first), str(count), str(seed), str(folder)]
    with (folder / "out").open("w+") as out, (folder / "err").open("w+") as err:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=err)
        last, since, died = "", time.monotonic(), ""
        while process.poll() is None:
            time.sleep(0.2)
            now = (folder / "at").read_text() if (folder / "at").exists() else ""
            if now != last:
                last, since = now, time.monotonic()
            elif time.monotonic() - since > PATIENCE:
                process.kill()
                died = f"no progress for {PATIENCE} s"
        if process.returncode != 0 and not died:
            err.seek(0)
            words = err.read().strip().splitlines()
            died = f"exit code {process.returncode}: {words[-1] if words else ''}"[:400]
        out.seek(0)
        return [json.loads(line) for line in out.read().splitlines() if line.startswith("{")], died


def _keep(name: str, number: int, seed: int, folder: Path, keep: Path) -> None:
    from random import Random

    rng = Random(f"{seed}/{name}/{number}")
    sound = rng.choice(sorted((folder / "seeds").iterdir()))
    target = keep / name / f"{number}{sound.suffix}"
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    READERS[name].mutate(sound, target, rng)


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("readers", nargs="*", metavar="READER", help=f"of {', '.join(READERS)} (default: all)")
    parser.add_argument("--count", type=int, default=20000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--record", type=Path, help="JSON file; readers that are not run keep what it says of them")
    parser.add_argument("--keep", type=Path)
    chosen = parser.parse_args()
    record: dict[str, Any] = {"readers": {}}
    if chosen.record is not None and chosen.record.is_file():
        record = json.loads(chosen.record.read_text())
    bad = 0
    for name in chosen.readers or READERS:
        result = fuzz(name, chosen.count, chosen.seed, chosen.keep)
        bad += len(result["findings"])
        print(name, json.dumps(result["outcomes"]), f"{result['seconds']} s", flush=True)
        for found in result["findings"][:20]:
            print("   ", json.dumps(found), flush=True)
        record["readers"][name] = {**result, "seed": chosen.seed, "neurodeploy": __version__}
    if chosen.record is not None:
        chosen.record.write_text(json.dumps(record, indent=1) + "\n")
    return 1 if bad else 0


if __name__ == "__main__":
    raise SystemExit(main())
