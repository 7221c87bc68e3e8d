"""Damaged files of every kind: refused in one line, or read, and nothing else. See ``python -m tests.fuzz``."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neurodeploy.errors import InternalError, NeurodeployError
from tests.fuzz.__main__ import fuzz
from tests.fuzz.readers import READERS

QUICK = sorted(set(READERS) - {"onnx"})
"""Readers that need no torch."""


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folders = {}
    for name in QUICK:
        folders[name] = tmp_path_factory.mktemp(name)
        READERS[name].seeds(folders[name])
    return folders


@pytest.mark.parametrize("name", QUICK)
def test_the_sound_files_are_read(seeds: dict[str, Path], name: str) -> None:
    for path in sorted(seeds[name].iterdir()):
        READERS[name].read(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", QUICK)
@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_a_damaged_file_is_read_or_refused(seeds: dict[str, Path], name: str, rng: Random) -> None:
    """hypothesis chooses what is damaged, and shrinks what it finds."""
    sound = rng.choice(sorted(seeds[name].iterdir()))
    case = seeds[name].parent / f"case-{name}"
    shutil.rmtree(case, ignore_errors=True)
    case.mkdir()
    READERS[name].mutate(sound, case / sound.name, rng)
    try:
        READERS[name].read(case / sound.name)
    except InternalError:
        raise
    except NeurodeployError as error:
        assert str(error) and error.exit_code in (1, 2)
        assert not READERS[name].names_file or sound.name in str(error)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_a_bounded_run_finds_nothing(name: str) -> None:
    """In child processes with 2 s a file, 1 GiB beyond their start, and a watch on what they touch."""
    if name == "onnx":
        pytest.importorskip("onnxruntime")
    result = fuzz(name, 120, seed=12)
    assert result["findings"] == [] and sum(result["outcomes"].values()) == 120
    assert set(result["outcomes"]) == {"read", "refused"}


@pytest.mark.slow
def test_the_watch_sees_what_it_is_for(tmp_path: Path) -> None:
    """A reader that writes, starts programs, takes memory or time, or crashes is found out by name."""
    script = """
import sys, json, signal, pickle
from pathlib import Path
from tests.fuzz import child
from tests.fuzz.readers import Reader
from neurodeploy.errors import UserError
import subprocess, os
def writes(path): Path(path.parent / "other").write_text("x")
def starts(path): subprocess.run(["true"])
def unpickles(path): pickle.loads(pickle.dumps(Path))
def takes(path): return bytearray(3 << 30)
def hangs(path):
    while True: pass
def crashes(path): return [][0]
def nameless(path): raise UserError("is bad")
def good(path): raise UserError("is bad", node=str(path))
watch = child.Watch()
signal.signal(signal.SIGPROF, child._stop)
child.limit_memory()
for read in (writes, starts, unpickles, takes, hangs, crashes, nameless, good):
    reader = Reader(seeds=None, mutate=None, read=read)
    print(read.__name__, child.attempt(reader, Path(sys.argv[1]) / "file", watch)[0])
"""
    command = [sys.executable, "-c", script, str(tmp_path)]
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=root)
    assert dict(line.split(" ", 1) for line in done.stdout.splitlines()) == {
        "writes": "side effect", "starts": "side effect", "unpickles": "side effect", "takes": "memory",
        "hangs": "hang", "crashes": "crash", "nameless": "nameless", "good": "refused",
    }  # fmt: skip
