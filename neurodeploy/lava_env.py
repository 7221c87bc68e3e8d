"""The environment of its own that Lava lives in: Python 3.10, numpy below 2, torch 2.3. Driven as a subprocess.

It lies in ``$NEURODEPLOY_LAVA``, or in ``neurodeploy/lava`` under the user's data folder.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
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
