"""What goes out: the answer on stdout, the talk on stderr."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from neurodeploy.cli.settings import Settings

SCHEMA_VERSION = 1
"""Of the answers whose functions set none themselves."""

Column = tuple[str, str]


class Update(Protocol):
    """What moves a progress display: so many of so many done, and a note."""

    def __call__(self, done: int, total: int, note: str = "") -> None:
        """Shows the progress."""


def json_text(answer: Mapping[str, Any]) -> str:
    """An answer as indented JSON with a ``schema_version``; what is not finite becomes null, paths become texts."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **_plain(answer)}, indent=2, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Path):
        return str(value)
    if hasattr(value, "tolist"):  # numpy scalars and arrays
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def answer(settings: Settings, data: Mapping[str, Any], text: Callable[[], str]) -> None:
    """Prints an answer: ``data`` as JSON with ``--json``, else what ``text`` makes of it."""
    sys.stdout.write((json_text(data) if settings.json else text().rstrip("\n")) + "\n")


def say(settings: Settings, text: str) -> None:
    """One line of talk on stderr; silent with ``-q``."""
    if not settings.quiet:
        sys.stderr.write(text + "\n")
        sys.stderr.flush()


def say_if_slow(settings: Settings) -> None:
    """Says before long work that the compiled simulator is not there, unless it is not wanted."""
    from neurodeploy.simulate import kernel
    from neurodeploy.simulate.kernel.library import LIMIT

    if kernel.missing() is not None and os.environ.get(LIMIT) != "none":
        say(settings, str(kernel.slower()))


def width() -> int | None:
    """Columns of the terminal that reads stdout; None for a pipe or a file, where nothing is wrapped."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[Column]) -> str:
    """Rows under headings, in columns; numbers to the right, the last column wrapped at a terminal's edge.

    Args:
        rows: Values by key; a missing or None value prints as a dash.
        columns: (key, heading) pairs, in order.
    """
    cells = [[_cell(row.get(key)) for key, _ in columns] for row in rows]
    heads = [heading for _, heading in columns]
    widths = [max(len(line[i]) for line in [heads, *cells]) for i in range(len(columns))]
    right = [bool(rows) and all(_is_number(row.get(key)) for row in rows) for key, _ in columns]
    return "\n".join(_row(line, widths, right) for line in [heads, *cells])


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) >= 1e5 or 0 < abs(value) < 1e-3 else f"{value:.4f}".rstrip("0").rstrip(".")
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(str, value))
    return str(value)


def _is_number(value: Any) -> bool:
    return value is None or (isinstance(value, (int, float)) and not isinstance(value, bool))


def _row(line: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    padded = [
        cell.rjust(size) if left else cell.ljust(size) for cell, size, left in zip(line, widths, right, strict=True)
    ]
    edge = width()
    before = sum(widths[:-1]) + 2 * (len(widths) - 1)
    if edge is None or edge - before < 20 or before + len(line[-1]) <= edge:
        return "  ".join(padded).rstrip()
    wrapped = textwrap.wrap(line[-1], edge - before)
    first = "  ".join([*padded[:-1], wrapped[0]])
    return "\n".join([first, *(" " * before + rest for rest in wrapped[1:])])


@contextmanager
def progress(settings: Settings, what: str) -> Iterator[Update]:
    """A bar on stderr while the block runs; gives ``update(done, total, note)``.

    It is drawn on a terminal only; into a pipe or a file goes one line about every ten seconds. Silent with ``-q``.
    """
    if settings.quiet:
        yield _nothing
    elif sys.stderr.isatty() and os.environ.get("TERM") != "dumb":
        with _bar(what) as update:
            yield update
    else:
        yield _Lines(what)


def _nothing(done: int, total: int, note: str = "") -> None:
    """No display."""


@contextmanager
def _bar(what: str) -> Iterator[Update]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn(what),
        BarColumn(None),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None, note="")

        def update(done: int, total: int, note: str = "") -> None:
            bar.update(task, completed=done, total=total, note=note)

        yield update


class _Lines:
    """Progress for readers that are no terminal: the first, the last, and a line about every ten seconds between."""

    SECONDS = 10.0

    def __init__(self, what: str) -> None:
        self.what = what
        self.last = -math.inf

    def __call__(self, done: int, total: int, note: str = "") -> None:
        from time import monotonic

        now = monotonic()
        if now - self.last >= self.SECONDS or done >= total:
            self.last = now
            sys.stderr.write(f"{self.what} {done}/{total}{f'  {note}' if note else ''}\n")
            sys.stderr.flush()
