"""A student on disk: one ``.safetensors`` file, read and checked without torch.

The metadata of the file has the one key ``neurodeploy``, a JSON object with ``format``, ``spec``, ``quantized`` and
whatever else describes the student (``task``, ``degradation``, ``name``...). The tensors are those of
:func:`expected_tensors`; :func:`read_student` refuses every file that says something else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from neurodeploy.errors import Finding, FindingsError, UserError
from neurodeploy.files import writing_file
from neurodeploy.graph.spec import StudentSpec

FORMAT = 1
"""Version of the file's layout."""

METADATA_KEY = "neurodeploy"

MAX_VTH = (1 << 17) - 1
"""Largest threshold mantissa of Loihi: 17 bits."""

Tensors = Mapping[str, NDArray[Any]]

_FLOATS = ("float32", "float64")


@dataclass(frozen=True)
class StudentFile:
    """A student as it stands on disk.

    Attributes:
        spec: The description of the network.
        tensors: name -> array, exactly those of :func:`expected_tensors`.
        quantized: Whether the weights are int8 with a step (otherwise float32, batch norm folded).
        meta: Everything else that the metadata says (``task``, ``degradation``, ``name``, ...), JSON values.
    """

    spec: StudentSpec
    tensors: Tensors
    quantized: bool
    meta: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class _Expected:
    dtypes: tuple[str, ...]
    shape: tuple[int, ...]


def expected_tensors(spec: StudentSpec, quantized: bool) -> dict[str, _Expected]:
    """Names, allowed dtypes and shapes of the tensors of a student file, in file order."""
    table: dict[str, _Expected] = {}
    for layer in range(spec.depth + 1):
        shape = spec.conv_shape(layer)
        table[f"conv{layer}.weight"] = _Expected(("int8",) if quantized else ("float32",), shape)
        table[f"conv{layer}.bias"] = _Expected(("int32",) if quantized else ("float32",), shape[:1])
        if quantized:
            table[f"conv{layer}.step"] = _Expected(_FLOATS, ())
        if layer < spec.depth and quantized:
            table[f"lif{layer}.vth"] = _Expected(("int32",), (spec.levels,))
        elif layer < spec.depth:
            table[f"lif{layer}.delta"] = _Expected(_FLOATS, ())
    return table


def student_findings(student: StudentFile) -> list[Finding]:
    """Everything that is wrong with a student's tensors: names, dtypes, shapes, values."""
    expected = expected_tensors(student.spec, student.quantized)
    findings = [
        Finding(name, "tensor is missing", instead="write the file with write_student")
        for name in expected
        if name not in student.tensors
    ]
    findings += [
        Finding(name, "tensor is not part of the student that the metadata describes")
        for name in student.tensors
        if name not in expected
    ]
    present = {name: student.tensors[name] for name in expected if name in student.tensors}
    sound = True
    for name, array in present.items():
        form = list(_form_findings(name, array, expected[name]))
        sound = sound and not form
        findings += form or list(_value_findings(name, array))
    if student.quantized and sound and len(present) == len(expected):
        findings += _shared_step_findings(student)
    return findings


def _form_findings(name: str, array: NDArray[Any], expected: _Expected) -> Iterator[Finding]:
    if array.dtype.name not in expected.dtypes:
        yield Finding(name, "wrong dtype", have=array.dtype.name, limit=" or ".join(expected.dtypes))
    if array.shape != expected.shape:
        yield Finding(name, "wrong shape", have=str(array.shape), limit=str(expected.shape))


def _value_findings(name: str, array: NDArray[Any]) -> Iterator[Finding]:
    if not np.isfinite(array).all():
        yield Finding(name, "holds values that are not finite")
    elif name.endswith((".step", ".delta")) and not float(array) > 0.0:
        yield Finding(name, "must be positive", have=repr(float(array)))
    elif name.endswith(".vth") and not (array.min() >= 0 and array.max() <= MAX_VTH):
        yield Finding(name, "threshold is out of range", have=f"{array.min()}..{array.max()}", limit=f"0..{MAX_VTH}")
    elif name.endswith(".vth") and np.any(np.diff(array.astype(np.int64)) < 0):
        yield Finding(name, "thresholds of the populations must ascend", have=str(array.tolist()))


def _shared_step_findings(student: StudentFile) -> Iterator[Finding]:
    """Convolutions whose currents are summed have to count in the same step."""
    for source, target in student.spec.edges:
        first = float(student.tensors[f"conv{source}.step"])
        second = float(student.tensors[f"conv{target}.step"])
        if first != second:
            yield Finding(
                f"conv{source}.step",
                f"differs from conv{target}.step although edge [{source}, {target}] sums the two",
                have=f"{first!r}",
                limit=f"{second!r}",
            )


def _refuse(path: Path | str, findings: list[Finding]) -> None:
    if findings:
        raise FindingsError(f"{path}: not a usable student", findings, exit_code=2)


def read_student(path: str | Path) -> StudentFile:
    """Reads and checks a student file.

    Raises:
        UserError: The file is missing, is no safetensors file, has no or unreadable metadata, or (as FindingsError)
            holds other tensors than the metadata describes.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError("no such file", node=str(path))
    try:
        with safe_open(str(path), framework="numpy") as file:
            described = _read_metadata(path, file.metadata())
            tensors = {name: np.asarray(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, TypeError, AttributeError) as error:
        raise UserError(f"cannot be read as safetensors: {error}", node=str(path)) from error
    spec, quantized, meta = described
    student = StudentFile(spec=spec, tensors=tensors, quantized=quantized, meta=meta)
    _refuse(path, student_findings(student))
    return student


def _read_metadata(path: Path, metadata: Mapping[str, str] | None) -> tuple[StudentSpec, bool, dict[str, Any]]:
    text = (metadata or {}).get(METADATA_KEY)
    if text is None:
        raise UserError(
            f"is a safetensors file, but not a student: its metadata has no key '{METADATA_KEY}'",
            node=str(path),
            instead="name a teacher as ARCH:WEIGHTS",
        )
    try:
        described = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"its metadata is not JSON: {error}", node=str(path)) from error
    if not isinstance(described, dict) or described.get("format") != FORMAT:
        have = described.get("format") if isinstance(described, dict) else type(described).__name__
        raise UserError("unknown format of student file", node=str(path), have=repr(have), limit=str(FORMAT))
    meta = {key: value for key, value in described.items() if key not in ("format", "spec", "quantized")}
    quantized = described.get("quantized")
    if not isinstance(quantized, bool):
        raise UserError("metadata 'quantized' must be true or false", node=str(path), have=repr(quantized))
    try:
        spec = StudentSpec.model_validate(described.get("spec"))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "spec"
        raise UserError(f"its description is refused: {where}: {first['msg']}", node=str(path)) from error
    return spec, quantized, meta


def write_student(path: str | Path, student: StudentFile, force: bool = False) -> None:
    """Writes a student file, whole or not at all.

    Raises:
        UserError: The student is not sound (as FindingsError), the file exists (without ``force``), or the file system
            refuses.
    """
    _refuse(path, student_findings(student))
    described = {
        **student.meta,
        "format": FORMAT,
        "spec": student.spec.model_dump(mode="json"),
        "quantized": student.quantized,
    }
    order = expected_tensors(student.spec, student.quantized)
    # Not ascontiguousarray: it would turn the scalars into arrays of one element.
    tensors = {name: np.array(student.tensors[name], order="C") for name in order}
    with writing_file(path, force=force) as temporary:
        save_file(tensors, temporary, metadata={METADATA_KEY: json.dumps(described, sort_keys=True)})
