"""``neurodeploy convert``: from an ONNX file to a folder that every other verb takes, with the loss on record."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neurodeploy import __version__
from neurodeploy.errors import UserError
from neurodeploy.files import writing_folder
from neurodeploy.graph.student_file import StudentFile, write_student
from neurodeploy.images.datasets import Builtin, DegradedFolder, Sample
from neurodeploy.images.degradation_base import DegradationBase
from neurodeploy.images.metrics import psnr
from neurodeploy.model.base import Channels, Facts
from neurodeploy.model.student import StudentModel
from neurodeploy.networks.convert.balance import balanced
from neurodeploy.networks.convert.probe import Probe, usual_sides
from neurodeploy.networks.convert.shape import Shaped, shaped
from neurodeploy.networks.convert.walk import find_chain
from neurodeploy.networks.grid import take_grid, to_grid
from neurodeploy.networks.stored import file_of, student_of
from neurodeploy.networks.teachers.onnx_file import OnnxTeacher, load_onnx

SCHEMA_VERSION = 1
FLOAT, QUANTIZED, REPORT = "student-float.safetensors", "student.safetensors", "convert.json"


@dataclass(frozen=True)
class ConvertPlan:
    """What to convert with.

    Attributes:
        levels: Integer levels D of every activation.
        input_scale: Codes of the input a unit of brightness.
        degradation: What calibration and test pictures are degraded by.
        sigma: Noise level to fold in for a network that is told one, in units of the image; by default what the
            degradation says.
        data: Folder of clean pictures to calibrate on; None: the built-in photographs.
        test: Folder of clean pictures to score on; None: the built-in ones that are held out.
        pictures: How many of each are taken, at most.
        crop: Side of their middle that is taken.
    """

    levels: int = 15
    input_scale: float = 63.75
    degradation: DegradationBase | None = None
    sigma: float | None = None
    data: str | None = None
    test: str | None = None
    pictures: int = 8
    crop: int = 160


def convert(
    path: str | Path, out: str | Path, plan: ConvertPlan, *, channels: int | None = None, force: bool = False
) -> dict[str, Any]:
    """Converts an ONNX network and writes the student, in floats and on its integer grid, and a report.

    Args:
        path: The ``.onnx`` file.
        out: The folder to write: a run folder, as far as other verbs are concerned.
        plan: What to convert with.
        channels: Of the images, where the graph leaves them open.
        force: Replace an existing folder.

    Returns:
        ``schema_version``, ``student``, ``spec``, ``parameters``, ``notes``, ``images``, ``psnr_db`` with the scores of
        the input, the network, the float student and the integers, and ``loss_db``.

    Raises:
        FindingsError: Everything in the graph that does not convert.
        UserError: The file, its host side, or the pictures cannot be used.
    """
    teacher = load_onnx(path, channels=channels)
    calibration = _pictures(plan, teacher, "train")
    test = _pictures(plan, teacher, "test")
    told = plan.sigma if plan.sigma is not None else _told(calibration)
    network = read_network(teacher, plan, told if teacher.needs_noise_level else None)
    found = balanced(network, [sample.degraded for sample in calibration])
    meta = _meta(teacher, plan)
    student = replace(found.student, meta=meta)
    on_grid = student_of(student).eval()
    if network.spec.edges:
        to_grid(on_grid)  # convolutions that an edge joins share one step
    else:
        take_grid(on_grid, found.weight_steps)
    quantized = file_of(on_grid, meta)
    scores = _scores(teacher, student, quantized, test, told)
    report = {
        "schema_version": SCHEMA_VERSION,
        "from": Path(path).name,
        "spec": network.spec.model_dump(mode="json"),
        "parameters": on_grid.parameters_count,
        "ann_parameters": teacher.parameters_count,
        "notes": list(network.notes),
        "calibration": [sample.name for sample in calibration],
        "images": [sample.name for sample in test],
        "psnr_db": scores,
        "loss_db": {
            "levels": round(scores["ann"] - scores["student_float"], 4),
            "integers": round(scores["student_float"] - scores["student_fixed"], 4),
            "total": round(scores["ann"] - scores["student_fixed"], 4),
        },
    }
    with writing_folder(out, force=force) as folder:
        write_student(folder / FLOAT, student)
        write_student(folder / QUANTIZED, quantized)
        (folder / REPORT).write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")
    return {**report, "student": str(Path(out) / QUANTIZED)}


def read_network(teacher: OnnxTeacher, plan: ConvertPlan, noise_level: float | None) -> Shaped:
    """The network of an ONNX file in the shape of a student.

    Raises:
        FindingsError: Everything in the graph that does not convert.
        UserError: What comes before the first or behind the last convolution is not the host's share of a student.
    """
    graph, where = teacher.graph, str(teacher.graph.path)
    chain = find_chain(graph.model, where)
    probe = Probe(graph.model, teacher.channels, usual_sides(graph.height, graph.width), where)
    head = probe.head(chain.head)
    tail = probe.tail(chain.cut, len(chain.layers[-1].bias), head.factor)
    return shaped(
        chain,
        head,
        tail,
        channels=teacher.channels,
        levels=plan.levels,
        input_scale=plan.input_scale,
        noise_level=noise_level,
        path=where,
    )


def _pictures(plan: ConvertPlan, teacher: OnnxTeacher, part: Any) -> list[Sample]:
    """The middles of degraded pictures, of the size that the graph takes where it takes one size only."""
    if teacher.channels not in (1, 3):
        raise UserError("restores neither gray nor RGB images", have=f"{teacher.channels} channels")
    channels: Channels = 3 if teacher.channels == 3 else 1
    folder = plan.data if part == "train" else plan.test
    source: Builtin | DegradedFolder
    if folder is None:
        source = Builtin(part, plan.degradation, channels)
    elif plan.degradation is None:
        raise UserError("clean pictures need a degradation", node=folder, instead="--degradation gaussian:25")
    else:
        source = DegradedFolder(folder, plan.degradation, channels)
    fixed = (teacher.graph.height, teacher.graph.width)
    sides = tuple(side if isinstance(side, int) else plan.crop for side in fixed)
    found = []
    for index in range(len(source)):
        sample = source[index]
        height, width = sample.degraded.shape[1:]
        if all(not isinstance(f, int) or have >= f for f, have in zip(fixed, (height, width), strict=True)):
            top, left = max(0, (height - sides[0]) // 2), max(0, (width - sides[1]) // 2)
            cut = np.s_[:, top : top + sides[0], left : left + sides[1]]
            clean = None if sample.clean is None else sample.clean[cut]
            found.append(replace(sample, degraded=sample.degraded[cut], clean=clean))
        if len(found) == plan.pictures:
            break
    if not found:
        raise UserError("no picture is as large as the graph's input", limit=f"{sides[0]} x {sides[1]}")
    return found


def _told(samples: Sequence[Sample]) -> float:
    return float(np.mean([sample.noise_level for sample in samples]))


def _meta(teacher: OnnxTeacher, plan: ConvertPlan) -> dict[str, Any]:
    return {
        "name": f"{teacher.name}-converted",
        "task": "restore" if plan.degradation is None or plan.degradation.kind != "gaussian" else "denoise",
        "degradation": None if plan.degradation is None else plan.degradation.model_dump(mode="json"),
        "teacher": Path(teacher.weights_source).name,
        "converted": True,
        "neurodeploy": __version__,
    }


def _scores(
    teacher: OnnxTeacher, student: StudentFile, quantized: StudentFile, samples: Sequence[Sample], told: float
) -> dict[str, float]:
    """Mean PSNR of the input, the network, the float student and the integers."""
    models = {
        "student_float": StudentModel(student, Facts("float")).restorer("float"),
        "student_fixed": StudentModel(quantized, Facts("fixed")).restorer("fixed"),
    }
    rows: dict[str, list[float]] = {"input": [], "ann": [], "student_float": [], "student_fixed": []}
    for sample in samples:
        if sample.clean is None:
            continue
        rows["input"].append(psnr(sample.degraded, sample.clean))
        rows["ann"].append(psnr(_by_ann(teacher, sample.degraded, told), sample.clean))
        for name, restore in models.items():
            rows[name].append(psnr(restore(sample.degraded), sample.clean))
    return {name: round(float(np.mean(values)), 4) for name, values in rows.items()}


def _by_ann(teacher: OnnxTeacher, image: NDArray[np.float32], told: float) -> NDArray[np.float64]:
    level = torch.tensor([told]) if teacher.needs_noise_level else None
    restored: NDArray[np.float64] = teacher.restore(torch.from_numpy(image)[None], level)[0].double().numpy()
    return restored
