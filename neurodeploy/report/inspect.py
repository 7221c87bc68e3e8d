"""What is in a file or folder: students, weights, graphs, bundles, runs, recipes, profiles, pictures."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neurodeploy.errors import UserError
from neurodeploy.images.io import SUFFIXES, read_levels
from neurodeploy.quantize.network import IntegerConv, IntegerDense, IntegerLif, IntegerNetwork
from neurodeploy.zoo import find_entry

if TYPE_CHECKING:
    from neurodeploy.targets.manifest import Manifest

SCHEMA_VERSION = 1


def inspect_path(path: str | Path) -> dict[str, Any]:
    """What a file or folder holds, checked as it is read; of a model of the zoo, its weights, or its recipe.

    Returns:
        ``kind``, ``path``, ``facts`` (name -> value), ``rows`` (tensors, nodes or files, each with the same keys) and
        ``findings``.

    Raises:
        UserError: There is nothing there, it is of no known kind, or it is damaged.
    """
    entry = find_entry(str(path))
    path = Path(path)
    if entry is not None:
        path = entry.file("weights") or entry.file("recipe") or entry.folder
    if path.is_dir():
        found = _folder(path)
    elif not path.is_file():
        raise UserError("no such file or folder", node=str(path))
    else:
        reader = _READERS.get(path.suffix.lower())
        if reader is None:
            raise UserError("is of no known kind", node=str(path), limit=", ".join(sorted(_READERS)))
        found = reader(path)
    return {"schema_version": SCHEMA_VERSION, "path": str(path), "findings": [], "rows": [], **found}


def _folder(path: Path) -> dict[str, Any]:
    if (path / "manifest.json").exists():
        return _bundle(path)
    if (path / "recipe.json").is_file():
        return _run(path)
    raise UserError("is neither a run folder nor a bundle", node=str(path))


def _bundle(path: Path) -> dict[str, Any]:
    from neurodeploy.targets.bundle import read_bundle

    manifest = read_bundle(path).manifest
    height, width = manifest.image_size
    facts = {
        "target": manifest.target,
        "model": manifest.model.name,
        "levels": _levels(manifest),
        "parameters": manifest.model.parameters,
        "parameters repeated": manifest.model.parameters_repeated,
        "image": f"{height}x{width}",
        "T": manifest.steps,
        "arithmetic": manifest.arithmetic,
        "integers equal float": manifest.equality.integers_equal_float,
        "smallest margin": manifest.proof.smallest_margin,
        "written by": f"{manifest.program.name} {manifest.program.version}",
    }
    return {"kind": "bundle", "facts": facts, "rows": [entry.model_dump() for entry in manifest.files]}


def _levels(manifest: Manifest) -> str:
    repeated = manifest.model.parameters_repeated > manifest.model.parameters
    if manifest.host.ticks:
        return "as digits" if repeated else "in bursts"
    return "in populations" if repeated else "none"


def _run(path: Path) -> dict[str, Any]:
    recipe = _json(path / "recipe.json")
    result = _json(path / "result.json") if (path / "result.json").is_file() else {}
    keys = ("student", "steps", "seconds", "psnr_db", "input_psnr_db", "psnr_float_db", "parameters")
    facts = {"recipe": recipe.get("name"), "finished": bool(result), **{key: result.get(key) for key in keys}}
    files = [{"path": file.name, "size": file.stat().st_size} for file in sorted(path.iterdir()) if file.is_file()]
    return {"kind": "run", "facts": facts, "rows": files}


def _json(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"is not JSON: {error}", node=str(path)) from error
    return values if isinstance(values, dict) else {}


def _safetensors(path: Path) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            metadata = file.metadata() or {}
            slices = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            rows = [
                {"name": name, "dtype": str(part.get_dtype()), "shape": tuple(part.get_shape())}
                for name, part in slices.items()
            ]
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot be read as safetensors: {error}", node=str(path)) from error
    if "neurodeploy" in metadata and any(row["name"] == "conv0.weight" for row in rows):
        return {**_student(path), "rows": rows}
    count = sum(int(np.prod(row["shape"])) for row in rows)
    return {"kind": "weights", "facts": {"tensors": len(rows), "numbers": count, **metadata}, "rows": rows}


def _student(path: Path) -> dict[str, Any]:
    from neurodeploy.graph.student_file import read_student

    student = read_student(path)
    described = student.spec.model_dump(exclude_defaults=True)
    return {"kind": "student", "facts": {"quantized": student.quantized, **described, **_flat(student.meta)}}


def _flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """Values of a table with tables in it, under dotted names."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping):
            flat.update({f"{key}.{inner}": item for inner, item in _flat(value).items()})
        else:
            flat[key] = value
    return flat


def _nir(path: Path) -> dict[str, Any]:
    from neurodeploy.graph.cycles import feedback_edges
    from neurodeploy.graph.law import check_graph
    from neurodeploy.graph.nir_file import read_nir
    from neurodeploy.graph.shapes import infer_shapes

    graph = read_nir(path)
    shapes, _ = infer_shapes(graph)
    rows = [
        {"name": name, "type": type(node).__name__, "output": shapes.get(name), "from": _sources(graph.edges, name)}
        for name, node in graph.nodes.items()
    ]
    facts: dict[str, Any] = {"nodes": len(graph.nodes), "edges": len(graph.edges)}
    if feedback := sorted(feedback_edges(graph)):
        facts["feedback"] = ", ".join(f"{source} -> {target}" for source, target in feedback)
    facts |= _flat(graph.metadata or {})
    findings = [finding.as_dict() for finding in check_graph(graph, "readable")]
    return {"kind": "graph", "facts": facts, "rows": rows, "findings": findings}


def _sources(edges: Any, name: str) -> list[str]:
    return [source for source, target in edges if target == name]


def _net(path: Path) -> dict[str, Any]:
    from neurodeploy.targets.lava_net import read_net

    net = read_net(path)
    return {"kind": "lava", "facts": _flat(net.host.model_dump()), "rows": integer_rows(net)}


def integer_rows(net: IntegerNetwork) -> list[dict[str, Any]]:
    """The nodes of an integer network, one row each."""
    rows = []
    for name, node in net.nodes.items():
        row: dict[str, Any] = {"name": name, "type": type(node).__name__.removeprefix("Integer")}
        if isinstance(node, IntegerConv | IntegerDense):
            row["what"] = f"weight {node.weight.shape}, {node.weight.min()}..{node.weight.max()}"
        elif isinstance(node, IntegerLif):
            row["what"] = f"vth {node.vth}, levels {len(node.levels)}"
        rows.append({**row, "from": list(net.sources(name))})
    return rows


def _toml(path: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"is not valid TOML: {error}", node=str(path)) from error
    if "arithmetic" in values:
        from neurodeploy.hardware.profile import load_profile

        profile = load_profile(path)
        return {"kind": "profile", "facts": {"id": profile.id, "chip": profile.name, "caveat": profile.caveat}}
    if "summary" in values:
        from neurodeploy.zoo import read_entry

        return {"kind": "zoo entry", "facts": read_entry(path).model_dump(exclude_none=True)}
    return _recipe(path)


def _recipe(path: Path) -> dict[str, Any]:
    from neurodeploy.distill.recipe import load_recipe

    return {"kind": "recipe", "facts": _flat(load_recipe(path).model_dump(mode="json"))}


def _image(path: Path) -> dict[str, Any]:
    levels = read_levels(path)
    channels, height, width = levels.shape
    facts = {"height": height, "width": width, "channels": channels, "bits": levels.dtype.itemsize * 8}
    return {"kind": "picture", "facts": facts}


_READERS: dict[str, Callable[[Path], dict[str, Any]]] = {
    ".safetensors": _safetensors,
    ".nir": _nir,
    ".net": _net,
    ".toml": _toml,
    ".json": _recipe,
    **dict.fromkeys(SUFFIXES, _image),
}
