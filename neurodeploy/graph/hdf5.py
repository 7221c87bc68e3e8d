"""HDF5 files of strangers: everything that can be known before any data is read.

HDF5 lets a small file declare arrays of any size, keep its data in other files, and link its groups in circles. Here
the whole tree is walked first; what its arrays would take is known, and refused, before one of them is loaded.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np

from neurodeploy.errors import UserError

MAX_BYTES = 2 << 30
"""Largest sum of all arrays of a file, uncompressed."""

MAX_ARRAY = 1 << 29
"""Largest array of a file, uncompressed."""

MAX_OBJECTS = 100_000
"""Largest number of groups and data sets of a file."""

MAX_DEPTH = 16
"""Deepest nesting of groups."""

MAX_RATIO = 1100
"""Bytes that one stored byte may stand for in an array of more than a MiB; deflate, the filter in use, reaches 1032."""


def check_objects(path: Path, file: h5py.File) -> None:
    """Refuses what no reader should touch: links, objects that stand twice, foreign types, arrays beyond the limits.

    Raises:
        UserError: With the path and the name of the first object that is refused.
    """
    with path.open("rb") as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        _check_heaps(path, content)
        total = 0
        for name, item in _walk(path, file):
            size = _dataset_bytes(path, name, item, content)
            total += size
            if size > MAX_ARRAY or total > MAX_BYTES:
                raise UserError(
                    "its arrays are too large",
                    node=f"{path}: {name}",
                    have=f"{size / (1 << 30):.3g} GiB here, {total / (1 << 30):.3g} GiB so far",
                    limit=f"{MAX_ARRAY / (1 << 30):g} GiB an array, {MAX_BYTES >> 30} GiB in all",
                )
            _refuse_empty(path, name, item, size)


_TEXTS = b"GCOL\x01\x00\x00\x00"
"""How a collection of texts of variable length begins."""

_NAMES = b"HEAP\x00\x00\x00\x00"
"""How the heap of a group's names begins."""

_ENTRIES = b"SNOD\x01\x00"
"""How a list of a group's objects begins."""

_TEXT = struct.Struct("<HHIQ")
"""Number, references, nothing, size of what follows."""


def _check_heaps(path: Path, content: mmap.mmap) -> None:
    """Walks the file's heaps: the library goes round for ever at a text that takes no space, and takes any memory."""
    for start in _places(content, _TEXTS):
        _check_texts(path, content, start)
    for start in _places(content, _NAMES):
        _check_names(path, content, start)
    for start in _places(content, _ENTRIES):
        _check_headers(path, content, start)


def _check_names(path: Path, content: mmap.mmap, start: int) -> None:
    """The heap of a group's names, and the chain of its free places: 1 ends it, and a circle never does."""
    size, free, address = (int.from_bytes(content[at : at + 8], "little") for at in range(start + 8, start + 32, 8))
    if size > len(content):
        raise UserError("its names are damaged: they are larger than the file", node=str(path))
    seen: set[int] = set()
    # a place that lies outside is refused by the library
    while free != 1 and free + 16 <= size and address + free + 8 <= len(content):
        if free in seen:
            raise UserError("its names are damaged: their free places go in a circle", node=str(path))
        seen.add(free)
        free = int.from_bytes(content[address + free : address + free + 8], "little")


def _check_headers(path: Path, content: mmap.mmap, start: int) -> None:
    """The headers of the objects that a group lists: of the first version, whose size stands behind 8 bytes."""
    count = int.from_bytes(content[start + 6 : start + 8], "little")
    for entry in range(start + 8, start + 8 + 40 * count, 40):
        header = int.from_bytes(content[entry + 8 : entry + 16], "little")
        if header + 12 > len(content) or content[header] != 1:
            continue
        if int.from_bytes(content[header + 8 : header + 12], "little") > len(content):
            raise UserError("an object is damaged: its header is larger than the file", node=str(path))


def _places(content: mmap.mmap, signature: bytes) -> Iterator[int]:
    place = content.find(signature)
    while place >= 0:
        yield place
        place = content.find(signature, place + 1)


def _check_texts(path: Path, content: mmap.mmap, start: int) -> None:
    place = start + 16
    end = start + int.from_bytes(content[start + 8 : start + 16], "little")
    if end > len(content):
        raise UserError("its texts are damaged: they are larger than the file", node=str(path))
    while place + _TEXT.size <= end:
        number, _, _, size = _TEXT.unpack_from(content, place)
        step = size if number == 0 else _TEXT.size + -(-size // 8) * 8
        if step < _TEXT.size:
            raise UserError("its texts are damaged: an object without an end", node=str(path))
        place += step


def first_line(error: BaseException) -> str:
    """The first line of what an error says, or its kind where it says nothing."""
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _walk(path: Path, file: h5py.File) -> Iterator[tuple[str, h5py.Dataset]]:
    """Every data set of a file by its name; links that leave the tree are refused."""
    addresses = {h5py.h5o.get_info(file.id).addr}
    waiting: list[tuple[str, h5py.Group, int]] = [("", file, 0)]
    while waiting:
        prefix, group, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise UserError("groups are nested too deeply", node=f"{path}: {prefix}", limit=str(MAX_DEPTH))
        for raw in group.id:
            key = raw.decode("utf-8", "replace")
            name = f"{prefix}/{key}" if prefix else key
            if key.encode() != raw:
                raise UserError("has a name that is no text", node=f"{path}: {name}")
            if group.id.links.get_info(raw).type != h5py.h5l.TYPE_HARD:
                raise UserError("is a link to somewhere else, which is refused", node=f"{path}: {name}")
            found = h5py.h5o.open(group.id, raw)
            if not isinstance(found, h5py.h5g.GroupID | h5py.h5d.DatasetID):
                raise UserError("is neither a group nor a data set", node=f"{path}: {name}")
            address = h5py.h5o.get_info(found).addr
            if address in addresses:
                raise UserError("is the same object as another of the file", node=f"{path}: {name}")
            addresses.add(address)
            if len(addresses) > MAX_OBJECTS:
                raise UserError("holds too many objects", node=str(path), limit=str(MAX_OBJECTS))
            if isinstance(found, h5py.h5g.GroupID):
                waiting.append((name, h5py.Group(found), depth + 1))
            else:
                yield name, h5py.Dataset(found)


def _dataset_bytes(path: Path, name: str, item: h5py.Dataset, content: mmap.mmap) -> int:
    where = f"{path}: {name}"
    try:
        dtype = item.dtype
    except TypeError as error:  # HDF5 knows types that numpy does not
        raise UserError("holds something else than real numbers or text", node=where, have=str(error)) from error
    if item.is_virtual or item.external:
        raise UserError("keeps its data elsewhere, which is refused", node=where)
    if item.shape is None:
        raise UserError("holds no data", node=where)
    is_text = h5py.check_string_dtype(dtype) is not None
    if not is_text and (dtype.kind not in "iufb" or dtype.subdtype is not None):
        raise UserError("holds something else than real numbers or text", node=where, have=str(dtype))
    size = int(np.prod(item.shape, dtype=object))
    return _texts_bytes(where, item, size, content) if dtype.kind == "O" else dtype.itemsize * size


def _texts_bytes(where: str, item: h5py.Dataset, count: int, content: mmap.mmap) -> int:
    """What texts of variable length take: their lengths stand in the data set, and are believed by the library."""
    if item.id.get_create_plist().get_layout() != h5py.h5d.CONTIGUOUS:
        raise UserError("keeps its texts in pieces, which is refused", node=where)
    start = item.id.get_offset()
    if start is None or count == 0:  # nobody wrote any
        return 8 * count
    width = 8 + item.file.id.get_create_plist().get_sizes()[0]
    end = start + width * count
    if end > len(content):
        raise UserError("its texts are damaged: they are larger than the file", node=where)
    lengths = [int.from_bytes(content[place : place + 4], "little") for place in range(start, end, width)]
    if max(lengths) > len(content):
        raise UserError("its texts are damaged: one is larger than the file", node=where)
    return 8 * count + sum(lengths)


def _refuse_empty(path: Path, name: str, item: h5py.Dataset, size: int) -> None:
    """Refuses an array that nobody wrote, or that a filter made of next to nothing."""
    stored = int(item.id.get_storage_size())
    if size > 1 << 20 and item.dtype.kind != "O" and size > MAX_RATIO * stored:
        raise UserError(
            "declares more data than it can hold",
            node=f"{path}: {name}",
            have=f"{size} bytes",
            limit=f"{MAX_RATIO} x {stored} stored",
        )
