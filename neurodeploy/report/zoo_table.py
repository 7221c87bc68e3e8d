"""The table of the zoo: every trained student, scored in the chip's integers by the field's protocol."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neurodeploy.errors import UserError
from neurodeploy.images.metrics import psnr
from neurodeploy.model.base import Model
from neurodeploy.report.evaluate import ImageSet, open_dataset, trained_degradation
from neurodeploy.report.score import markdown_table, score_student, write_between
from neurodeploy.shipped import shipped
from neurodeploy.zoo import resolve, zoo_entries

PROTOCOL = "protocol.toml"
MARKER = "zoo-table"
SIDE, GAP, LABEL = 160, 6, 18
"""Pixels of the contact sheet: a crop's side, the room between crops, a line of text."""

OnProgress = Callable[[int, int, str], None]


class ProtocolRow(BaseModel):
    """One line of ``models/protocol.toml``: a student and what it is scored on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    set: str = Field(description="name of the set, for the table")
    data: str | None = Field(None, description="folder of clean pictures below the root")
    pairs: tuple[str, str] | None = Field(None, description="folders (degraded, clean) below the root")
    degradation: str | None = None
    kernels: str | None = Field(None, description="file of blur kernels below the root, to degrade with")
    teacher: str | None = Field(None, description="ARCH:FILE below the root; by default the student's own teacher")

    @model_validator(mode="after")
    def _one_source(self) -> ProtocolRow:
        if (self.data is None) == (self.pairs is None):
            raise ValueError("needs data or pairs, one of the two")
        if self.kernels is not None and (self.data is None or self.degradation is not None):
            raise ValueError("kernels: go with data, and take the place of degradation")
        return self


def read_protocol(path: Path | None = None) -> list[ProtocolRow]:
    """The lines of ``models/protocol.toml``, or of another file of its form.

    Raises:
        UserError: It is not what it should be.
    """
    path = path or shipped("models") / PROTOCOL
    try:
        return [ProtocolRow.model_validate(row) for row in tomllib.loads(path.read_text(encoding="utf-8"))["score"]]
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, KeyError) as error:
        raise UserError(f"cannot be read: {error}", node=str(path)) from error
    except ValidationError as error:
        raise UserError(str(error.errors()[0]["msg"]).removeprefix("Value error, "), node=str(path)) from error


def zoo_scores(
    *,
    sets: str | Path | None = None,
    data: str | None = None,
    only: Sequence[str] = (),
    limit: int | None = None,
    sheet: str | Path | None = None,
    progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Scores the zoo's trained students.

    Args:
        sets: Folder with the sets of ``models/protocol.toml``; lines whose set is not there are left out, and named.
        data: A folder of clean pictures of one's own instead (or ``"builtin"``): every student is scored on it,
            degraded by what it was trained to undo.
        only: Names of students; by default all.
        limit: The first so many pictures of each set only.
        sheet: Write a contact sheet there (.png or .jpg): degraded, restored and clean crops, a row a line.
        progress: Called after every picture.

    Returns:
        ``scores[]`` (see :func:`neurodeploy.report.score.score_student`), ``left_out[]`` with reasons, ``sheet``.

    Raises:
        UserError: Neither or both of ``sets`` and ``data``, an unknown name, nothing to score.
    """
    if (sets is None) == (data is None):
        raise UserError("give the pictures as --sets ROOT or as --data DIR, one of the two")
    trained = [entry.name for entry in zoo_entries() if entry.kind == "student" and entry.file("weights") is not None]
    unknown = sorted(set(only) - set(trained))
    if unknown:
        raise UserError("is no trained student of the zoo", node=", ".join(unknown), limit=", ".join(trained) or "none")
    chosen = [name for name in trained if not only or name in only]
    left_out: list[dict[str, str]] = []
    scores, rows = [], []
    for row in _own_rows(chosen, str(data)) if sets is None else read_protocol():
        if row.model not in chosen:
            continue
        model = resolve(row.model)
        try:
            images = _images(model, row, Path(sets) if sets is not None else None)
        except UserError as error:
            left_out.append({"model": row.model, "set": row.set, "reason": str(error)})
            continue
        teacher = _teacher(model, row, Path(sets) if sets is not None else None)
        score = score_student(model, images, teacher=teacher, limit=limit, progress=progress)
        scores.append({**score, "set": row.set, "described": images.describe()})
        rows.append((model, row, images))
    if not scores:
        reasons = "; ".join(f"{row['model']}: {row['reason']}" for row in left_out)
        raise UserError("there is nothing to score", node=str(sets or data), have=reasons or "no trained student")
    if sheet is not None:
        _write_sheet(Path(sheet), rows)
    return {"schema_version": 1, "scores": scores, "left_out": left_out, "sheet": None if sheet is None else str(sheet)}


def _own_rows(names: Sequence[str], data: str) -> list[ProtocolRow]:
    words = "built-in photographs" if data == "builtin" else Path(data).name
    rows = []
    for name in names:
        degradation = trained_degradation(resolve(name))
        told = "" if degradation is None else f", {degradation.describe()}"
        rows.append(ProtocolRow(model=name, set=f"{words}{told}", data=data))
    return rows


def _images(model: Model, row: ProtocolRow, root: Path | None) -> ImageSet:
    def place(name: str) -> str:
        return name if root is None else str(root / name)

    if row.pairs is not None:
        return open_dataset(model, pairs=(place(row.pairs[0]), place(row.pairs[1])))
    degradation = row.degradation if row.kernels is None else f"motion:{place(row.kernels)}"
    return open_dataset(model, data=place(str(row.data)), degradation=degradation)


def _teacher(model: Model, row: ProtocolRow, root: Path | None) -> Model | None:
    """The network that the student's energy is compared with; None where it is not at hand."""
    spec = row.teacher if root is not None else None
    if spec is not None and root is not None:
        arch, _, file = spec.partition(":")
        spec = f"{arch}:{root / file}"
    spec = spec or model.facts.meta.get("teacher")
    if not spec:
        return None
    try:
        found = resolve(str(spec))
    except UserError:
        return None
    return None if found.facts.path is None or not found.facts.path.exists() else found


def write_tables(result: Mapping[str, Any], files: Sequence[str | Path], *, cards: bool) -> list[str]:
    """Writes the table between the lines ``<!-- zoo-table -->`` and ``<!-- /zoo-table -->``.

    Args:
        result: Of :func:`zoo_scores`.
        files: Files that get the whole table.
        cards: Write each student's own lines into its card, too.

    Returns:
        The files that were written.
    """
    for file in files:
        write_between(Path(file), MARKER, markdown_table(result["scores"]))
    written = [str(file) for file in files]
    if cards:
        for entry in zoo_entries():
            own = [score for score in result["scores"] if score["model"] == entry.name]
            card = entry.file("card")
            if own and card is not None:
                write_between(card, MARKER, markdown_table(own))
                written.append(str(card))
    return written


def _write_sheet(path: Path, rows: Sequence[tuple[Model, ProtocolRow, ImageSet]]) -> None:
    """A row a line of the table: the first picture's centre, degraded, restored in integers, clean."""
    from PIL import Image, ImageDraw

    width = 3 * SIDE + 4 * GAP
    height = len(rows) * (SIDE + LABEL + GAP) + GAP
    canvas = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    for place, (model, row, images) in enumerate(rows):
        sample = images[0]
        if sample.clean is None:
            continue
        restored = model.restorer("fixed")(sample.degraded, None)
        top = GAP + place * (SIDE + LABEL + GAP)
        gain = f"{psnr(sample.degraded, sample.clean):.2f} to {psnr(restored, sample.clean):.2f} dB"
        pen.text((GAP, top + 3), f"{row.model}: {gain}; {sample.name}, {row.set}", fill="black")
        pictures: list[NDArray[np.floating]] = [sample.degraded, restored, sample.clean]
        for column, picture in enumerate(pictures):
            canvas.paste(_crop(picture), (GAP + column * (SIDE + GAP), top + LABEL))
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() in (".jpg", ".jpeg"):
        canvas.save(path, quality=92, subsampling=0)
    else:
        canvas.save(path)


def _crop(picture: NDArray[np.floating]) -> Any:
    from PIL import Image

    _, height, width = picture.shape
    top, left = max(0, (height - SIDE) // 2), max(0, (width - SIDE) // 2)
    part = picture[:, top : top + SIDE, left : left + SIDE]
    levels = np.rint(255 * np.clip(part, 0, 1)).astype(np.uint8)
    levels = np.repeat(levels, 3, axis=0) if levels.shape[0] == 1 else levels
    return Image.fromarray(np.ascontiguousarray(levels.transpose(1, 2, 0)))
