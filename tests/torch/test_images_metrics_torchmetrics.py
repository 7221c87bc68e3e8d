"""PSNR and SSIM against torchmetrics."""

from __future__ import annotations

import importlib
import importlib.machinery
import importlib.util
import sys
import warnings
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from neurodeploy.images.metrics import psnr, ssim

torch = pytest.importorskip("torch")
if importlib.util.find_spec("torchmetrics") is None:
    pytest.skip("torchmetrics is not installed: it comes with the dev extra", allow_module_level=True)


STAND_INS = ("torchvision", "torchvision.transforms", "torchvision.models", "torchvision.models.feature_extraction")


def _functional() -> Any:
    """torchmetrics' functions.

    It imports torchvision for metrics that are not used here, and a torchvision that was built for another torch ends
    in a RuntimeError; an empty one stands in for it.
    """
    for name in STAND_INS:
        sys.modules[name] = MagicMock(__path__=[], __spec__=importlib.machinery.ModuleSpec(name, None))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the plotting libraries that it looks for
            return importlib.import_module("torchmetrics.functional.image")
    finally:
        for name in STAND_INS:
            del sys.modules[name]


functional = _functional()


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", [0.02, 0.1, 0.5])
def test_against_torchmetrics(channels: int, noise: float) -> None:
    rng = np.random.RandomState(1)
    clean = np.rint(255 * rng.rand(channels, 9, 9)).repeat(5, axis=1).repeat(6, axis=2) / 255
    restored = np.rint(255 * np.clip(clean + noise * rng.randn(*clean.shape), 0, 1)) / 255
    a, b = (torch.from_numpy(image)[None] for image in (restored, clean))
    assert psnr(restored, clean) == pytest.approx(
        functional.peak_signal_noise_ratio(a, b, data_range=1.0).item(), abs=1e-4
    )
    # Its own mean counts the reflected border too; ours, as the authors', only where the window lies inside.
    _, similarity = functional.structural_similarity_index_measure(
        a, b, sigma=1.5, kernel_size=11, data_range=1.0, return_full_image=True
    )
    assert ssim(restored, clean) == pytest.approx(similarity[..., 5:-5, 5:-5].mean().item(), abs=1e-9)
