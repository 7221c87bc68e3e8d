"""Compiling the kernel, and other C code of the program, with the system's C compiler.

The build hook loads this file alone, before anything is installed: it uses the standard library only.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shlex
import shutil
import signal
import subprocess
import sysconfig
import tempfile
from collections.abc import Sequence
from pathlib import Path

SOURCE = Path(__file__).resolve().with_name("kernel.c")
LIBRARY = "_kernel.so"
"""File name of the compiled kernel, beside its source."""

WITHOUT = ("-DND_WITHOUT_AMX", "-DND_WITHOUT_DOT")
"""What leaves out the instructions that not every compiler knows: of x86, of ARM."""

FLAGS = ("-O3", "-std=c11", "-fPIC", "-shared")
TIMEOUT = 300
"""Seconds that a compiler may take."""


def compilers() -> list[list[str]]:
    """Command lines to try: the one that ``CC`` names and no other, else those that there are."""
    if os.environ.get("CC"):
        return [shlex.split(os.environ["CC"])]
    names = [shlex.split(sysconfig.get_config_var("CC") or ""), ["cc"], ["gcc"], ["clang"]]
    return [command for command in names if command and shutil.which(command[0])]


def digest() -> int:
    """Number of what the kernel's sources say, by which a library tells whether it was made of them; below 2**62."""
    texts = hashlib.sha256()
    for file in sorted(SOURCE.parent.glob("*.[ch]")):
        texts.update(file.name.encode() + b"\0" + file.read_bytes())
    return int(texts.hexdigest()[:16], 16) >> 2


def compile_kernel(target: Path, *, flags: Sequence[str] = (), source: Path = SOURCE) -> str | None:
    """Compiles the kernel: with threads (OpenMP) where the compiler has them, without instructions unknown to it.

    Args:
        target: The shared library to write; it appears there whole or not at all.
        flags: Further flags.
        source: Another C file to compile instead.

    Returns:
        None, or in a few words why there is no kernel.
    """
    found = compilers()
    if not found:
        return "no C compiler was found"
    reason, made_of = "", f"-DND_SOURCES={digest()}"
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".kernel-") as folder:
        made = Path(folder) / LIBRARY
        for compiler in found:
            for less in (("-fopenmp",), (), ("-fopenmp", *WITHOUT), WITHOUT):
                failed = _attempt([*compiler, *FLAGS, made_of, *less, *flags, str(source), "-o", str(made)])
                if failed is None and made.is_file():
                    made.replace(target)
                    return None
                reason = f"{shlex.join(compiler)}: {failed or 'wrote nothing'}"
    return reason


def _attempt(command: Sequence[str]) -> str | None:
    try:
        # a group of its own: what a compiler starts must not go on when the compiler is given up
        started = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        return str(error)
    with started:
        try:
            _, said = started.communicate(timeout=TIMEOUT)
        except BaseException as error:
            with contextlib.suppress(OSError):
                os.killpg(started.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                return f"gave no answer within {TIMEOUT} s"
            raise
    if started.returncode == 0:
        return None
    lines = [line for line in said.splitlines() if "error" in line] or [f"exit code {started.returncode}"]
    return lines[0].strip()
