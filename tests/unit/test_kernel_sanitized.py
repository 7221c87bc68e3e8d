"""The kernel's own tests once more, compiled with the address and undefined-behaviour sanitizers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from neurodeploy.simulate.kernel.build import compile_kernel

PROGRAM = """
import sys
from pathlib import Path
import pytest
from neurodeploy.simulate.kernel import library
found = library.load(Path(sys.argv[1]))
if isinstance(found, str):
    sys.exit(found)
library._loaded = lambda: found
sys.exit(pytest.main(["-q", "-x", "-s", "-p", "no:cacheprovider", sys.argv[2]]))
"""


def runtime() -> str | None:
    """The sanitizer's library, which has to be loaded before Python's own."""
    gcc = shutil.which("gcc")
    if gcc is None:
        return None
    asked = subprocess.run([gcc, "-print-file-name=libasan.so"], capture_output=True, text=True, check=True)
    file = Path(asked.stdout.strip())
    return str(file) if file.is_absolute() and file.exists() else None


def sanitized(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CC", "gcc")
    flags = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    made = folder / "kernel.so"
    assert compile_kernel(made, flags=flags) is None
    return made


def run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "LD_PRELOAD": str(runtime()), "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=Path(__file__).resolve().parents[2],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )


pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(runtime() is None, reason="gcc's address sanitizer is not installed"),
]


def test_no_access_out_of_bounds_and_no_undefined_behaviour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sanitized(tmp_path, monkeypatch)
    done = run(["-c", PROGRAM, str(made), str(Path(__file__).with_name("test_kernel.py"))])
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    assert " passed" in done.stdout


def test_the_sanitizer_would_see_a_buffer_that_is_too_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = sanitized(tmp_path, monkeypatch)
    tighter = (
        "from neurodeploy.simulate.kernel import buffers\n"
        "assert callable(buffers._slack)\n"
        "buffers._slack = lambda *_: 0\n"
    )
    short = PROGRAM.replace("sys.exit(pytest.main", tighter + "sys.exit(pytest.main")
    assert short != PROGRAM
    done = run(["-c", short, str(made), f"{Path(__file__).with_name('test_kernel.py')}::test_a_student"])
    assert done.returncode != 0
    assert "AddressSanitizer: heap-buffer-overflow" in done.stderr
