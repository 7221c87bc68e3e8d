"""Losses between pictures, against the plain formulas in numpy."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs the train extra")

from neurodeploy.distill.losses import pixel_loss  # noqa: E402
from neurodeploy.images.metrics import psnr  # noqa: E402

RESTORED, CLEAN = np.random.default_rng(0).random((2, 5, 3, 8, 9), dtype=np.float32)
CLEAN[1] = RESTORED[1] + 0.01  # a patch with far less error than the others
DIFFERENCE = (RESTORED - CLEAN).astype(np.float64)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("l1", np.abs(DIFFERENCE).mean()),
        ("mse", (DIFFERENCE**2).mean()),
        ("charbonnier", np.sqrt(DIFFERENCE**2 + 1e-6).mean()),
        ("rmse", np.mean([np.sqrt((patch**2).mean()) for patch in DIFFERENCE])),
        ("psnr", -np.mean([psnr(one, other) for one, other in zip(RESTORED, CLEAN, strict=True)]) / 100),
    ],
)
def test_pixel_loss_is_its_formula(kind: str, expected: float) -> None:
    got = pixel_loss(kind, torch.from_numpy(RESTORED), torch.from_numpy(CLEAN))
    assert float(got) == pytest.approx(expected, rel=3e-3)


@pytest.mark.parametrize("kind", ["rmse", "psnr"])
def test_a_perfect_patch_has_a_finite_gradient(kind: str) -> None:
    restored = torch.from_numpy(CLEAN.copy()).requires_grad_()
    pixel_loss(kind, restored, torch.from_numpy(CLEAN)).backward()
    assert restored.grad is not None
    assert torch.isfinite(restored.grad).all()
