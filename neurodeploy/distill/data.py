"""The pictures of a run: opening them, cropping them for quick scores, preparing patches ahead of the training."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from neurodeploy.distill.recipe import Pairs, Recipe
from neurodeploy.errors import InternalError, UserError
from neurodeploy.images.datasets import Builtin, CleanSet, DegradedFolder, PairedFolders, Sample
from neurodeploy.images.patches import PatchBatch, PatchSampler


def open_images(recipe: Recipe, source: str | Pairs, part: str) -> CleanSet | PairedFolders:
    """The pictures of a recipe's ``data.train`` or ``data.test``, or the two parts of ``data.train``.

    Raises:
        UserError: A folder cannot be used; ``data.held_out`` names a file that is not there, or leaves nothing.
    """
    if recipe.data.held_out:
        return _part(_open(recipe, recipe.data.train, "train"), recipe.data.held_out, held_out=part == "test")
    return _open(recipe, source, part)


def _part(
    images: CleanSet | PairedFolders, names: tuple[str, ...], *, held_out: bool
) -> DegradedFolder | PairedFolders:
    if not isinstance(images, DegradedFolder | PairedFolders):
        raise UserError("only files of a folder can be held out", node="data.held_out")
    missing = sorted(set(names) - set(images.names))
    if missing:
        raise UserError("holds names that are not in data.train", node="data.held_out", have=", ".join(missing))
    chosen = [(name in names) == held_out for name in images.names]
    if not any(chosen):
        raise UserError("leaves no picture to train on", node="data.held_out", have=f"{len(names)} names")
    if isinstance(images, PairedFolders):
        images.paths = [pair for pair, wanted in zip(images.paths, chosen, strict=True) if wanted]
    else:
        images.paths = [path for path, wanted in zip(images.paths, chosen, strict=True) if wanted]
    return images


def _open(recipe: Recipe, source: str | Pairs, part: str) -> CleanSet | PairedFolders:
    channels = recipe.student.channels
    if isinstance(source, Pairs):
        return PairedFolders(source.degraded, source.clean, channels)
    if recipe.degradation is None:
        raise UserError("clean pictures need a degradation", node="degradation")
    if source == "builtin":
        return Builtin("train" if part == "train" else "test", recipe.degradation, channels)
    return DegradedFolder(source, recipe.degradation, channels)


def centre_crop(sample: Sample, side: int) -> Sample:
    """The middle of a picture, ``side`` pixels at most each way."""
    _, height, width = sample.degraded.shape
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    part = np.s_[:, top : top + side, left : left + side]
    return replace(sample, degraded=sample.degraded[part], clean=clean_of(sample)[part])


def clean_of(sample: Sample) -> NDArray[np.float32]:
    """The clean original, which a held-out picture has to have."""
    if sample.clean is None:
        raise InternalError(f"{sample.name} has no clean original")
    return sample.clean


def prefetch(sampler: PatchSampler, first: int) -> Iterator[PatchBatch]:
    """Batches from step ``first`` on, two of them prepared ahead on a thread of their own."""
    with ThreadPoolExecutor(1, thread_name_prefix="patches") as pool:
        ahead: list[Future[PatchBatch]] = [pool.submit(sampler.batch, first + i) for i in range(2)]
        step = first + 2
        try:
            while True:
                batch = ahead.pop(0).result()
                ahead.append(pool.submit(sampler.batch, step))
                step += 1
                yield batch
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
