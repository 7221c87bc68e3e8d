"""PSNR and SSIM against torchmetrics."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from neurodeploy.images.metrics import psnr, ssim

torch = pytest.importorskip("torch")
try:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the plotting libraries that it looks for
        from torchmetrics.functional import image as functional
except (ImportError, RuntimeError) as error:  # it imports torchvision, and one for another torch ends in RuntimeError
    pytest.skip(f"torchmetrics cannot be imported: {error}", allow_module_level=True)


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
