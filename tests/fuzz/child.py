"""Reads damaged files one after another, in a process that may not take more than its share.

``python -m tests.fuzz.child READER FIRST COUNT SEED FOLDER``: FOLDER holds ``seeds/``; a line of JSON on stdout for
every thing found, and a last one with the tally. The number of the file in hand stands in ``FOLDER/at``.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import sys
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

from neurodeploy.errors import InternalError, NeurodeployError
from tests.fuzz.readers import READERS, Reader

SECONDS = 2.0
"""Processor time that one file may take."""

BYTES = 1 << 30
"""Address space that may be taken beyond what the process has once everything is imported."""

FORBIDDEN = ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork", "os.forkpty", "pickle.find_class",
             "socket.connect", "socket.bind", "ctypes.dlopen")  # fmt: skip
CHANGES = ("os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate", "shutil.move")


class TooLong(BaseException):
    """The time for one file is over; not an Exception, so that nobody swallows it."""


class Watch:
    """Notes what a reader has no business to do: starting things, and writing anywhere at all."""

    def __init__(self) -> None:
        self.armed = False
        self.seen: list[str] = []
        sys.addaudithook(self._hook)

    def _hook(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.armed:
            return
        if event in FORBIDDEN or event in CHANGES:
            self.seen.append(f"{event}{arguments[:2]!r}"[:300])
        elif event == "open":
            path, _, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes and path not in (os.devnull, "/dev/null"):
                self.seen.append(f"open for writing {path!r}")


def attempt(reader: Reader, path: Path, watch: Watch) -> tuple[str, str]:
    """What became of one file: ``read``, ``refused``, or the name of a finding and what there is to say of it."""
    watch.seen.clear()
    started = time.process_time()
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    watch.armed = True
    try:
        reader.read(path)
        outcome = ("read", "")
    except InternalError as error:
        outcome = ("internal error", repr(error))
    except NeurodeployError as error:
        outcome = _judged(reader, path, error)
    except TooLong:
        outcome = ("hang", f"more than {SECONDS:g} s: {_innermost()}")
    except MemoryError:
        outcome = ("memory", _innermost())
    except Exception as error:
        outcome = ("crash", f"{type(error).__name__}: {error} | {_innermost()}"[:600])
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        watch.armed = False
    if watch.seen:
        return "side effect", watch.seen[0]
    if time.process_time() - started > SECONDS and outcome[0] in ("read", "refused"):
        return "hang", f"{time.process_time() - started:.1f} s"
    return outcome


def _judged(reader: Reader, path: Path, error: NeurodeployError) -> tuple[str, str]:
    said = str(error)
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, MemoryError) or "memory allocation" in str(cause) or "Unable to allocate" in str(cause):
            return "memory", said[:300]
        cause = cause.__cause__
    if reader.names_file and path.name not in said:
        return "nameless", said[:300]
    if len(said) > 20000:
        return "endless", f"{len(said)} characters"
    return "refused", ""


def _innermost() -> str:
    frames = traceback.extract_tb(sys.exc_info()[2])
    own = [frame for frame in frames if "neurodeploy" in frame.filename] or list(frames)
    return f"{Path(own[-1].filename).name}:{own[-1].lineno}" if own else ""


def _stop(*_: Any) -> None:
    raise TooLong


def limit_memory() -> None:
    """From here on the process gets :data:`BYTES` of address space and no more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def run(name: str, first: int, count: int, seed: int, folder: Path) -> None:
    """Damages and reads ``count`` files, from number ``first`` on."""
    reader = READERS[name]
    seeds = sorted((folder / "seeds").iterdir())
    case = folder / "case"
    for sound in seeds:
        reader.read(sound)  # imports everything
    warnings.simplefilter("ignore")
    watch = Watch()
    signal.signal(signal.SIGPROF, _stop)
    limit_memory()
    tally: Counter[str] = Counter()
    for number in range(first, first + count):
        (folder / "at").write_text(str(number))
        shutil.rmtree(case, ignore_errors=True)
        case.mkdir()
        rng = Random(f"{seed}/{name}/{number}")
        sound = rng.choice(seeds)
        path = case / sound.name
        reader.mutate(sound, path, rng)
        before = sorted(case.rglob("*"))
        outcome, said = attempt(reader, path, watch)
        if outcome in ("read", "refused") and sorted(case.rglob("*")) != before:
            outcome, said = "side effect", "files beside the one that was read"
        tally[outcome] += 1
        if outcome not in ("read", "refused"):
            print(json.dumps({"number": number, "seed": sound.name, "outcome": outcome, "said": said}), flush=True)
    print(json.dumps({"tally": tally}), flush=True)


if __name__ == "__main__":
    run(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]), Path(sys.argv[5]))
