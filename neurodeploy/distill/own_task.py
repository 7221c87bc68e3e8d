"""A recipe for a task of one's own, from pictures and a teacher alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from neurodeploy.distill.recipe import Recipe, load_recipe, usual_student
from neurodeploy.errors import UserError
from neurodeploy.images.degradations import Gaussian, parse_degradation
from neurodeploy.images.io import list_images, read_image, read_size
from neurodeploy.images.pairing import pairs_by_name

HELD_OUT_SHARE, HELD_OUT_MOST = 10, 24
"""One picture in so many is held out, and no more than so many pictures."""
SMALLEST_PATCH, USUAL_PATCH = 16, 64
DEFAULT_MINUTES = 20.0

TRAIN: dict[str, Any] = {
    "steps": 200_000,
    "ema": 0.999,
    "sop_target": 100_000.0,
    "precision": "auto",
    "eval_every": 500,
}
"""What the zoo's denoisers are trained with, see their recipes; the time limit ends a run."""

TASKS = {"derain": "rain", "dehaze": "haze", "deblur": "motion"}
"""Task -> the degradation of clean pictures that is meant where none is named."""


def own_recipe(
    *,
    name: str,
    task: str | None = None,
    data: str | None = None,
    pairs: tuple[str, str] | None = None,
    sigma: str | None = None,
    degradation: str | None = None,
    teacher: str | None = None,
    channels: int | None = None,
    max_minutes: float | None = None,
    overrides: Sequence[str] = (),
) -> Recipe:
    """The recipe: a student of the zoo's shape, a split of the pictures that depends on their names alone.

    Args:
        name: Of the run.
        task: One of the recipe's tasks; by default ``denoise`` where ``sigma`` is given, else ``restore``.
        data: Folder of clean pictures.
        pairs: Folders (degraded, clean) instead.
        sigma: Noise, in 8-bit units: ``"25"`` or ``"5-55"``.
        degradation: What to do to clean pictures instead, for example ``"rain"`` or ``"defocus:2-4"``.
        teacher: As in a recipe; without one the student learns from the clean pictures alone.
        channels: 1 or 3; by default what the teacher restores, or what the pictures have.
        max_minutes: Time limit; 20 by default.
        overrides: ``key.sub=value`` texts.

    Raises:
        UserError: Neither or both of ``data`` and ``pairs``, no degradation or two, too few or too small pictures.
    """
    if (data is None) == (pairs is None):
        raise UserError("give the pictures as --data FOLDER or as --pairs DEGRADED CLEAN, one of the two")
    spec = _degradation(task, pairs is not None, sigma, degradation)
    files, groups = _pictures(data, pairs)
    values: dict[str, Any] = {
        "name": name,
        "task": task or ("denoise" if sigma is not None else "restore"),
        "data": {
            "train": data if data is not None else {"degraded": str(pairs[0]), "clean": str(pairs[1])},  # type: ignore[index]
            "test": None,
            "held_out": held_out(groups),
            "patch": _patch(files),
            "batch": 16,
            "test_images": 8,
            "test_crop": 256,
        },
        "degradation": None if spec is None else parse_degradation(spec).model_dump(mode="json"),
        "student": {
            **usual_student().model_dump(mode="json"),
            "channels": channels or _channels(files, teacher),
            "noise_map": spec is not None and _noise_varies(spec),
        },
        "train": {**TRAIN, "max_minutes": max_minutes or DEFAULT_MINUTES},
    }
    if teacher is not None:
        values["teacher"] = {"model": teacher}
    return load_recipe(values, overrides)


def _noise_varies(spec: str) -> bool:
    """Whether a degradation is noise of more than one strength, of which a student should be told."""
    found = parse_degradation(spec)
    return isinstance(found, Gaussian) and found.sigma[0] != found.sigma[1]


def _degradation(task: str | None, paired: bool, sigma: str | None, degradation: str | None) -> str | None:
    if paired:
        if sigma is not None or degradation is not None:
            raise UserError("pairs are degraded already", node="--pairs", instead="leave out --sigma and --degradation")
        return None
    if sigma is not None and degradation is not None:
        raise UserError("is given in two ways", node="degradation", instead="--sigma or --degradation")
    if degradation is not None:
        return degradation
    if sigma is not None:
        return f"gaussian:{sigma}"
    if task in TASKS:
        return TASKS[task]
    raise UserError(
        "what is to be undone is not known",
        node="--data",
        instead="say it: --sigma 25, or --degradation KIND, or give degraded pictures, too, with --pairs",
    )


def _pictures(data: str | None, pairs: tuple[str, str] | None) -> tuple[list[Path], dict[str, list[str]]]:
    """All files to look at, and the names that can be held out by the clean picture that they share."""
    groups: dict[str, list[str]] = {}
    if pairs is None:
        files = list_images(str(data))
        groups = {path.name: [path.name] for path in files}
        return files, groups
    paired = pairs_by_name(list_images(pairs[0]), list_images(pairs[1]))
    for degraded, clean in paired:
        groups.setdefault(clean.name, []).append(degraded.name)
    return [degraded for degraded, _ in paired], groups


def held_out(groups: dict[str, list[str]]) -> list[str]:
    """The names that are kept out of training: one clean picture in ten, evenly over their sorted names.

    All degraded versions of a clean picture go the same way.

    Raises:
        UserError: There are fewer than two clean pictures.
    """
    clean = sorted(groups)
    if len(clean) < 2:
        raise UserError(
            "one picture cannot be split into one to train on and one to score",
            have=str(len(clean)),
            limit="2 pictures, better 50",
        )
    count = min(HELD_OUT_MOST, max(1, round(len(clean) / HELD_OUT_SHARE)))
    chosen = [clean[(2 * i + 1) * len(clean) // (2 * count)] for i in range(count)]
    return [name for picture in chosen for name in sorted(groups[picture])]


def _patch(files: Sequence[Path]) -> int:
    smallest = min(min(read_size(path)) for path in files)
    return max(SMALLEST_PATCH, min(USUAL_PATCH, smallest) // 2 * 2)


def _channels(files: Sequence[Path], teacher: str | None) -> int:
    if teacher is not None:
        from neurodeploy.networks.teachers import load_teacher
        from neurodeploy.zoo import teacher_spec

        return load_teacher(teacher_spec(teacher)).channels
    return max(int(read_image(path).shape[0]) for path in files[:8])
