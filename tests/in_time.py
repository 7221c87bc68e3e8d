"""What the tests of bursts and of digits share: a student, counts of a run, answers of the command line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from neurodeploy.cli import main
from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.results import Counts
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.graph.student_file import write_student
from neurodeploy.quantize.network import IntArray, IntegerNetwork
from neurodeploy.simulate.restore import run_codes
from tests.random_nets import random_student


def counted(net: IntegerNetwork, codes: IntArray, backend: str) -> Counts:
    counter = OperationCounter(net)
    counter.begin("one")
    run_codes(net, codes, backend=backend, observer=counter)
    return counter.counts()


def small_student(folder: Path) -> Path:
    file = folder / "student.safetensors"
    write_student(file, random_student(StudentSpec(width=4, depth=2, levels=4), 3))
    return file


def answer(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, dict[str, object]]:
    code = main(["--json", "-q", *map(str, arguments)])
    return code, json.loads(capsys.readouterr().out)
