"""The models that come with the program, and what a MODEL argument means.

A zoo folder ``models/<name>/`` holds ``model.toml`` (:class:`ZooEntry`), and beside it the files that it names: a
recipe, weights, a card.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from neurodeploy.errors import UserError
from neurodeploy.foreign import Told, net_model, nir_model
from neurodeploy.model.base import Facts, Model
from neurodeploy.model.coded import Code, coded_model
from neurodeploy.model.integer import IntegerModel
from neurodeploy.model.student import StudentModel
from neurodeploy.model.teacher import TeacherModel
from neurodeploy.shipped import shipped

FORMS = (
    "a zoo name, a run folder, a .safetensors student, a .nir graph, a Lava .net, a bundle folder, ARCH:WEIGHTS, "
    "module:Class or a .onnx file"
)
"""What MODEL may be, for messages."""


class ZooEntry(BaseModel):
    """``model.toml``: what a model of the zoo is, and the files beside it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")
    kind: Literal["student", "teacher"]
    task: Literal["denoise", "derain", "dehaze", "deblur", "restore"]
    summary: str = Field(min_length=1, max_length=200)
    arch: str | None = Field(None, description="architecture of a teacher's weights, for example ffdnet")
    weights: str | None = Field(None, description="file of weights; without it the entry is a recipe to train")
    recipe: str | None = None
    card: str | None = None
    folder: Path = Field(exclude=True)

    @model_validator(mode="after")
    def _complete(self) -> ZooEntry:
        if self.kind == "teacher" and self.arch is None:
            raise ValueError("a teacher needs arch")
        if self.weights is None and self.recipe is None:
            raise ValueError("needs weights or a recipe")
        return self

    def file(self, key: Literal["weights", "recipe", "card"]) -> Path | None:
        """The path of one of the entry's files; None where it names none, or where the file is not there (yet)."""
        named = getattr(self, key)
        path = None if named is None else self.folder / named
        return path if path is not None and path.is_file() else None


def zoo_entries() -> list[ZooEntry]:
    """Every model of the zoo, by name.

    Raises:
        UserError: A ``model.toml`` is not what it should be.
    """
    root = shipped("models")
    return [read_entry(path) for path in sorted(root.glob("*/model.toml"))]


def read_entry(path: Path) -> ZooEntry:
    """Reads and checks one ``model.toml``.

    Raises:
        UserError: It cannot be read, is not TOML, or holds wrong or unknown keys.
    """
    try:
        values = tomllib.loads(path.read_text(encoding="utf-8"))
        entry = ZooEntry.model_validate({**values, "folder": path.parent})
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "model"
        raise UserError(f"{key}: {str(first['msg']).removeprefix('Value error, ')}", node=str(path)) from error
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"cannot be read: {error}", node=str(path)) from error
    if entry.name != path.parent.name:
        raise UserError("name differs from the folder's", node=str(path), have=entry.name, limit=path.parent.name)
    return entry


def find_entry(name: str) -> ZooEntry | None:
    """The zoo entry of this name, if there is one."""
    path = shipped("models") / name / "model.toml"
    return read_entry(path) if _is_name(name) and path.is_file() else None


def _is_name(text: str) -> bool:
    return bool(text) and not any(sign in text for sign in "/\\:") and text not in (".", "..")


def list_models() -> dict[str, Any]:
    """The answer of ``neurodeploy models``: one row a model, read from the files' headers alone."""
    return {"schema_version": 1, "models": [_row(entry) for entry in zoo_entries()]}


def _row(entry: ZooEntry) -> dict[str, Any]:
    weights, card, recipe = entry.file("weights"), entry.file("card"), entry.file("recipe")
    row: dict[str, Any] = {
        "name": entry.name,
        "kind": entry.kind,
        "task": entry.task,
        "arch": entry.arch or "portable",
        "trained": weights is not None,
        "parameters": None,
        "bytes": None,
        "summary": entry.summary,
        "weights": None if weights is None else str(weights),
        "recipe": None if recipe is None else str(recipe),
        "card": None if card is None else str(card),
    }
    if weights is not None:
        row["bytes"] = weights.stat().st_size
        row["parameters"] = _header_parameters(weights) if weights.suffix == ".safetensors" else None
    return row


def _header_parameters(path: Path) -> int | None:
    """Deployed numbers of a ``.safetensors`` file, from its header; None for a student that is not quantised.

    The step of a weight is a unit, not a parameter.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), framework="numpy") as file:
            shapes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        raise UserError(f"cannot be read as safetensors: {error}", node=str(path)) from error
    if any(name.endswith(".delta") for name in shapes):
        return None
    return sum(int(prod(shape)) for name, shape in shapes.items() if not name.endswith(".step"))


def recipe_path(text: str) -> Path:
    """The recipe that RECIPE names: a ``.toml`` or ``.json`` file, or a zoo name.

    Raises:
        UserError: There is no such file and no such model, or the model has no recipe.
    """
    entry = find_entry(text)
    if entry is not None:
        path = entry.file("recipe")
        if path is None:
            raise UserError("has no recipe", node=text, instead="give a .toml file")
        return path
    path = Path(text)
    if path.is_dir():
        raise UserError("is a folder, not a recipe", node=text, instead="give its .toml file, or a zoo name")
    if not path.exists():
        known = [entry.name for entry in zoo_entries() if entry.recipe is not None]
        raise UserError("no such recipe", node=text, instead=_nearest(text, known, "give a .toml file or a zoo name"))
    return path


def teacher_spec(text: str) -> str:
    """ARCH:WEIGHTS of a teacher that is given as a zoo name or as a run folder; every other text as it is.

    Raises:
        UserError: The zoo entry or the run is no teacher, or is not trained.
    """
    entry = find_entry(text)
    if entry is not None:
        if entry.kind != "teacher":
            teachers = [entry.name for entry in zoo_entries() if entry.kind == "teacher"]
            raise UserError(
                "is a student and cannot teach",
                node=text,
                instead=f"the zoo's teachers: {', '.join(teachers) or 'none'}",
            )
        return f"{entry.arch}:{_trained(entry)}"
    folder = Path(text)
    if ":" not in text and folder.is_dir():
        return _run_teacher(folder)
    if ":" not in text and folder.suffix != ".onnx":
        known = [entry.name for entry in zoo_entries() if entry.kind == "teacher"]
        instead = _nearest(text, known, "give a zoo name, ARCH:WEIGHTS, module:Class or a .onnx file")
        raise UserError("no such teacher", node=text, instead=instead)
    return text


def resolve(
    text: str,
    *,
    steps: int | None = None,
    dt: float | None = None,
    white: float | None = None,
    arrays: bool = False,
    first_step_bias: bool | None = None,
    untrained: bool = False,
    code: Code = "populations",
) -> Model:
    """The model that a MODEL argument names.

    Args:
        text: One of :data:`FORMS`. A name of the zoo wins over a file or folder of the same name (``./name`` is the
            latter).
        steps: Time steps T for a ``.nir`` or ``.net`` that does not say.
        dt: Length of a time step in seconds for a ``.nir`` that does not say.
        white: What a ``.nir`` or ``.net`` that does not say takes for white in a picture; 1 and 255 without it.
        arrays: Its input are arrays, whose values such a file takes as they are.
        first_step_bias: Whether biases on feedback edges of a ``.nir`` count in the first step, too.
        untrained: Take a recipe, too, or a zoo entry without weights: its student with weights that nobody trained.
        code: How spikes carry integer levels: ``populations`` of neurons, ``bursts`` of spikes, or binary ``digits``.

    Raises:
        UserError: Nothing of this name is there, or it is not what its name says, or cannot be coded so.
    """
    return coded_model(_resolve(text, Told(steps, dt, white, arrays, first_step_bias), untrained), code)


def _resolve(text: str, told: Told, untrained: bool) -> Model:
    entry = find_entry(text)
    if untrained and (Path(text).suffix in (".toml", ".json") or (entry is not None and entry.file("weights") is None)):
        from neurodeploy.untrained import untrained_model

        return untrained_model(recipe_path(text))
    if entry is not None:
        return _from_entry(entry)
    path = Path(text)
    if path.is_dir():
        return _from_folder(path)
    if path.is_file():
        return _from_file(path, told)
    if ":" in text:
        return TeacherModel(spec=text, facts=Facts(name=text, path=_weights_of(text)))
    raise _unknown(text)


def _weights_of(spec: str) -> Path | None:
    path = Path(spec.partition(":")[2])
    return path if path.is_file() else None


def _from_entry(entry: ZooEntry) -> Model:
    weights = _trained(entry)
    facts = Facts(name=entry.name, path=weights, task=entry.task, card=entry.file("card"))
    if entry.kind == "teacher":
        return TeacherModel(spec=f"{entry.arch}:{weights}", facts=facts)
    return _student(weights, facts)


def _trained(entry: ZooEntry) -> Path:
    weights = entry.file("weights")
    if weights is None:
        raise UserError(
            "has no trained weights here",
            node=entry.name,
            instead=f"train it: neurodeploy distill {entry.name} --out runs/{entry.name}",
        )
    return weights


def _student(path: Path, facts: Facts) -> StudentModel:
    from neurodeploy.graph.student_file import read_student

    file = read_student(path)
    task = facts.task or str(file.meta.get("task") or "")
    return StudentModel(file=file, facts=Facts(facts.name, path, task, facts.card, dict(file.meta)))


def student_path(text: str) -> Path:
    """The student file that a name, a run folder or a path means; a run's float stage where it was kept.

    Raises:
        UserError: There is no such student.
    """
    path = Path(text)
    entry = find_entry(text) if not path.exists() else None
    if entry is not None:
        return _trained(entry)
    if path.is_dir():
        for name in ("student-float.safetensors", "student.safetensors"):
            if (path / name).is_file():
                return path / name
    if path.is_file():
        return path
    raise UserError("holds no student to start from", node=text, instead="give a zoo name, a run folder or a file")


def _from_folder(folder: Path) -> Model:
    if (folder / "manifest.json").is_file():
        return _bundle(folder)
    if (folder / "student.safetensors").is_file():
        student = _student(folder / "student.safetensors", Facts(name=folder.name))
        # the recipe's name says more than that of a folder, which may be plain "run"
        student.facts = replace(student.facts, name=str(student.file.meta.get("name") or folder.name))
        return student
    if (folder / "weights.safetensors").is_file():
        return TeacherModel(spec=_run_teacher(folder), facts=Facts(folder.name, folder / "weights.safetensors"))
    if (folder / "recipe.json").is_file():
        raise UserError(
            "holds a run that has not ended",
            node=str(folder),
            instead=f"go on with neurodeploy distill {folder / 'recipe.json'} --resume --out {folder}",
        )
    raise UserError("is neither a run folder nor a bundle", node=str(folder), instead=f"MODEL is {FORMS}")


def _bundle(folder: Path) -> IntegerModel:
    from neurodeploy.targets.bundle import read_bundle

    bundle = read_bundle(folder)
    about = bundle.manifest.model.about
    facts = Facts(bundle.manifest.model.name, folder, str(about.get("task") or ""), meta=dict(about))
    net = bundle.integer_network()
    return IntegerModel(net=net, facts=facts, kind="bundle", made_for=bundle.manifest.image_size)


def _run_teacher(folder: Path) -> str:
    weights, recipe = folder / "weights.safetensors", folder / "recipe.json"
    if not weights.is_file() or not recipe.is_file():
        raise UserError("holds no trained teacher", node=str(folder), instead="give the folder of a finished run")
    try:
        family = json.loads(recipe.read_text(encoding="utf-8"))["student"]["family"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"cannot be read as the recipe of a run: {error}", node=str(recipe)) from error
    return f"{family}:{weights}"


def _from_file(path: Path, told: Told) -> Model:
    suffix = path.suffix.lower()
    facts = Facts(name=path.stem, path=path)
    if suffix == ".safetensors":
        return _student(path, facts)
    if suffix == ".nir":
        return nir_model(path, told)
    if suffix == ".net":
        return net_model(path, told)
    if suffix == ".onnx":
        return TeacherModel(spec=str(path), facts=facts)
    if suffix in (".pth", ".pt", ".ckpt"):
        raise UserError(
            "holds weights, but not what network they belong to", node=str(path), instead=f"say it: ARCH:{path}"
        )
    raise UserError("is not a model", node=str(path), have=suffix or "no suffix", instead=f"MODEL is {FORMS}")


def _unknown(text: str) -> UserError:
    names = [entry.name for entry in zoo_entries()]
    if "/" in text or Path(text).suffix in (".safetensors", ".nir", ".net", ".onnx", ".pth", ".pt", ".toml"):
        return UserError("no such file or folder", node=text)
    return UserError("no such model", node=text, instead=_nearest(text, names, f"MODEL is {FORMS}"))


def _nearest(text: str, known: Sequence[str], otherwise: str) -> str:
    close = difflib.get_close_matches(text, known, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else otherwise
