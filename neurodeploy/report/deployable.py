"""From a model to what a target works on: the network at one image size, and the picture that proves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.images.io import read_image
from neurodeploy.model.base import Model
from neurodeploy.model.coded import CodedModel
from neurodeploy.model.integer import IntegerModel
from neurodeploy.report.evaluate import trained_degradation
from neurodeploy.targets.base import Deployable

DEFAULT_SIZE = (64, 64)
"""Image that one run on the chip takes unless the user or the picture says otherwise."""


def deployable(
    model: Model, *, size: tuple[int, int] | None = None, image: str | Path | None = None, seed: int = 0
) -> Deployable:
    """What ``check`` and ``export`` work on.

    Args:
        model: A student, graph, ``.net`` or bundle.
        size: (H, W) of the image that one run takes; by default that of ``image``, of the model's file, or 64x64.
        image: A clean picture; its centre, degraded as the student was trained for, makes the proof (and calibrates a
            student that is not quantised yet). None: a synthetic image.
        seed: Of the degradation.

    Raises:
        UserError: The model has no spikes, or the picture is smaller than ``size``.
    """
    picture = None if image is None else _proof_picture(model, Path(image), size, seed)
    chosen = size or (model.size or DEFAULT_SIZE if picture is None else (picture.shape[1], picture.shape[2]))
    network = model.integer() if isinstance(model, IntegerModel) else model.network(chosen)
    codes = None if picture is None else [network.host.encode(picture)]
    return Deployable(
        name=model.name,
        network=network,
        size=chosen,
        image=picture,
        calibration=codes,
        about=_about(model),
        noticed=model.noticed if isinstance(model, CodedModel) else (),
    )


def _proof_picture(model: Model, path: Path, size: tuple[int, int] | None, seed: int) -> NDArray[np.float32]:
    clean = read_image(path, channels=model.channels)
    if size is not None:
        height, width = clean.shape[1:]
        if height < size[0] or width < size[1]:
            raise UserError(
                "is smaller than the image that one run takes",
                node=str(path),
                have=f"{height}x{width}",
                limit=f"{size[0]}x{size[1]}",
            )
        top, left = (height - size[0]) // 2, (width - size[1]) // 2
        clean = clean[:, top : top + size[0], left : left + size[1]]
    degradation = trained_degradation(model)
    if degradation is None:
        return clean
    degraded, _ = degradation.apply(clean, np.random.RandomState(seed))
    return degraded.astype(np.float32)


def _about(model: Model) -> dict[str, Any]:
    """What the manifest says of the model beside its numbers."""
    kept = ("task", "degradation", "teacher", "held_out_psnr_db", "recipe_sha256", "neurodeploy")
    about = {key: model.facts.meta[key] for key in kept if model.facts.meta.get(key) is not None}
    return {**({"task": model.facts.task} if model.facts.task else {}), **about}
