"""What a model card says of a student: PSNR by stage, spread over pictures, parameters, operations, energy ratios."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.energy.baselines import Teacher
from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.op_only import op_only
from neurodeploy.energy.results import Counts
from neurodeploy.errors import FindingsError, InternalError, UserError
from neurodeploy.graph.student_file import read_student
from neurodeploy.images.metrics import psnr, ssim
from neurodeploy.model.base import Facts, Model
from neurodeploy.model.student import StudentModel
from neurodeploy.quantize.bursts import Coded
from neurodeploy.quantize.digits import in_digits
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.report.evaluate import ImageSet
from neurodeploy.report.measure import count_teacher
from neurodeploy.simulate.restore import restore

FLOAT_WEIGHTS = "student-float.safetensors"
"""The student at the end of the float stage, beside its integers."""

OnProgress = Callable[[int, int, str], None]


def float_student(model: Model) -> StudentModel | None:
    """The same student before its integers, where its file lies beside them."""
    path = model.facts.path
    beside = None if path is None else path.parent / FLOAT_WEIGHTS
    if beside is None or not beside.is_file():
        return None
    return StudentModel(file=read_student(beside), facts=Facts(f"{model.name} (float)", beside))


def score_student(
    model: Model,
    dataset: ImageSet,
    *,
    teacher: Model | None = None,
    limit: int | None = None,
    tile: int | None = None,
    stages: bool = True,
    progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Restores pictures in the chip's integers, scores and counts that, and scores the stages before it.

    Args:
        model: A student.
        dataset: Degraded pictures with their clean originals.
        teacher: For the ratios of energy.
        limit: The first so many pictures only.
        tile: Side of the tiles of large pictures.
        stages: Score the float student and the grid in torch, too, where torch is installed.
        progress: Called after every picture.

    Returns:
        ``psnr_db`` (integers) and ``psnr_std_db``, ``psnr_least_db`` over the pictures, ``input_psnr_db``, ``ssim``,
        ``psnr_grid_db``, ``psnr_float_db`` (None where not scored), for RGB ``psnr_y_db``; ``worst_gain_db`` and
        ``worst_image``; ``parameters``; ``sop`` and ``mac`` an image, ``rate``; ``op_only``; ``images[]``; ``digits``:
        ``T``, ``sop``, ``mac`` and ``op_only`` of the same pictures with the levels as digits, run as well, or None
        where they cannot be sent so, or restore another picture (which only a membrane without a bound can do).

    Raises:
        UserError: There is no picture, or one has no clean original.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count < 1:
        raise UserError("there is no picture to score")
    net = model.integer()
    counter = OperationCounter(net)
    coded = _coded(net)
    counter_of_digits = None if coded is None else OperationCounter(coded.net)
    before = float_student(model) if stages else None
    others = {
        "grid": model.restorer("float") if stages else None,
        "float": None if before is None else before.restorer("float"),
    }
    rows: list[dict[str, Any]] = []
    sizes = []
    for index in range(count):
        sample = dataset[index]
        if sample.clean is None:
            raise UserError("has no clean original to be scored against", node=sample.name)
        counter.begin(sample.name)
        restored = restore(net, sample.degraded, tile=tile, observer=counter)
        sizes.append((sample.degraded.shape[1], sample.degraded.shape[2]))
        if coded is not None and counter_of_digits is not None:
            counter_of_digits.begin(sample.name)
            same = restore(coded.net, sample.degraded, tile=tile, observer=counter_of_digits)
            if np.abs(same - restored).max() > 1e-9:
                if not coded.findings:
                    raise InternalError(f"{sample.name}: digits restore another picture than populations")
                coded = counter_of_digits = None
        row: dict[str, Any] = {
            "name": sample.name,
            "psnr_db": psnr(restored, sample.clean),
            "input_psnr_db": psnr(sample.degraded, sample.clean),
            "ssim": ssim(restored, sample.clean),
        }
        if model.channels == 3:
            row["psnr_y_db"] = psnr(restored, sample.clean, y_channel=True)
        for stage, restorer in others.items():
            if restorer is not None:
                row[f"psnr_{stage}_db"] = psnr(restorer(sample.degraded, None), sample.clean)
        rows.append(row)
        if progress is not None:
            progress(index + 1, count, sample.name)
    counts = counter.counts()
    compared = None if teacher is None else count_teacher(teacher, sizes)
    spiking = [layer for layer in counts.layers if layer.kind == "spiking"]
    return {
        "model": model.name,
        "set": dataset.describe(),
        "pictures": count,
        **_means(rows),
        **_spread(rows),
        "parameters": model.parameters,
        "T": model.steps,
        "sop": counts.mean("sop"),
        "mac": counts.mean("mac"),
        "pixels": float(np.mean([height * width for height, width in sizes])),
        "rate": sum(layer.spikes for layer in spiking) / max(1, sum(layer.neuron_updates for layer in spiking)),
        "teacher": None if teacher is None else teacher.name,
        "op_only": op_only(counts, compared),
        "digits": None if counter_of_digits is None else _costs(counter_of_digits.counts(), compared),
        "images": rows,
    }


def _costs(counts: Counts, teacher: Teacher | None) -> dict[str, Any]:
    return {
        "T": counts.steps,
        "sop": counts.mean("sop"),
        "mac": counts.mean("mac"),
        "op_only": op_only(counts, teacher),
    }


def _coded(net: IntegerNetwork) -> Coded | None:
    try:
        return in_digits(net)
    except FindingsError:
        return None


def _means(rows: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    keys = ("psnr_db", "input_psnr_db", "ssim", "psnr_grid_db", "psnr_float_db", "psnr_y_db")
    return {key: float(np.mean([row[key] for row in rows])) if key in rows[0] else None for key in keys}


def _spread(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    scores = [row["psnr_db"] for row in rows]
    worst = min(rows, key=lambda row: float(row["psnr_db"] - row["input_psnr_db"]))
    return {
        "psnr_std_db": float(np.std(scores, ddof=1)) if len(scores) > 1 else 0.0,
        "psnr_least_db": float(min(scores)),
        "worst_gain_db": float(worst["psnr_db"] - worst["input_psnr_db"]),
        "worst_image": worst["name"],
    }


COLUMNS = (
    ("model", "model"),
    ("set", "scored on"),
    ("input", "input dB"),
    ("float", "float dB"),
    ("grid", "grid, torch dB"),
    ("integers", "integers dB"),
    ("worst", "worst image's gain dB"),
    ("parameters", "parameters"),
    ("sop", "SOP a pixel"),
    ("mac", "MAC a pixel"),
    ("ratio", "teacher's energy: fp32, int8"),
    ("digit_sop", "digits: SOP a pixel"),
    ("digit_mac", "MAC a pixel"),
    ("digit_ratio", "teacher's energy: fp32, int8"),
)
"""Keys of :func:`table_row` and headings."""


def table_row(score: Mapping[str, Any]) -> dict[str, str]:
    """One line of the table, as texts."""

    def costs(counted: Mapping[str, Any] | None) -> tuple[str, str, str]:
        if counted is None:
            return ("-",) * 3
        ratios = [counted["op_only"][kind]["teacher_over_student"] for kind in ("fp32", "int8")]
        return (
            f"{counted['sop'] / score['pixels']:,.0f}",
            f"{counted['mac'] / score['pixels']:,.0f}",
            ", ".join("-" if ratio is None else f"{ratio:.1f}x" for ratio in ratios),
        )

    def decibel(key: str) -> str:
        return "-" if score[key] is None else f"{score[key]:.2f}"

    return {
        "model": str(score["model"]),
        "set": f"{score['set']} ({score['pictures']})",
        "input": decibel("input_psnr_db"),
        "float": decibel("psnr_float_db"),
        "grid": decibel("psnr_grid_db"),
        "integers": f"{decibel('psnr_db')} ± {score['psnr_std_db']:.2f}",
        "worst": f"{score['worst_gain_db']:+.2f}",
        "parameters": f"{score['parameters']:,}",
        **dict(zip(("sop", "mac", "ratio"), costs(score), strict=True)),
        **dict(zip(("digit_sop", "digit_mac", "digit_ratio"), costs(score["digits"]), strict=True)),
    }


TABLE_NOTE = (
    "PSNR of whole pictures, output clipped and rounded to 8 bits, no border cut, mean ± standard deviation over the"
    " pictures; RGB for colour. SOP: synaptic operations, MAC: multiply-accumulates of the first layer's analog input."
    " Energy: arithmetic alone (4.6 pJ a MAC and 0.9 pJ an SOP in fp32), so many times the student's is the teacher's;"
    " then with 8-bit integers on both sides. First with every integer level as a population of neurons, in one step;"
    " then with the levels as binary digits, sent in time (`--code digits`: the same pictures in more steps): the SOPs"
    " include all spikes that make the digits, the MACs the host's ticks."
)


def markdown_table(scores: Sequence[Mapping[str, Any]]) -> str:
    """The table as Markdown, with what its columns mean."""
    rows = [table_row(score) for score in scores]
    lines = ["| " + " | ".join(heading for _, heading in COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join(row[key] for key, _ in COLUMNS) + " |" for row in rows]
    return "\n".join([*lines, "", TABLE_NOTE, ""])


def write_between(path: Path, marker: str, text: str) -> None:
    """Replaces what stands between ``<!-- marker -->`` and ``<!-- /marker -->`` in a file.

    Raises:
        UserError: The file has no such lines.
    """
    whole = path.read_text(encoding="utf-8")
    begin, end = f"<!-- {marker} -->", f"<!-- /{marker} -->"
    if whole.count(begin) != 1 or whole.count(end) != 1 or whole.index(begin) > whole.index(end):
        raise UserError(f"has no lines {begin} and {end} to write between", node=str(path))
    before, after = whole.split(begin)[0], whole.split(end)[1]
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}", encoding="utf-8")
