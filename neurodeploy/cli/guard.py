"""Every way in which a run can end, as one line and an exit code."""

from __future__ import annotations

import errno
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Sequence
from typing import Any, TextIO

import click

from neurodeploy.cli.output import json_text
from neurodeploy.cli.settings import Settings

USER_ERRNO = {
    errno.EACCES,
    errno.EDQUOT,
    errno.EFBIG,
    errno.EISDIR,
    errno.ELOOP,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.ENOENT,
    errno.ENOSPC,
    errno.ENOTDIR,
    errno.ENXIO,
    errno.EPERM,
    errno.EROFS,
    errno.ETXTBSY,
}
"""What the file system refuses for reasons outside the program: exit code 2."""

INTERNAL = 3
INTERRUPTED = 130
WANTS_REPORT = "a fault of the program; please report it with the command line and the output of `neurodeploy doctor`"


def guarded(run: Callable[[], Any], settings: Settings, words: Sequence[str]) -> int:
    """Calls ``run`` and turns whatever comes out of it into an exit code.

    Args:
        run: Runs the command line; hands back an exit code or None.
        settings: Filled in by the command line while ``run`` parses it.
        words: The command line, looked at for ``--json`` and ``-v`` where it could not be parsed.

    Returns:
        0 done, 1 a finding, 2 wrong usage or bad input, 3 an internal fault, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):
        _never_fail_on_characters(stream)
    if not _given(words, "-v", "--verbose"):
        warnings.simplefilter("ignore")
    stdout = sys.stdout
    try:
        try:
            code = run()
            sys.stdout.flush()
            return int(code or 0)
        except BaseException as error:
            if isinstance(error, SystemExit) and sys.stdout is not stdout:
                # click met the closed pipe first: it put another stream in place, and would end with a 1
                sys.stdout = stdout
                raise BrokenPipeError from error
            code = _end(error, settings, words)
            sys.stdout.flush()
            return code
    except BrokenPipeError:
        _silence(sys.stdout)
        return 0
    except OSError as error:
        _silence(sys.stdout)
        _line(f"standard output: {error.strerror or error}")
        return 2


def _end(error: BaseException, settings: Settings, words: Sequence[str]) -> int:
    """Says what went wrong, once, and chooses the exit code."""
    if isinstance(error, BrokenPipeError):
        raise error
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        _line(f"interrupted; {settings.kept}")
        return INTERRUPTED
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 0 if error.code is None else 2
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        error.show()
        return 2
    kind, code, line, fields = _describe(error)
    if settings.json or _given(words, "--json"):
        fault = {"kind": kind, "exit_code": code, "message": line, **fields}
        sys.stdout.write(json_text({"ok": False, "error": fault}) + "\n")
    verbosity = settings.verbosity or int(_given(words, "-v", "--verbose"))
    if verbosity > (0 if code == INTERNAL else 1):
        traceback.print_exception(error)
    _line(line)
    return code


def _describe(error: BaseException) -> tuple[str, int, str, dict[str, Any]]:
    """(kind, exit code, line, further fields) of an error."""
    from neurodeploy.errors import InternalError, UserError

    if isinstance(error, UserError):
        return type(error).__name__, error.exit_code, str(error), error.as_dict()
    if isinstance(error, click.ClickException):
        return "UsageError", 2, _usage_line(error), {}
    if isinstance(error, OSError) and error.errno in USER_ERRNO:
        place = f"{os.fsdecode(error.filename)}: " if error.filename is not None else ""
        return "OSError", 2, f"{place}{error.strerror}", {}
    if isinstance(error, MemoryError):
        return "MemoryError", 2, "not enough memory; use a smaller --tile or smaller pictures", {}
    if isinstance(error, ImportError) and (missing := _extra_of(error.name or "")):
        return "MissingExtra", 2, f"this needs {error.name}; install it with: pip install 'neurodeploy[{missing}]'", {}
    name = "" if isinstance(error, InternalError) else f"{type(error).__name__}: "
    text = " ".join(str(error).split())
    return "InternalError", INTERNAL, f"internal error: {name}{text} ({WANTS_REPORT}; -v shows the traceback)", {}


def _usage_line(error: click.ClickException) -> str:
    message = " ".join(error.format_message().split()).rstrip(".")
    context = getattr(error, "ctx", None)
    where = f"; see {context.command_path} --help" if context is not None else ""
    return f"{message}{where}"


def _extra_of(module: str) -> str:
    """The extra of the package that brings a module; empty for a module that is no optional one."""
    extras = {
        "train": ("torch", "norse", "skimage"),
        "onnx": ("onnx", "onnxscript", "onnxruntime"),
        "interop": ("nirtorch", "snntorch", "spikingjelly"),
        "report": ("matplotlib",),
    }
    top = module.partition(".")[0]
    return next((extra for extra, modules in extras.items() if top in modules), "")


def _given(words: Sequence[str], *options: str) -> bool:
    before = list(words[: words.index("--")] if "--" in words else words)
    return any(word in before for word in options)


def _line(text: str) -> None:
    try:
        sys.stderr.write(f"neurodeploy: {text}\n")
        sys.stderr.flush()
    except OSError:
        _silence(sys.stderr)


def _never_fail_on_characters(stream: TextIO) -> None:
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(errors="backslashreplace")


def _silence(stream: TextIO) -> None:
    """Points a stream nowhere, so that flushing it at the end of the process cannot fail again."""
    try:
        descriptor = stream.fileno()
    except (OSError, ValueError):
        return
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)
