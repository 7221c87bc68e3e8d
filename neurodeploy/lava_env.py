"""The environment of its own that Lava lives in: Python 3.10, numpy below 2, torch 2.3. Driven as a subprocess.

It lies in ``$NEURODEPLOY_LAVA``, or in ``neurodeploy/lava`` under the user's data folder.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from neurodeploy.errors import UserError

REQUIREMENTS = ("lava-nc==0.10.0", "lava-dl==0.6.0", "setuptools<75", "pillow<11")
"""lava-dl imports torch's extension builder, which wants a setuptools that it does not ask for."""

READY = ".ready"


def folder() -> Path:
    """Where the environment is, or would be made."""
    chosen = os.environ.get("NEURODEPLOY_LAVA")
    if chosen:
        return Path(chosen).expanduser()
    data = os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share"
    return Path(data) / "neurodeploy" / "lava"


def python() -> Path | None:
    """The interpreter that has Lava; None where it was not installed, or not to the end."""
    place = folder()
    return place / "bin" / "python" if (place / READY).is_file() else None


def install(say: Callable[[str], None]) -> Path:
    """Makes the environment (some 6 GB: Lava asks for torch 2.3) unless it is there, and hands back its interpreter.

    Args:
        say: Called with a line before every step that takes long.

    Raises:
        UserError: No Python 3.10 is found, or a step fails.
    """
    found = python()
    if found is not None:
        return found
    base = next(_interpreters(), None)
    if base is None:
        raise UserError(
            "Lava needs Python 3.10, and none was found",
            node="python3.10",
            instead="install one, or put its folder on PATH",
        )
    place = folder()
    say(f"making {place} with {base}")
    shutil.rmtree(place, ignore_errors=True)
    _run([base, "-m", "venv", str(place)])
    inside = str(place / "bin" / "python")
    say(f"installing {', '.join(REQUIREMENTS)} (this downloads several GB)")
    _run([inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *REQUIREMENTS])
    _run([inside, "-c", "from lava.lib.dl.netx import hdf5"])
    (place / READY).touch()
    return Path(inside)


def _interpreters() -> Iterator[str]:
    """Every Python 3.10 that runs: on PATH first, then pyenv's."""
    found = shutil.which("python3.10")
    roots = [Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")]
    candidates = [
        *([found] if found else []),
        *(str(p) for r in roots for p in r.glob("versions/3.10*/bin/python3.10")),
    ]
    for candidate in candidates:
        done = subprocess.run([candidate, "-c", "import venv, ensurepip"], capture_output=True, check=False)
        if done.returncode == 0:
            yield candidate


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        lines = (done.stderr or done.stdout).strip().splitlines()
        raise UserError(f"failed: {lines[-1] if lines else 'without a word'}", node=" ".join(command[:4]))


GRACE_S = 2.0
"""How long the processes of Lava have to clean up behind them once they are told to end."""


def drive(command: Sequence[str], folder: Path, limit_s: float, files: Sequence[Path]) -> None:
    """Runs Lava in a process group of its own, none of whose processes outlives the call.

    Args:
        command: The interpreter that has Lava, and what it is to run.
        folder: Where it runs.
        limit_s: Seconds after which it is taken to hang, and the group is ended.
        files: What it has to leave behind.

    Raises:
        UserError: It fails, hangs, or leaves a file out. Its log is kept and named.
    """
    log = folder / "lava.log"
    try:
        with log.open("wb") as out:
            process = subprocess.Popen(
                command, cwd=folder, stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True
            )
            try:
                code = process.wait(limit_s)
            finally:
                _end(process)
    except subprocess.TimeoutExpired as error:
        raise _failure(log, f"Lava gives no answer within {limit_s:.0f} s and was ended") from error
    except OSError as error:
        raise UserError(f"Lava cannot be started: {error.strerror or error}", node=command[0]) from error
    if code != 0 or not all(file.is_file() for file in files):
        lines = [line for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
        said = lines[-1].strip() if lines else "without a word"
        raise _failure(log, f"Lava fails: {said}" if code >= 0 else f"Lava died of signal {-code}: {said}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """Ends every process of the group: first asked, so that shared memory is given back, then killed."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
        until = time.monotonic() + GRACE_S
        while time.monotonic() < until:
            process.poll()
            os.killpg(process.pid, 0)
            time.sleep(0.02)
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _failure(log: Path, what: str) -> UserError:
    """The error, with the log put where it stays."""
    handle, kept = tempfile.mkstemp(prefix="neurodeploy-lava-", suffix=".log")
    os.close(handle)
    shutil.copyfile(log, kept)
    return UserError(what, node=f"log: {kept}")
