"""PSNR and SSIM against scikit-image, and against what can be computed by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from neurodeploy.errors import UserError
from neurodeploy.images.datasets import PairedFolders
from neurodeploy.images.io import list_images, read_image
from neurodeploy.images.metrics import luma, psnr, ssim, to_8bit
from tests.shared import shared_data

RNG = np.random.RandomState(3)


def pair(channels: int, height: int = 30, width: int = 24, noise: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    clean = np.add.outer(np.sin(np.arange(height) / 5), np.cos(np.arange(width) / 4))[None] / 4 + 0.5
    clean = np.repeat(clean, channels, axis=0) * np.linspace(0.7, 1, channels)[:, None, None]
    return (clean + noise * RNG.randn(*clean.shape)).astype(np.float32), clean.astype(np.float32)


def as_8bit(image: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(image.astype(np.float64), 0, 1)).astype(np.uint8)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("noise", [0.01, 0.1, 0.6])
def test_against_scikit_image(channels: int, noise: float) -> None:
    metrics = pytest.importorskip("skimage.metrics")
    restored, clean = pair(channels, noise=noise)
    a, b = as_8bit(restored), as_8bit(clean)
    assert psnr(restored, clean) == pytest.approx(metrics.peak_signal_noise_ratio(b, a, data_range=255), abs=1e-9)
    expected = metrics.structural_similarity(
        a.astype(float),
        b.astype(float),
        gaussian_weights=True,
        sigma=1.5,
        use_sample_covariance=False,
        data_range=255,
        channel_axis=0,
    )
    assert ssim(restored, clean) == pytest.approx(expected, abs=1e-9)


def test_y_channel_against_scikit_image() -> None:
    color = pytest.importorskip("skimage.color")
    metrics = pytest.importorskip("skimage.metrics")
    restored, clean = pair(3)
    a, b = (color.rgb2ycbcr(as_8bit(image).transpose(1, 2, 0))[..., 0] for image in (restored, clean))
    np.testing.assert_allclose(luma(to_8bit(restored))[0], a, atol=1e-9)
    assert psnr(restored, clean, y_channel=True) == pytest.approx(
        metrics.peak_signal_noise_ratio(b, a, data_range=255), abs=1e-9
    )
    expected = metrics.structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255
    )
    assert ssim(restored, clean, y_channel=True) == pytest.approx(expected, abs=1e-9)


def test_luma_of_black_white_and_gray() -> None:
    assert luma(np.zeros((3, 1, 1), np.uint8)).item() == pytest.approx(16)
    assert luma(np.full((3, 1, 1), 255, np.uint8)).item() == pytest.approx(235)
    assert luma(np.full((1, 1, 1), 255, np.uint8)).item() == 255


def test_psnr_by_hand() -> None:
    clean = np.zeros((1, 2, 2), np.float32)
    restored = clean.copy()
    restored[0, 0, 0] = 10 / 255
    assert psnr(restored, clean) == pytest.approx(10 * math.log10(255**2 / 25))


def test_equal_pictures() -> None:
    _, clean = pair(3)
    assert psnr(clean, clean) == math.inf
    assert ssim(clean, clean) == pytest.approx(1.0)
    assert psnr(clean + 0.4 / 255, as_8bit(clean) / np.float32(255)) > 48


def test_output_is_clipped_and_rounded() -> None:
    assert to_8bit(np.array([[[-1.0, 0.0, 0.4 / 255, 0.6 / 255, 1.0, 9.0]]])).tolist() == [[[0, 0, 0, 1, 255, 255]]]
    clean = np.ones((1, 12, 12), np.float32)
    assert psnr(clean * 3, clean) == math.inf


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), channels=st.sampled_from([1, 3]))
def test_symmetry_and_bounds(seed: int, channels: int) -> None:
    rng = np.random.RandomState(seed)
    a, b = rng.rand(2, channels, 12, 15)
    assert psnr(a, b) == psnr(b, a) > 0
    assert ssim(a, b) == pytest.approx(ssim(b, a))
    assert -1 <= ssim(a, b) <= 1
    # One row of pixels counts as much as any other: no border is cut.
    assert psnr(a[:, ::-1], b[:, ::-1]) == pytest.approx(psnr(a, b))


@pytest.mark.parametrize(
    ("restored", "word"),
    [
        (np.zeros((1, 12, 13)), "differ in shape"),
        (np.full((1, 12, 12), np.nan), "not finite"),
        (np.zeros((1, 12, 12), np.uint8), "floating"),
    ],
)
def test_what_cannot_be_measured(restored: np.ndarray, word: str) -> None:
    with pytest.raises(UserError, match=word):
        psnr(restored, np.zeros((1, 12, 12)))


def test_pictures_smaller_than_the_window() -> None:
    small = np.zeros((1, 10, 40))
    with pytest.raises(UserError, match="window of SSIM"):
        ssim(small, small)
    assert psnr(small, small) == math.inf
    assert ssim(np.zeros((1, 11, 11)), np.zeros((1, 11, 11))) == 1


def test_noisy_set12_has_the_published_psnr() -> None:
    """Noise of sigma 25 leaves 20.17 dB unclipped by theory; rounding and clipping the input gives a little more."""
    measured, plain = [], []
    for path in list_images(shared_data("set12")):
        clean = read_image(path)
        noise = 25 / 255 * np.random.RandomState(0).randn(*clean.shape[1:])
        measured.append(psnr((clean + noise[None]).astype(np.float32), clean))
        levels = np.asarray(Image.open(path)).astype(np.float64)
        noisy = levels + 25 * np.random.RandomState(0).randn(*levels.shape)
        plain.append(10 * math.log10(255**2 / np.mean((np.rint(np.clip(noisy, 0, 255)) - levels) ** 2)))
        unclipped = 10 * math.log10(255**2 / np.mean((noisy - levels) ** 2))
        assert unclipped == pytest.approx(20.17, abs=0.05)
    np.testing.assert_allclose(measured, plain, atol=2e-3)
    assert np.mean(measured) == pytest.approx(20.3, abs=0.15)


@pytest.mark.parametrize(("name", "luma_db"), [("rain100l_8", 29.90), ("rain100h_8", 14.54)])
def test_rainy_pictures_have_the_luma_psnr_measured_elsewhere(name: str, luma_db: float) -> None:
    pairs = PairedFolders(shared_data(f"{name}/rain"), shared_data(f"{name}/norain"), 3)
    measured = [psnr(sample.degraded, sample.clean, y_channel=True) for sample in pairs if sample.clean is not None]
    assert len(measured) == 8 and np.mean(measured) == pytest.approx(luma_db, abs=0.005)
