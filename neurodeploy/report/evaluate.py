"""Restoring a set of pictures and scoring it."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.files import writing_folder
from neurodeploy.images.datasets import Builtin, CleanSet, DegradedFolder, PairedFolders, Sample
from neurodeploy.images.degradation_base import DegradationBase
from neurodeploy.images.degradations import parse_degradation
from neurodeploy.images.io import write_image
from neurodeploy.images.metrics import psnr, ssim
from neurodeploy.model.base import Arithmetic, Model, Restorer
from neurodeploy.simulate.spread import Pool, ahead, restore_timed

SCHEMA_VERSION = 1

ImageSet = CleanSet | PairedFolders

OnProgress = Callable[[int, int, str], None]
"""Called with (images done, images in all, name of the image just done)."""


def open_dataset(
    model: Model,
    *,
    data: str | None = None,
    pairs: tuple[str, str] | None = None,
    degradation: str | None = None,
    seed: int = 0,
) -> ImageSet:
    """The pictures that a model is scored on, with the channels that it restores.

    Args:
        model: Says how many channels, and (a student) what it was trained to undo.
        data: Folder of clean pictures that are degraded here; ``"builtin"``: the photographs that scikit-image ships.
        pairs: Folders (degraded, clean) whose files match by name.
        degradation: For ``data``, for example ``"gaussian:25"``; by default what the model was trained for.
        seed: Of the degradation, drawn anew for each image.

    Raises:
        UserError: Neither or both of ``data`` and ``pairs``, no degradation is known, or the folders are not usable.
    """
    if (data is None) == (pairs is None):
        raise UserError("give the pictures as --data DIR or as --pairs DEGRADED CLEAN, one of the two")
    channels = model.channels
    if pairs is not None:
        if degradation is not None:
            raise UserError("pairs are degraded already", node="--degradation", instead="leave it out")
        return PairedFolders(*pairs, channels)
    chosen = trained_degradation(model) if degradation is None else parse_degradation(degradation)
    if chosen is None:
        raise UserError(
            "what is to be undone is not known",
            node=model.name,
            instead="say it, for example --degradation gaussian:25",
        )
    if data == "builtin":
        return Builtin("test", chosen, channels, seed)
    return DegradedFolder(str(data), chosen, channels, seed)


def trained_degradation(model: Model) -> DegradationBase | None:
    """What a student's file says that it was trained to undo; None where nothing is said."""
    described = model.facts.meta.get("degradation")
    return None if described is None else parse_degradation(described)


def evaluate(
    model: Model,
    dataset: ImageSet,
    *,
    arithmetic: Arithmetic | None = None,
    noise_level: float | None = None,
    limit: int | None = None,
    tile: int | None = None,
    device: str = "cpu",
    save: str | Path | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
    pool: Pool | None = None,
) -> dict[str, Any]:
    """Restores every picture of a set and scores it: output clipped to [0, 1], rounded to 8 bits, all pixels.

    Args:
        model: Any model that restores.
        dataset: Degraded pictures with their clean originals.
        arithmetic: ``"fixed"`` (the chip's integers) or ``"float"``; by default what the model is meant to run in.
        noise_level: sigma / 255 for networks that have to be told; by default what the set says.
        limit: Score the first so many pictures only.
        tile: Side of the tiles of large pictures.
        device: Where torch computes, if it is used.
        save: Folder for the restored pictures (8-bit PNG).
        force: Replace that folder.
        progress: Called after every picture.
        pool: Where pictures run, in the chip's integers; None: here, one after another.

    Returns:
        ``psnr_db, ssim, input_psnr_db, images[], parameters, arithmetic, T`` and how they were measured. For RGB also
        ``psnr_y_db, input_psnr_y_db`` on the Y channel of BT.601.

    Raises:
        UserError: The set is empty or a picture has no clean original; the model cannot run; ``save`` is in use.
    """
    count = len(dataset) if limit is None else min(limit, len(dataset))
    if count < 1:
        raise UserError("there is no picture to score")
    chosen = arithmetic or model.default_arithmetic
    if pool is not None and chosen != "fixed":
        raise UserError("only the chip's integers are spread over machines", node="--scheduler", have=chosen)
    samples = (dataset[i] for i in range(count))
    if pool is None:
        restored = _here(samples, model.restorer(chosen, tile=tile, device=device), noise_level)
    else:
        tasks = ((sample, (sample.degraded, tile)) for sample in samples)
        restored = ((sample, *found) for sample, found in ahead(pool, restore_timed, model.integer(), tasks))
    names = _file_names([dataset.names[i] for i in range(count)])
    rows = []
    with writing_folder(save, force=force) if save is not None else nullcontext() as folder:
        for i, (sample, image, seconds) in enumerate(restored):
            rows.append(_score(sample, image, seconds))
            if folder is not None:
                write_image(folder / names[i], image)
            if progress is not None:
                progress(i + 1, count, sample.name)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": model.name, "kind": model.kind, "task": model.facts.task or None},
        **_means(rows),
        "arithmetic": chosen,
        "T": model.steps,
        "parameters": model.parameters,
        "protocol": _protocol(model, dataset),
        "images": rows,
        "saved": None if save is None else str(save),
    }


Restored = tuple[Sample, NDArray[np.float64], float]
"""A sample, what became of it, and the seconds that it took."""


def _here(samples: Iterable[Sample], restorer: Restorer, noise_level: float | None) -> Iterator[Restored]:
    for sample in samples:
        _clean(sample)
        start = time.perf_counter()
        level = sample.noise_level if noise_level is None else noise_level
        restored = restorer(sample.degraded, level or None)
        yield sample, restored, time.perf_counter() - start


def _clean(sample: Sample) -> NDArray[np.float32]:
    if sample.clean is None:
        raise UserError("has no clean original to be scored against", node=sample.name)
    return sample.clean


def _score(sample: Sample, restored: NDArray[np.float64], seconds: float) -> dict[str, Any]:
    """The row of one picture."""
    clean = _clean(sample)
    row: dict[str, Any] = {
        "name": sample.name,
        "height": int(clean.shape[1]),
        "width": int(clean.shape[2]),
        "psnr_db": psnr(restored, clean),
        "ssim": ssim(restored, clean),
        "input_psnr_db": psnr(sample.degraded, clean),
        "input_ssim": ssim(sample.degraded, clean),
    }
    if clean.shape[0] == 3:
        row["psnr_y_db"] = psnr(restored, clean, y_channel=True)
        row["input_psnr_y_db"] = psnr(sample.degraded, clean, y_channel=True)
    row["seconds"] = round(seconds, 4)
    return row


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float]:
    keys = [key for key in rows[0] if key.endswith(("psnr_db", "ssim", "psnr_y_db"))]
    return {key: float(np.mean([row[key] for row in rows])) for key in keys}


def _protocol(model: Model, dataset: ImageSet) -> dict[str, Any]:
    """How the numbers were measured: the first thing that a reader of PSNRs looks for."""
    return {
        "degradation": dataset.describe(),
        "data_range": "0..255, output clipped and rounded to 8 bits",
        "channel": "RGB" if model.channels == 3 else "gray",
        "border": "none cut",
    }


def _file_names(names: Sequence[str]) -> list[str]:
    """A PNG name for every picture; the old suffix stays where two would share a name."""
    stems = Counter(Path(name).stem for name in names)
    return [f"{Path(name).stem if stems[Path(name).stem] == 1 else Path(name).name}.png" for name in names]
