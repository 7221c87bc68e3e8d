"""The largest codes with which a layer's sums and registers stay where the kernel and the chip have them."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import numpy as np

from neurodeploy.quantize.bounds import CONV_MAX, CURRENT_MAX
from neurodeploy.simulate.kernel.refuse import CODE_MAX

if TYPE_CHECKING:
    from neurodeploy.simulate.kernel.plan import LayerPlan

MEMBRANE_MAX = (1 << 23) - 1
"""Of the register v, of either sign."""

REGISTER_MAX = 1 << 30
"""Bound of the register u before its wrap-around: with a shifted bias and a membrane it fits 32 bits."""


def code_max(layer: LayerPlan, steps: int) -> int:
    """Largest magnitude of a code for which a layer's sums and registers stay inside their bounds; negative: none."""
    limit = CONV_MAX
    if layer.u_remembers:
        limit = min(limit, (REGISTER_MAX // steps) >> 6)
    codes, counts = layer.weight_bound
    if counts > limit:
        return -1
    return (limit - counts) // codes if codes else CODE_MAX


def wraps_from(layer: LayerPlan, steps: int) -> int:
    """The largest magnitude of a code from which on u may leave its 24 bits; beyond all codes for never."""
    least = CURRENT_MAX // (steps if layer.u_remembers else 1) + 1  # of the current's bound
    codes, counts = layer.weight_bound
    if counts >= least:
        return 0
    return -((counts - least) // codes) if codes else CODE_MAX + 1


def clips_from(layer: LayerPlan, steps: int) -> int:
    """The largest magnitude of a code from which on a membrane may leave its 24 bits; beyond all codes for never.

    A step keeps ``keep / 4096`` of it and adds a current and a bias, so that ``|v| <= (current + bias) * sum_k
    (keep / 4096)^k``; a reset only makes it smaller.
    """
    if layer.v_keep is None or layer.bias is None:
        return 0
    keep = Fraction(int(layer.v_keep.max()), 4096)
    reach = sum((keep**step for step in range(steps)), Fraction(0))
    bias = int(np.abs(layer.bias.astype(np.int64)).max())
    most = MEMBRANE_MAX / reach - bias  # that the current may be
    codes, counts = layer.weight_bound
    if counts << 6 > most:
        return 0
    return int((most / 64 - counts) // codes) + 1 if codes else CODE_MAX + 1
