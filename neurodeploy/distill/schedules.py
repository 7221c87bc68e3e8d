"""Schedules: the learning rate and the weight of the hints."""

from __future__ import annotations

import math


def gamma_at(progress: float, *, gamma: float, schedule: str, end: float, until: float) -> float:
    """Weight of the feature loss at ``progress`` (0..1 of the float stage).

    From ``gamma`` at 0 to ``gamma * end`` at ``until`` (linear or half a cosine), and 0 from there on.
    """
    if progress >= until:
        return 0.0
    if schedule == "constant":
        return gamma
    place = progress / until
    share = 1 - place if schedule == "linear" else 0.5 * (1 + math.cos(math.pi * place))
    return gamma * (end + (1 - end) * share)


def lr_at(step: int, *, total: int, peak: float, end: float, warmup: int) -> float:
    """Learning rate: linear warm-up over ``warmup`` steps (a tenth of the run at most), then half a cosine."""
    warmup = min(warmup, max(1, total // 10))
    if step < warmup:
        return peak * (step + 1) / warmup
    place = (step - warmup) / max(1, total - warmup)
    return end + (peak - end) * 0.5 * (1 + math.cos(math.pi * min(1.0, place)))
