"""NIR files: reading with the limits checked before any data, writing whole or not at all.

``nir.read`` trusts its file: it loads arrays of any declared size, follows external links, and takes NaN weights. Here
the HDF5 structure is walked first, data come only when all of it is in order, and every failure is one line that names
the file and the node.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import h5py
import nir
import numpy as np
from nir.serialization import hdf2dict

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.files import writing_file
from neurodeploy.graph.complete import spread
from neurodeploy.graph.hdf5 import check_objects, first_line
from neurodeploy.graph.law import structure_findings
from neurodeploy.graph.nested import flattened

COMPAT_VERSIONS = ("1.0.4",)


def read_nir(path: str | Path) -> nir.NIRGraph:
    """Reads a NIR file.

    Args:
        path: The file.

    Returns:
        The graph as it is written; graphs inside it are written out (``subgraph.node``), parameters of one element are
        spread over their layer.

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
            graph = flattened(_read_graph(str(path), file["node"]))
    except UserError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read as HDF5: {first_line(error)}", node=str(path)) from error
    findings = structure_findings(graph)
    if findings:
        # a parameter of one element stands for its whole layer in the files of some frameworks
        graph = spread(graph)
        findings = structure_findings(graph)
    if findings:
        raise FindingsError(f"{path}: not a sound NIR graph", findings, exit_code=2)
    return graph


def _check_file(path: Path, file: h5py.File) -> None:
    check_objects(path, file)
    for key in ("type", "nodes", "edges"):
        if f"node/{key}" not in file:
            raise UserError(f"is HDF5, but not a NIR graph: there is no node/{key}", node=str(path))
    if _text(file["node/type"]) != "NIRGraph":
        raise UserError("its root is a single node", node=str(path), have=_text(file["node/type"]), limit="NIRGraph")


def _text(item: Any) -> str:
    value = item[()] if isinstance(item, h5py.Dataset) else None
    return value.decode(errors="replace") if isinstance(value, bytes) else repr(value)


def _read_graph(where: str, group: h5py.Group) -> nir.NIRGraph:
    if not isinstance(group["nodes"], h5py.Group):
        raise UserError("its nodes are no group", node=where)
    nodes = {name: _read_node(f"{where}: {name}", item) for name, item in group["nodes"].items()}
    edges = _read_edges(f"{where}: edges", group["edges"])
    metadata = hdf2dict(group["metadata"]) if isinstance(group.get("metadata"), h5py.Group) else {}
    return nir.NIRGraph(nodes=nodes, edges=edges, metadata=metadata, type_check=False)


def _read_node(where: str, item: Any) -> nir.NIRNode:
    if not isinstance(item, h5py.Group) or not isinstance(item.get("type"), h5py.Dataset):
        raise UserError("is no node: it has no type", node=where)
    kind = _text(item["type"])
    known = getattr(nir, kind, None)
    if not (isinstance(known, type) and issubclass(known, nir.NIRNode) and known is not nir.NIRNode):
        raise UserError("unknown kind of node", node=where, have=kind)
    if known is nir.NIRGraph:
        for key in ("nodes", "edges"):
            if key not in item:
                raise UserError(f"is a graph inside the graph without {key}", node=where)
        return _read_graph(where, item)
    try:
        with np.errstate(all="ignore"):
            return nir.dict2NIRNode(hdf2dict(item))
    except Exception as error:
        # nir raises nine kinds of exception on bad fields, an AssertionError without a word among them
        raise UserError(f"cannot be made a {kind}: {first_line(error)}", node=where) from error


def _read_edges(where: str, item: Any) -> list[tuple[str, str]]:
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
