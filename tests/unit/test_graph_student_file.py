"""Student files: what is written is read, and a file that says something else is refused with every reason."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import StudentFile, read_student, write_student
from tests.random_nets import random_student

SPEC = StudentSpec(width=4, depth=3, levels=3, steps=1, edges=((1, 2),))


@pytest.mark.parametrize("quantized", [True, False])
def test_what_is_written_is_read(tmp_path: Path, quantized: bool) -> None:
    student = random_student(SPEC, 0, quantized=quantized)
    student = replace(student, meta={"name": "x", "task": "denoise", "degradation": {"kind": "gaussian", "sigma": 25}})
    path = tmp_path / "student.safetensors"
    write_student(path, student)
    found = read_student(path)
    assert (found.spec, found.quantized, found.meta) == (student.spec, student.quantized, student.meta)
    assert set(found.tensors) == set(student.tensors)
    for name, tensor in student.tensors.items():
        assert found.tensors[name].dtype == tensor.dtype
        assert found.tensors[name].shape == tensor.shape
        np.testing.assert_array_equal(found.tensors[name], tensor)


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    student = random_student(SPEC, 0)
    write_student(tmp_path / "a.safetensors", student)
    shuffled = replace(student, tensors=dict(reversed(student.tensors.items())))
    write_student(tmp_path / "b.safetensors", shuffled)
    assert (tmp_path / "a.safetensors").read_bytes() == (tmp_path / "b.safetensors").read_bytes()


def test_an_existing_file_is_kept_without_force(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    path.write_bytes(b"precious")
    with pytest.raises(UserError, match="exists already"):
        write_student(path, random_student(SPEC, 0))
    assert path.read_bytes() == b"precious"
    write_student(path, random_student(SPEC, 0), force=True)
    assert read_student(path).spec == SPEC


def spoil(**tensors: np.ndarray | None) -> Callable[[StudentFile], StudentFile]:
    def change(student: StudentFile) -> StudentFile:
        kept = {**student.tensors, **{name.replace("_", "."): tensor for name, tensor in tensors.items()}}
        return replace(student, tensors={name: tensor for name, tensor in kept.items() if tensor is not None})

    return change


BAD: dict[str, tuple[Callable[[StudentFile], StudentFile], str]] = {
    "missing": (spoil(conv0_bias=None), "conv0.bias: tensor is missing"),
    "extra": (spoil(extra=np.zeros(1, np.float32)), "extra: tensor is not part of the student"),
    "shape": (spoil(conv1_bias=np.zeros(5, np.int32)), r"conv1.bias: wrong shape \(have \(5,\), limit \(4,\)\)"),
    "dtype": (spoil(conv1_weight=np.zeros((4, 4, 3, 3), np.int16)), "conv1.weight: wrong dtype"),
    "infinite": (spoil(conv0_step=np.asarray(np.inf)), "conv0.step: holds values that are not finite"),
    "zero step": (spoil(conv0_step=np.asarray(0.0)), "conv0.step: must be positive"),
    "descending": (
        spoil(lif0_vth=np.array([3, 2, 4], np.int32)),
        "lif0.vth: thresholds of the populations must ascend",
    ),
    "negative": (spoil(lif0_vth=np.array([-1, 2, 4], np.int32)), "lif0.vth: threshold is out of range"),
    "too large": (spoil(lif0_vth=np.array([1, 2, 131072], np.int32)), "lif0.vth: threshold is out of range"),
    "two steps": (spoil(conv2_step=np.asarray(0.02)), "conv1.step: differs from conv2.step"),
}


@pytest.mark.parametrize("case", BAD)
def test_unsound_students_are_neither_written_nor_read(tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    student = change(random_student(SPEC, 0))
    path = tmp_path / "student.safetensors"
    with pytest.raises(FindingsError, match=message):
        write_student(path, student)
    assert not path.exists()
    described = {"format": 1, "spec": SPEC.model_dump(mode="json"), "quantized": True}
    save_file(dict(student.tensors), path, metadata={"neurodeploy": json.dumps(described)})
    with pytest.raises(FindingsError, match=message) as raised:
        read_student(path)
    assert raised.value.exit_code == 2


def test_every_reason_is_given_at_once(tmp_path: Path) -> None:
    student = spoil(conv0_bias=None, conv0_step=np.asarray(-1.0), lif1_vth=None)(random_student(SPEC, 0))
    with pytest.raises(FindingsError) as raised:
        write_student(tmp_path / "x.safetensors", student)
    assert {finding.node for finding in raised.value.findings} == {"conv0.bias", "conv0.step", "lif1.vth"}


def metadata_file(path: Path, metadata: dict[str, str] | None) -> Path:
    save_file({"x": np.zeros(1, np.float32)}, path, metadata=metadata)
    return path


GOOD = {"format": 1, "spec": {"width": 4, "depth": 3, "steps": 1}, "quantized": True}
METADATA: dict[str, tuple[dict[str, str] | None, str]] = {
    "none": (None, "not a student"),
    "other": ({"format": "pt"}, "not a student"),
    "no json": ({"neurodeploy": "{"}, "not JSON"),
    "no object": ({"neurodeploy": "[]"}, "unknown format"),
    "newer": ({"neurodeploy": json.dumps({**GOOD, "format": 2})}, "unknown format"),
    "quantized": ({"neurodeploy": json.dumps({**GOOD, "quantized": "yes"})}, "must be true or false"),
    "no spec": ({"neurodeploy": json.dumps({**GOOD, "spec": None})}, "description is refused"),
    "bad spec": (
        {"neurodeploy": json.dumps({**GOOD, "spec": {"kernel": 2}})},
        "an even kernel",
    ),
    "unknown key": (
        {"neurodeploy": json.dumps({**GOOD, "spec": {"wdith": 2}})},
        "wdith",
    ),
}


@pytest.mark.parametrize("case", METADATA)
def test_wrong_metadata_is_one_clear_line(tmp_path: Path, case: str) -> None:
    metadata, message = METADATA[case]
    path = metadata_file(tmp_path / "file.safetensors", metadata)
    with pytest.raises(UserError, match=message) as raised:
        read_student(path)
    assert "\n" not in str(raised.value)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("content", [b"", b"not a file", b"\xff" * 64, b"\x08\x00\x00\x00\x00\x00\x00\x00{}      "])
def test_files_of_another_kind_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"file\.safetensors"):
        read_student(path)
    with pytest.raises(UserError, match="no such file"):
        read_student(tmp_path / "absent.safetensors")


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "student.safetensors"
    write_student(path, random_student(SPEC, 0))
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(UserError, match="cannot be read as safetensors"):
        read_student(path)
