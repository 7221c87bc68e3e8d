"""NIR files: reading with the limits checked before any data, writing whole or not at all.

``nir.read`` trusts its file: it loads arrays of any declared size, follows external links, and takes NaN weights. Here
the HDF5 structure is walked first, data come only when all of it is in order, and every failure is one line that names
the file and the node.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import nir
import numpy as np
from nir.serialization import hdf2dict

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.files import writing_file
from neurodeploy.graph.law import structure_findings

MAX_BYTES = 2 << 30
"""Largest sum of all arrays of a file, uncompressed."""

MAX_OBJECTS = 100_000
"""Largest number of groups and data sets of a file."""

MAX_DEPTH = 16
"""Deepest nesting of groups."""

COMPAT_VERSIONS = ("1.0.4",)

_STRING_BYTES = 4096
"""What a string of variable length is counted as: HDF5 does not say it beforehand."""


def read_nir(path: str | Path) -> nir.NIRGraph:
    """Reads a NIR file.

    Args:
        path: The file.

    Returns:
        The graph as it is written (no nodes are added, no types inferred beyond the nodes' own).

    Raises:
        UserError: The file is missing or not HDF5, is too large, holds links, foreign number types or nodes that cannot
            be made; as FindingsError with every reason, if the graph itself is not sound (values, edges, shapes).
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such file", node=str(path))
    try:
        with h5py.File(path, "r") as file:
            _check_file(path, file)
            graph = _read_graph(path, file["node"])
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as HDF5: {_first_line(error)}", node=str(path)) from error
    findings = structure_findings(graph)
    if findings:
        raise FindingsError(f"{path}: not a sound NIR graph", findings, exit_code=2)
    return graph


def _first_line(error: BaseException) -> str:
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__


def _check_file(path: Path, file: h5py.File) -> None:
    total = 0
    for count, (name, item) in enumerate(_walk(path, file)):
        if count >= MAX_OBJECTS:
            raise UserError("holds too many objects", node=str(path), limit=str(MAX_OBJECTS))
        if isinstance(item, h5py.Dataset):
            total += _dataset_bytes(path, name, item)
            if total > MAX_BYTES:
                raise UserError(
                    "its arrays are too large",
                    node=f"{path}: {name}",
                    have=f"more than {total / (1 << 30):.3g} GiB",
                    limit=f"{MAX_BYTES >> 30} GiB",
                )
    for key in ("type", "nodes", "edges"):
        if f"node/{key}" not in file:
            raise UserError(f"is HDF5, but not a NIR graph: there is no node/{key}", node=str(path))
    if _text(file["node/type"]) != "NIRGraph":
        raise UserError("its root is a single node", node=str(path), have=_text(file["node/type"]), limit="NIRGraph")


def _walk(path: Path, file: h5py.File) -> Iterator[tuple[str, h5py.Group | h5py.Dataset]]:
    """Every object of a file by its name; links that leave the tree are refused."""
    addresses = {h5py.h5o.get_info(file.id).addr}
    waiting: list[tuple[str, h5py.Group, int]] = [("", file, 0)]
    while waiting:
        prefix, group, depth = waiting.pop()
        if depth > MAX_DEPTH:
            raise UserError("groups are nested too deeply", node=f"{path}: {prefix}", limit=str(MAX_DEPTH))
        for key in group:
            name = f"{prefix}/{key}" if prefix else key
            if not isinstance(group.get(key, getlink=True), h5py.HardLink):
                raise UserError("is a link to somewhere else, which is refused", node=f"{path}: {name}")
            item = group[key]
            if not isinstance(item, h5py.Group | h5py.Dataset):
                raise UserError("is neither a group nor a data set", node=f"{path}: {name}")
            address = h5py.h5o.get_info(item.id).addr
            if address in addresses:
                raise UserError("is the same object as another of the file", node=f"{path}: {name}")
            addresses.add(address)
            yield name, item
            if isinstance(item, h5py.Group):
                waiting.append((name, item, depth + 1))


def _dataset_bytes(path: Path, name: str, item: h5py.Dataset) -> int:
    where = f"{path}: {name}"
    if item.is_virtual or item.external:
        raise UserError("keeps its data elsewhere, which is refused", node=where)
    if item.shape is None:
        raise UserError("holds no data", node=where)
    is_text = h5py.check_string_dtype(item.dtype) is not None
    if not is_text and (item.dtype.kind not in "iufb" or item.dtype.subdtype is not None):
        raise UserError("holds something else than real numbers or text", node=where, have=str(item.dtype))
    width = _STRING_BYTES if item.dtype.kind == "O" else item.dtype.itemsize
    return width * int(np.prod(item.shape, dtype=object))


def _text(item: Any) -> str:
    value = item[()] if isinstance(item, h5py.Dataset) else None
    return value.decode(errors="replace") if isinstance(value, bytes) else repr(value)


def _read_graph(path: Path, group: h5py.Group) -> nir.NIRGraph:
    if not isinstance(group["nodes"], h5py.Group):
        raise UserError("node/nodes is no group", node=str(path))
    nodes = {name: _read_node(path, name, item) for name, item in group["nodes"].items()}
    edges = _read_edges(path, group["edges"])
    metadata = hdf2dict(group["metadata"]) if isinstance(group.get("metadata"), h5py.Group) else {}
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=metadata, type_check=False)


def _read_node(path: Path, name: str, item: Any) -> nir.NIRNode:
    where = f"{path}: {name}"
    if not isinstance(item, h5py.Group) or not isinstance(item.get("type"), h5py.Dataset):
        raise UserError("is no node: it has no type", node=where)
    kind = _text(item["type"])
    known = getattr(nir, kind, None)
    if not (isinstance(known, type) and issubclass(known, nir.NIRNode) and known is not nir.NIRNode):
        raise UserError("unknown kind of node", node=where, have=kind)
    if known is nir.NIRGraph:
        raise UserError(
            "is a graph inside the graph, which is refused", node=where, instead="write its nodes into the graph itself"
        )
    try:
        with np.errstate(all="ignore"):
            return nir.dict2NIRNode(hdf2dict(item))
    except Exception as error:
        # nir raises nine kinds of exception on bad fields, an AssertionError without a word among them
        raise UserError(f"cannot be made a {kind}: {_first_line(error)}", node=where) from error


def _read_edges(path: Path, item: Any) -> list[tuple[str, str]]:
    where = f"{path}: edges"
    if not isinstance(item, h5py.Dataset):
        raise UserError("are no data set", node=where)
    if item.size == 0:
        return []
    if item.ndim != 2 or item.shape[1] != 2 or h5py.check_string_dtype(item.dtype) is None:
        raise UserError("must be pairs of names", node=where, have=f"shape {item.shape}, {item.dtype}")
    return [(source, target) for source, target in item.asstr()[()]]


def write_nir(
    path: str | Path, graph: nir.NIRGraph, *, compat: Literal["1.0.4"] | None = None, force: bool = False
) -> None:
    """Writes a NIR file.

    Args:
        path: The file.
        graph: A sound graph.
        compat: ``"1.0.4"`` leaves out the ``v_reset`` that readers of that version refuse; it must be 0 everywhere.
        force: Replace an existing file.

    Raises:
        UserError: The graph is not sound (as FindingsError), holds metadata that HDF5 cannot say, cannot be written for
            ``compat``, or the file exists or cannot be written.
    """
    findings = structure_findings(graph)
    if findings:
        raise FindingsError(f"{path}: the graph is not sound", findings, exit_code=2)
    _check_metadata(path, "graph", graph.metadata)
    for name, node in graph.nodes.items():
        _check_metadata(path, name, node.metadata)
    if compat is not None:
        _check_compat(path, graph, compat)
    with writing_file(path, force=force) as temporary:
        # by way of memory: HDF5 ends the process where it cannot write to the disk itself
        content = io.BytesIO()
        nir.write(content, graph)
        if compat is not None:
            _strip_v_reset(content)
        temporary.write_bytes(content.getbuffer())


def _check_metadata(path: str | Path, name: str, metadata: Mapping[str, Any]) -> None:
    for key, value in metadata.items():
        if isinstance(value, Mapping):
            _check_metadata(path, f"{name}: {key}", value)
        elif not isinstance(value, str | bytes | bool | int | float | np.number | np.bool_ | np.ndarray):
            raise UserError(
                f"metadata '{key}' cannot be written",
                node=f"{path}: {name}",
                have=type(value).__name__,
                limit="text, numbers, arrays of numbers",
            )


def _check_compat(path: str | Path, graph: nir.NIRGraph, compat: str) -> None:
    if compat not in COMPAT_VERSIONS:
        raise UserError("unknown version to be compatible with", node=compat, limit=", ".join(COMPAT_VERSIONS))
    for name, node in graph.nodes.items():
        if np.any(getattr(node, "v_reset", 0) != 0):
            raise UserError(f"nir {compat} has no v_reset, and this one is not 0", node=f"{path}: {name}")


def _strip_v_reset(content: io.BytesIO) -> None:
    with h5py.File(content, "r+") as file:
        for node in file["node/nodes"].values():
            if "v_reset" in node:
                del node["v_reset"]
