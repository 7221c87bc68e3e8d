"""Reading a TOML file into a pydantic model, with errors that name file, line and key."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from neurodeploy.errors import Finding, FindingsError, UserError
from neurodeploy.hardware.toml_lines import KeyPath, key_lines, line_of

PROBLEMS = "contradiction"
"""Type of a pydantic error whose context holds ``problems``: pairs of key path and sentence."""
LARGEST_FILE = 1 << 20
"""Bytes; a hand-written table is a hundred times smaller."""

M = TypeVar("M", bound=BaseModel)


def nearest(word: str, words: Iterable[str]) -> str:
    """The most similar of ``words``, or an empty string."""
    found = difflib.get_close_matches(word, list(words), n=1, cutoff=0.5)
    return found[0] if found else ""


def read_toml_model(path: Path, model: type[M], *, what: str) -> tuple[M, bytes]:
    """Reads and checks a TOML file.

    Args:
        path: The file.
        model: The pydantic model that it must satisfy.
        what: What the file is, for messages.

    Returns:
        The model and the bytes of the file.

    Raises:
        UserError: Unreadable, not TOML, or one fault; several faults come as one :class:`FindingsError` (exit code 2).
    """
    data = _read(path, what)
    try:
        text = data.decode("utf-8")
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UserError(f"is not UTF-8 text, so no {what}", node=str(path)) from error
    except ValueError as error:  # what the decoder raises, and integers of thousands of digits
        raise UserError(f"is not valid TOML: {error}", node=str(path)) from error
    except RecursionError as error:
        raise UserError(f"is nested too deeply for a {what}", node=str(path)) from error
    try:
        return model.model_validate(values), data
    except ValidationError as error:
        lines = key_lines(text)
        findings = [f for detail in error.errors() for f in _findings(path, model, values, lines, detail)]
        raise _raised(findings, what) from error


def _read(path: Path, what: str) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise UserError(f"{what} cannot be read: {error.strerror or error}", node=str(path)) from error
    if len(data) > LARGEST_FILE:
        raise UserError(f"is too large for a {what}", node=str(path), limit=f"{LARGEST_FILE} bytes")
    return data


def _raised(findings: Sequence[Finding], what: str) -> UserError:
    if len(findings) == 1:
        only = findings[0]
        return UserError(only.rule, node=only.node, have=only.have, limit=only.limit, instead=only.instead)
    return FindingsError(f"{len(findings)} faults in the {what}", findings, exit_code=2)


def _findings(
    path: Path, model: type[BaseModel], values: Mapping[str, Any], lines: dict[KeyPath, int], detail: ErrorDetails
) -> list[Finding]:
    if detail["type"] == PROBLEMS:
        return [
            Finding(_where(path, lines, tuple(keys)), message) for keys, message in detail.get("ctx", {})["problems"]
        ]
    extra = detail["type"] == "extra_forbidden"
    keys = detail["loc"] if extra or detail["type"] == "missing" else _in_data(values, detail["loc"])
    where = _where(path, lines, keys)
    if extra:
        fields = _fields(model, keys[:-1])
        close = nearest(str(keys[-1]), fields)
        return [Finding(where, "unknown key", instead=f"did you mean {close!r}?" if close else f"known: {fields}")]
    if detail["type"] == "missing":
        return [Finding(where, "this key is missing", instead="add it")]
    message = detail["msg"].removeprefix("Value error, ")
    given = detail["input"]
    have = repr(given) if isinstance(given, str | int | float | bool) else ""
    return [Finding(where, message, have=have)]


def _where(path: Path, lines: dict[KeyPath, int], keys: KeyPath) -> str:
    dotted = ".".join(f"[{key}]" if isinstance(key, int) else key for key in keys).replace(".[", "[")
    return f"{path}:{line_of(lines, keys)}: {dotted or 'the whole file'}"


def _in_data(values: Any, location: KeyPath) -> KeyPath:
    """The part of a pydantic location that is a path in the data: union members add names of their own."""
    path: KeyPath = ()
    for key in location:
        in_table = isinstance(values, Mapping) and key in values
        if not in_table and not (isinstance(values, list) and isinstance(key, int) and key < len(values)):
            break
        values = values[key]
        path = (*path, key)
    return path


def _fields(model: type[BaseModel], keys: KeyPath) -> list[str]:
    """Names that may stand at ``keys``; empty where that is not a table of fixed names."""
    inner: list[type[BaseModel]] = [model]
    for key in keys:
        following: list[type[BaseModel]] = []
        for candidate in inner:
            field = next((f for n, f in candidate.model_fields.items() if key in (n, f.alias)), None)
            following += _models(field.annotation) if field is not None else [candidate]
        inner = following
    return sorted({field.alias or name for candidate in inner for name, field in candidate.model_fields.items()})


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [found for part in get_args(annotation) for found in _models(part)]
