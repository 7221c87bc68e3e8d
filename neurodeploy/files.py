"""Writing without losing data: everything is written beside its place and renamed when it is whole."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from neurodeploy.errors import UserError

LARGEST_HEADER = 10_000
"""Bytes of the header of an array; numpy refuses more, but only after it has taken the memory for them."""


def _refuse(path: Path, error: OSError) -> UserError:
    return UserError(
        f"cannot be written: {error.strerror or error}",
        node=str(path),
        instead="choose another place with --out, or free space and permissions there",
    )


def _check_free(path: Path, force: bool) -> None:
    if (path.exists() or path.is_symlink()) and not force:
        raise UserError("exists already and is not overwritten", node=str(path), instead="pass --force to replace it")


@contextmanager
def writing_file(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Gives a temporary path beside ``path``; when the block ends well, it is renamed to ``path``.

    Args:
        path: The file to write. Missing parent folders are made.
        force: Replace an existing file. Without it an existing file is refused before anything is written.

    Raises:
        UserError: The file exists (without ``force``), or the file system refuses (permission, space).
    """
    path = Path(path)
    _check_free(path, force)
    if path.is_dir():
        raise UserError("is a folder, not a file", node=str(path))
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=path.suffix, dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        raise _refuse(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


@contextmanager
def writing_folder(path: str | Path, *, force: bool = False) -> Iterator[Path]:
    """Gives a temporary folder beside ``path``; when the block ends well, it takes the place of ``path``.

    Args:
        path: The folder to write.
        force: Replace an existing folder whole. Without it an existing folder with content is refused.

    Raises:
        UserError: The folder exists and is not empty (without ``force``), or the file system refuses.
    """
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise UserError("is a file, not a folder", node=str(path))
    if path.is_dir() and any(path.iterdir()):
        _check_free(path, force)
    temporary: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
        yield temporary
        temporary.chmod(0o777 & ~_umask())
        if path.is_dir():
            old = Path(tempfile.mkdtemp(prefix=f".{path.name}.old.", dir=path.parent))
            path.replace(old / path.name)
            temporary.replace(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.replace(path)
    except OSError as error:
        raise _refuse(path, error) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)


def npy_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether in Fortran's order, and type of an ``.npy`` file; the data come next in the stream.

    Raises:
        ValueError: It is no such file.
    """
    version = np.lib.format.read_magic(stream)
    width = 2 if version == (1, 0) else 4
    length = int.from_bytes(stream.read(width), "little")
    if length > LARGEST_HEADER:
        raise ValueError(f"its header has {length} bytes, and numpy reads {LARGEST_HEADER}")
    stream.seek(-width, os.SEEK_CUR)
    try:
        if version == (1, 0):
            return np.lib.format.read_array_header_1_0(stream)
        return np.lib.format.read_array_header_2_0(stream)
    # numpy reads the header with Python's own parser, whose errors have no common base
    except Exception as error:
        raise ValueError(f"its header is damaged: {type(error).__name__}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
