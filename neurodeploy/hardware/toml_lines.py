"""Where each key of a TOML text stands: tomllib hands back values, and an error message needs the line."""

from __future__ import annotations

import re

KeyPath = tuple[str | int, ...]

_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BLANK = re.compile(r"[ \t]*")
_SPACE = re.compile(r"(?:[ \t\r\n]|#[^\n]*)*")
_STRINGS = (
    re.compile(r'"""(?:\\.|[^\\])*?"""', re.DOTALL),
    re.compile(r"'''.*?'''", re.DOTALL),
    re.compile(r'"(?:\\.|[^"\\\n])*"'),
    re.compile(r"'[^'\n]*'"),
)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def key_lines(text: str) -> dict[KeyPath, int]:
    """Line (from 1) of every key, table and array element of a TOML text that :mod:`tomllib` accepts.

    Args:
        text: The whole file.

    Returns:
        Path -> line. A path holds keys, and places (from 0) inside arrays: ``("anchor", 0, "energy")``.
    """
    scanner = _Scanner(text)
    scanner.document()
    return scanner.lines


def line_of(lines: dict[KeyPath, int], path: KeyPath) -> int:
    """Line of ``path``, or of the nearest thing around it that stands in the text; 1 if there is none."""
    for length in range(len(path), 0, -1):
        if path[:length] in lines:
            return lines[path[:length]]
    return 1


class _Scanner:
    """Walks over text that is known to be valid TOML, so that anything unexpected just ends the walk."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.place = 0
        self.lines: dict[KeyPath, int] = {}
        self.tables: dict[KeyPath, int] = {}

    def document(self) -> None:
        prefix: KeyPath = ()
        self._skip(_SPACE)
        while self.place < len(self.text):
            before = self.place
            if self.text.startswith("[[", self.place):
                prefix = self._header(2)
            elif self.text[self.place] == "[":
                prefix = self._header(1)
            else:
                self._pair(prefix)
            self._skip(_SPACE)
            if self.place == before:
                return

    def _header(self, brackets: int) -> KeyPath:
        start = self.place
        self.place += brackets
        path: KeyPath = ()
        keys = self._dotted()
        for key in keys[:-1]:
            path = (*path, key)
            path = (*path, self.tables[path] - 1) if path in self.tables else path
        path = (*path, *keys[-1:])
        if brackets == 2:
            self.tables[path] = self.tables.get(path, 0) + 1
            self._note(path, start)
            path = (*path, self.tables[path] - 1)
        self._note(path, start)
        self.place += brackets
        return path

    def _pair(self, prefix: KeyPath) -> None:
        start = self.place
        keys = self._dotted()
        for length in range(1, len(keys) + 1):
            self._note((*prefix, *keys[:length]), start)
        self.place += 1  # the equals sign
        self._skip(_BLANK)
        self._value((*prefix, *keys))

    def _dotted(self) -> tuple[str, ...]:
        keys: list[str] = []
        while True:
            self._skip(_BLANK)
            quoted = self._string()
            if quoted is not None:
                keys.append(quoted)
            else:
                match = _BARE.match(self.text, self.place)
                if match is None:
                    return tuple(keys)
                keys.append(match.group())
                self.place = match.end()
            self._skip(_BLANK)
            if not self.text.startswith(".", self.place):
                return tuple(keys)
            self.place += 1

    def _value(self, path: KeyPath) -> None:
        opening = self.text[self.place : self.place + 1]
        if opening == "[":
            self._items(path, "]")
        elif opening == "{":
            self._items(path, "}")
        elif self._string() is None:
            self._skip(_SCALAR)

    def _items(self, path: KeyPath, closing: str) -> None:
        self.place += 1
        index = 0
        while True:
            self._skip(_SPACE)
            if self.place >= len(self.text) or self.text[self.place] == closing:
                self.place += 1
                return
            before = self.place
            if closing == "]":
                self._note((*path, index), self.place)
                self._value((*path, index))
                index += 1
            else:
                self._pair(path)
            self._skip(_SPACE)
            if self.text.startswith(",", self.place):
                self.place += 1
            if self.place == before:
                return

    def _string(self) -> str | None:
        for pattern in _STRINGS:
            match = pattern.match(self.text, self.place)
            if match:
                self.place = match.end()
                return match.group()[1:-1]
        return None

    def _skip(self, pattern: re.Pattern[str]) -> None:
        match = pattern.match(self.text, self.place)
        if match:
            self.place = match.end()

    def _note(self, path: KeyPath, place: int) -> None:
        self.lines.setdefault(path, self.text.count("\n", 0, place) + 1)
