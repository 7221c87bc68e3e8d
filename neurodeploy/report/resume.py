"""Going on with a run that was interrupted: which pictures of a folder are done, and for which network."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.report.reproduce import network_sha256

RECORD = "simulate.jsonl"
"""The record in the folder: a line for the run, then a line a picture, each written when the picture is whole."""


class Record:
    """The record of one folder."""

    def __init__(self, folder: Path, net: IntegerNetwork) -> None:
        """Opens the record of a folder, or begins one.

        Raises:
            UserError: The folder holds something else, or pictures that another network restored, or is refused.
        """
        self.folder = folder
        self.path = folder / RECORD
        self.rows: dict[str, dict[str, Any]] = {}
        wanted = {"network": network_sha256(net)}
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if self.path.is_file():
                self._read(wanted)
                return
            if any(folder.iterdir()):
                raise UserError(
                    "holds files, but no record of a run to go on with",
                    node=str(folder),
                    instead="choose another folder, or leave --resume out and pass --force",
                )
            self._append(wanted)
        except OSError as error:
            raise UserError(f"cannot be written: {error.strerror or error}", node=str(folder)) from error

    def _read(self, wanted: Mapping[str, Any]) -> None:
        lines = self.path.read_text(encoding="utf-8", errors="replace").split("\n")
        found = [_parsed(line) for line in lines]
        if not found or found[0] != wanted:
            raise UserError(
                "another network has restored the pictures of this folder",
                node=str(self.path),
                instead="choose another folder",
            )
        # the last line of a run that was killed may be cut short: that picture is done again
        for row in found[1:]:
            if row is not None and isinstance(row.get("name"), str):
                self.rows[row["name"]] = row
        if lines[-1]:
            self._append_text("\n")

    def done(self, name: str, source: Path) -> dict[str, Any] | None:
        """What was said of a picture that is there and whose source has not changed; else None."""
        row = self.rows.get(name)
        if row is None or row.get("source") != stamp(source) or not (self.folder / name).is_file():
            return None
        answer = row.get("row")
        return answer if isinstance(answer, dict) else None

    def add(self, name: str, source: Path, row: Mapping[str, Any]) -> None:
        """Notes a picture that is whole."""
        self._append({"name": name, "source": stamp(source), "row": dict(row)})

    def _append(self, row: Mapping[str, Any]) -> None:
        self._append_text(json.dumps(row) + "\n")

    def _append_text(self, text: str) -> None:
        with self.path.open("a", encoding="utf-8") as file:
            file.write(text)


def stamp(source: Path) -> list[int]:
    """Size and time of change of a file."""
    stat = source.stat()
    return [stat.st_size, stat.st_mtime_ns]


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) else None
