"""The environment in which other projects' libraries are compared with: this one, or one of its own in .cache/."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / "benchmarks" / ".cache"


def ensure(modules: Sequence[str]) -> None:
    """Goes on in an environment that has these modules (module name = package name).

    That is the running interpreter, if it has them all; otherwise this script is started anew by the interpreter of
    ``benchmarks/.cache/peers``, which is made on the first call, with the versions of constraints.txt.
    """
    if all(importlib.util.find_spec(name) for name in modules):
        return
    python = CACHE / "peers" / "bin" / "python"
    if Path(sys.executable) == python:  # made for another script
        missing = [name for name in modules if not importlib.util.find_spec(name)]
        command = [python, "-m", "pip", "--disable-pip-version-check", "install", "-qq"]
        subprocess.run([*command, "--constraint", ROOT / "constraints.txt", *missing], check=True)
        importlib.invalidate_caches()
        if not all(importlib.util.find_spec(name) for name in modules):
            raise SystemExit(f"{python} lacks some of {', '.join(modules)}; remove {CACHE / 'peers'} and try again")
        return
    if not (CACHE / "peers" / ".ready").exists():
        print(f"making {CACHE / 'peers'} (once, some minutes)", file=sys.stderr)
        venv.create(CACHE / "peers", with_pip=True, clear=True)
        constraints = ROOT / "constraints.txt"
        torch = next(line for line in constraints.read_text().splitlines() if line.startswith("torch=="))
        install = [python, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--constraint", constraints]
        subprocess.run([*install, torch, *modules, f"{ROOT}[train]"], check=True)
        # the checkout itself, whatever state it is in, and not the copy that was installed for what it depends on
        subprocess.run([python, "-m", "pip", "uninstall", "-qq", "--yes", "neurodeploy"], check=True)
        (CACHE / "peers" / ".ready").touch()
    os.execv(python, [str(python), *sys.argv])


def keep_memory() -> None:
    """Starts this script anew with an allocator that hands out again what was freed, where that is glibc's.

    By default it asks the system for every block of 32 MiB and more, and gives it back at once: the pages of each such
    tensor are made anew, which took more time than torch's arithmetic. Other allocators ignore the variables.
    """
    if sys.platform == "linux" and "MALLOC_MMAP_MAX_" not in os.environ:
        os.environ.update(MALLOC_MMAP_MAX_="0", MALLOC_TRIM_THRESHOLD_=str(1 << 40), MALLOC_TOP_PAD_=str(1 << 28))
        os.execv(sys.executable, [sys.executable, *sys.argv])


def versions(modules: Sequence[str]) -> dict[str, str]:
    """Versions of the installed packages."""
    return {name: version(name) for name in modules}
