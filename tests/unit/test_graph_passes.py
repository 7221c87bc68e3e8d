"""Folding batch norm: the folded layer computes what layer and norm did."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neurodeploy.errors import UserError
from neurodeploy.graph.passes import fold_batch_norm


@given(st.integers(0, 10_000), st.booleans(), st.booleans(), st.booleans())
def test_the_folded_layer_equals_layer_and_norm(seed: int, biased: bool, scaled: bool, shifted: bool) -> None:
    rng = np.random.default_rng(seed)
    weight, x = rng.standard_normal((3, 2, 1, 1)), rng.standard_normal((2, 5))
    bias = rng.standard_normal(3) if biased else None
    gamma, beta = (rng.standard_normal(3) if wanted else None for wanted in (scaled, shifted))
    mean, var = rng.standard_normal(3), rng.random(3)
    before = weight[:, :, 0, 0] @ x + (0 if bias is None else bias[:, None])
    normed = (before - mean[:, None]) / np.sqrt(var[:, None] + 1e-5)
    expected = normed * (1 if gamma is None else gamma[:, None]) + (0 if beta is None else beta[:, None])
    folded_weight, folded_bias = fold_batch_norm(weight, bias, mean, var, gamma, beta, 1e-5)
    assert folded_weight.dtype == folded_bias.dtype == np.float32
    found = folded_weight[:, :, 0, 0].astype(np.float64) @ x + folded_bias[:, None]
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_statistics_that_do_not_fit_are_refused() -> None:
    weight, three = np.ones((3, 1, 1, 1)), np.ones(3)
    with pytest.raises(UserError, match="var does not fit"):
        fold_batch_norm(weight, None, three, np.ones(2), None, None, 1e-5)
    with pytest.raises(UserError, match="must be positive"):
        fold_batch_norm(weight, None, three, -three, None, None, 1e-5)
