"""A recipe: everything that a training run depends on, as a TOML file that is checked before anything starts."""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.images.degradations import Degradation, Gaussian
from neurodeploy.images.patches import MAX_CONTRAST

_STRICT = ConfigDict(extra="forbid", frozen=True)

NORMED_LR, PLAIN_LR = 2e-2, 1e-3
"""Peak learning rates: batch norm bears twenty times as much."""


class Pairs(BaseModel):
    """Two folders whose files match by name: degraded pictures and their clean originals."""

    model_config = _STRICT

    degraded: str
    clean: str


class DataRecipe(BaseModel):
    """Where the pictures come from. ``"builtin"`` means the photographs that scikit-image ships."""

    model_config = _STRICT

    train: str | Pairs = Field(
        "builtin", description='folder of clean pictures, {degraded, clean} folders, or "builtin"'
    )
    test: str | Pairs | None = Field("builtin", description="held-out pictures, scored during and after training")
    patch: int = Field(64, ge=16, le=512, description="side of the square training patches, pixels")
    batch: int = Field(16, ge=1, le=1024, description="patches a step")
    contrast: float = Field(
        0.0, ge=0, le=MAX_CONTRAST, description="stretch clean patches: up to this share of their values is clipped"
    )
    held_out: tuple[str, ...] = Field(
        (), description="names of degraded or clean files of ``train`` that are kept out of it and scored, not ``test``"
    )
    test_images: int = Field(4, ge=1, le=1000, description="held-out pictures scored during training")
    test_crop: int = Field(192, ge=32, le=4096, description="centre crop of those pictures, pixels")


class Hint(BaseModel):
    """One hint: the student's feature is adapted by a 1x1 convolution and compared with the teacher's."""

    model_config = _STRICT

    teacher: str = Field(
        description="name of the teacher's hint point, or a picture: what the teacher finds (restored), or clean"
    )
    student: str = Field(description='name of the student\'s layer, for example "lif3"')


class TeacherRecipe(BaseModel):
    """The teacher and the hints taken from it."""

    model_config = _STRICT

    model: str = Field(description="zoo name, ARCH:WEIGHTS, module:Class or a .onnx file")
    hints: tuple[Hint, ...] | Literal["restored", "even", "none"] = Field(
        "restored",
        description='hint pairs; "restored": what the teacher takes off the picture guides ``hint_count`` of the'
        ' student\'s layers; "even": that many of its features, spread over both networks; "none": output only',
    )
    hint_count: int = Field(4, ge=1, le=16)


class AnnSpec(BaseModel):
    """A non-spiking network to be trained from scratch: a teacher of one's own."""

    model_config = _STRICT

    family: Literal["ffdnet", "dncnn"]
    channels: Literal[1, 3] = 1
    width: int = Field(64, ge=1, le=1024)
    depth: int = Field(15, ge=2, le=64, description="number of convolutions")


Precision = Literal["fp32", "winograd", "bf16"]


class TrainRecipe(BaseModel):
    """How to train. Losses of H-KD (arXiv 2504.01755): L1 + 0.1 FFT + gamma * feature MSE; AdamW, cosine.

    By default a teacher's picture guides the output and some layers before it; with ``teacher.hints = "even"``,
    ``hint_normalise = false`` and ``output_weight = 0`` it is the paper's recipe.
    """

    model_config = _STRICT

    steps: int = Field(20000, ge=2, description="optimiser steps in all; fewer if max_minutes says so")
    init: str | None = Field(
        None, description="zoo name, run folder or .safetensors of a student of the same shape to start from"
    )
    max_minutes: float | None = Field(None, gt=0, description="time limit; the schedule is fitted into it")
    lr: float = Field(
        PLAIN_LR, gt=0, lt=1, description="peak learning rate of AdamW; by default 2e-2 for a student with batch norm"
    )
    lr_end: float = Field(1e-6, ge=0, lt=1, description="learning rate at the end of the cosine")
    warmup: int = Field(100, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(1e-4, ge=0, lt=1)
    clip: float = Field(1.0, gt=0, description="limit on the norm of the gradient")
    ema: float = Field(0.999, ge=0, lt=1, description="decay of the moving average of the weights; 0 = none")
    pixel_loss: Literal["l1", "charbonnier", "mse", "rmse", "psnr"] = "l1"
    fft_weight: float = Field(0.1, ge=0, description="weight of the L1 between spectra")
    aim: Literal["clean", "teacher"] = Field(
        "clean",
        description="what pixel_loss and the spectra compare with: the clean picture, or the teacher's, in which what"
        " nobody can know is left out, so that gradients are less noisy",
    )
    output_weight: float = Field(1.0, ge=0, description="weight of the L1 between student's and teacher's outputs")
    gamma: float = Field(0.12, ge=0, description="weight of the feature MSE, where there are hints")
    gamma_schedule: Literal["constant", "linear", "cosine"] = "cosine"
    gamma_end: float = Field(0.0, ge=0, description="share of gamma left at gamma_until")
    gamma_until: float = Field(1.0, gt=0, le=1, description="share of the float stage in which hints act")
    hint_feature: Literal["spikes", "membrane"] = Field(
        "membrane", description="spikes: time mean of the spikes; membrane: time mean of the input current"
    )
    hint_normalise: bool = Field(
        True, description="every channel of the teacher's feature with mean 0 and standard deviation 1"
    )
    sop_target: float | None = Field(
        None, gt=0, description="synaptic operations a pixel that training holds the student down to"
    )
    sop_code: Literal["populations", "digits"] = Field(
        "populations", description="how spikes carry levels where those operations are counted"
    )
    sop_weight: float = Field(0.05, gt=0, description="weight of log(operations / sop_target) where it is above 0")
    surrogate: Literal["triangle", "atan", "sigmoid", "superspike"] = "triangle"
    dynamics: Literal["native", "norse"] = Field("native", description="whose LIF steps are used in training")
    quantize_from: float = Field(
        1.0,
        ge=0,
        le=1,
        description="share of the steps after which training goes on on the chip's integer grid; 1 = never: weights are"
        " rounded once, at the end, so that their errors cancel",
    )
    precision: Precision | Literal["auto"] = Field(
        "fp32",
        description="arithmetic of the convolutions in training: float32, float32 with Winograd's 3 x 3 convolutions on"
        " the CPU (rounding errors ten times as large), bf16; auto: the quickest on the machine",
    )
    checkpoint_seconds: float = Field(30.0, gt=0)
    eval_every: int = Field(500, ge=1, description="steps between scores on held-out pictures")


def usual_student() -> StudentSpec:
    """The student of a recipe that describes none."""
    return StudentSpec(width=64, depth=4, levels=4, norm="batch", edges=((1, 3),))


class Recipe(BaseModel):
    """A whole run."""

    model_config = _STRICT

    name: str = Field(min_length=1, max_length=80, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    task: Literal["denoise", "derain", "dehaze", "deblur", "restore"] = "denoise"
    seed: int = Field(0, ge=0, lt=2**31)
    data: DataRecipe = DataRecipe()
    degradation: Degradation | None = Field(default_factory=lambda: Gaussian(sigma=25.0))
    teacher: TeacherRecipe | None = None
    student: StudentSpec | AnnSpec = Field(default_factory=usual_student, discriminator="family")
    train: TrainRecipe = TrainRecipe()

    @model_validator(mode="before")
    @classmethod
    def _defaults(cls, values: Any) -> Any:
        """Fills in what depends on something else: the student's family, and the learning rate."""
        if not isinstance(values, Mapping):
            return values
        student = values.get("student", usual_student().model_dump(mode="json"))
        if isinstance(student, Mapping):
            student = {"family": "portable", **student}
            train = values.get("train", {})
            if isinstance(train, Mapping) and student.get("norm") == "batch":
                values = {**values, "train": {"lr": NORMED_LR, **train}}
        return {**values, "student": student}

    @model_validator(mode="after")
    def _consistent(self) -> Recipe:
        paired = [isinstance(source, Pairs) for source in (self.data.train, self.data.test) if source is not None]
        if not all(paired) and self.degradation is None:
            raise ValueError("degradation: clean pictures need one; instead: give [degradation] or paired folders")
        if isinstance(self.data.train, Pairs) and self.data.contrast:
            raise ValueError("data.contrast: pairs are taken as they are; instead: leave it out")
        if isinstance(self.student, StudentSpec) and self.student.norm == "batch" and self.train.quantize_from == 0:
            raise ValueError(
                'train.quantize_from: batch norm needs a float stage; instead: student.norm = "none", or more than 0'
            )
        if self.train.sop_code == "digits" and isinstance(self.student, StudentSpec) and self.student.steps > 1:
            raise ValueError('train.sop_code: digits are of one time step; instead: "populations"')
        if isinstance(self.student, AnnSpec) and self.teacher is not None:
            raise ValueError("teacher: a non-spiking network is trained without a teacher")
        if self.train.aim == "teacher" and self.teacher is None:
            raise ValueError('train.aim: there is no teacher to aim at; instead: name one in [teacher], or "clean"')
        return self

    def to_json(self) -> str:
        """The whole recipe, defaults included, as indented JSON."""
        return json.dumps(self.model_dump(mode="json"), indent=2, sort_keys=True)


def load_recipe(source: str | Path | Mapping[str, Any], overrides: Sequence[str] = ()) -> Recipe:
    """Reads and checks a recipe.

    Args:
        source: A ``.toml`` or ``.json`` file, or the values themselves.
        overrides: ``key.sub=value`` texts (``--set``); values are read as TOML, and as plain text where that fails.

    Raises:
        UserError: The file is missing or not TOML, a key is unknown (the nearest right one is named), or a value is
            out of range. All faults are named at once.
    """
    if isinstance(source, Mapping):
        values, where = json.loads(json.dumps(dict(source))), "recipe"
    else:
        values, where = _read(Path(source)), str(source)
    for override in overrides:
        _override(values, override)
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise UserError(_explain(error), node=where) from error


def settled(
    recipe: Recipe, *, max_minutes: float | None = None, precision: str | None = None, seed: int | None = None
) -> Recipe:
    """The recipe with what the command line says instead of it; None leaves a value alone."""
    values = recipe.model_dump(mode="json")
    instead = {"max_minutes": max_minutes, "precision": precision}
    values["train"] |= {key: value for key, value in instead.items() if value is not None}
    return load_recipe(values | ({} if seed is None else {"seed": seed}))


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError("no such recipe", node=str(path), instead="give a .toml file or a zoo name") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot be read: {error}", node=str(path)) from error
    try:
        values = json.loads(text) if path.suffix == ".json" else tomllib.loads(text)
    except RecursionError as error:
        raise UserError("is nested too deeply for a recipe", node=str(path)) from error
    except ValueError as error:  # both decoders' errors, and integers of thousands of digits
        raise UserError(f"is not valid {path.suffix.lstrip('.') or 'TOML'}: {error}", node=str(path)) from error
    if not isinstance(values, dict):
        raise UserError("holds no table of keys", node=str(path))
    return values


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    parts = key.strip().split(".")
    if not equals or not all(parts):
        raise UserError("is not of the form key.sub=value", node=f"--set {override}")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text.strip()
    table = values
    for part in parts[:-1]:
        table = table.setdefault(part, {})
        if not isinstance(table, dict):
            raise UserError(f"{part} is a value, not a table", node=f"--set {override}")
    table[parts[-1]] = value


def _explain(error: ValidationError) -> str:
    return "; ".join(dict.fromkeys(_explain_one(detail) for detail in error.errors()))


def _explain_one(detail: Mapping[str, Any]) -> str:
    place = [str(part) for part in detail["loc"] if part not in _UNION_TAGS]
    key = ".".join(place)
    if detail["type"] == "extra_forbidden":
        near = difflib.get_close_matches(place[-1], _known_keys(), n=1)
        return f"unknown key {key}" + (f" (did you mean {near[0]}?)" if near else "")
    message = str(detail["msg"]).removeprefix("Value error, ")
    given = detail.get("input")
    shown = f" (have {given!r})" if isinstance(given, (str, int, float, bool)) else ""
    return f"{key}: {message}{shown}" if key else message


_UNION_TAGS = {"str", "Pairs", "StudentSpec", "AnnSpec", "portable", "ffdnet", "dncnn", "tuple[Hint, ...]"}


def _known_keys() -> list[str]:
    def keys(model: type[BaseModel]) -> Iterable[str]:
        return model.model_fields

    models: list[type[BaseModel]] = [Recipe, DataRecipe, Pairs, TeacherRecipe, Hint, TrainRecipe, StudentSpec, AnnSpec]
    found = [key for model in models for key in keys(model)]
    return [*found, "sigma", "kind"]
