"""How far each constant moves the sum: the tornado of a profile.

A price that is quoted with a range moves over that range. One that is quoted as a single number moves by half up and
down, as in the sensitivity study of Yan et al. (arXiv:2409.08290), and is marked as such.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from neurodeploy.energy.charges import Charge

SWING = 0.5
"""Half up and down, where no range is quoted."""
SHOWN = 10
"""So many constants at most; the rest moves the sum less."""


def tornado(charged: Sequence[Charge]) -> list[dict[str, Any]]:
    """What the sum becomes when one constant moves and the others stay, the widest swing first.

    Args:
        charged: Charges with a price. Those of one term and group (the memories of a model) move together.

    Returns:
        ``term, label, low_pj, high_pj, base_pj, quoted`` for each: the sums at the low and the high end.
    """
    base = sum(_energy(charge) for charge in charged)
    rows = [_swing(same, base) for same in _together(charged)]
    return sorted(rows, key=lambda row: row["low_pj"] - row["high_pj"])[:SHOWN]


def _together(charged: Sequence[Charge]) -> Iterator[list[Charge]]:
    groups: dict[tuple[str, str], list[Charge]] = {}
    for charge in charged:
        groups.setdefault((charge.term, charge.group), []).append(charge)
    yield from groups.values()


def _swing(same: Sequence[Charge], base: float) -> dict[str, Any]:
    ends = [_ends(charge) for charge in same]
    here = sum(_energy(charge) for charge in same)
    low = base - here + sum(low for low, _, _ in ends)
    high = base - here + sum(high for _, high, _ in ends)
    first = same[0]
    label = first.label if len(same) == 1 else f"{first.group} ({first.term})"
    return {
        "term": first.term,
        "label": label,
        "low_pj": low,
        "high_pj": high,
        "base_pj": base,
        "quoted": all(quoted for _, _, quoted in ends),
    }


def _ends(charge: Charge) -> tuple[float, float, bool]:
    """Energy of a charge at both ends of its price, and whether they are quoted."""
    if charge.price is None:
        return 0.0, 0.0, True
    scale, value = charge.mean * charge.share, charge.price.picojoules
    low, high = charge.price.interval_picojoules
    quoted = charge.price.low is not None or charge.price.high is not None
    if not quoted:
        return scale * value * (1 - SWING), scale * value * (1 + SWING), False
    return scale * low, scale * (high if high is not None else value * (1 + SWING)), True


def _energy(charge: Charge) -> float:
    return charge.mean * charge.share * charge.price.picojoules if charge.price is not None else 0.0
