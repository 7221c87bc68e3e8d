"""Where the network would stand on the chips of a report: the estimate, the plan over several chips, what would fit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from neurodeploy.energy.results import Counts
from neurodeploy.errors import UserError
from neurodeploy.hardware.advice import advice
from neurodeploy.hardware.placement import placement
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.shapes import Size
from neurodeploy.targets.bundle import halo_of


def placements(
    counts: Counts,
    profiles: Sequence[Profile],
    size: Size,
    *,
    target_size: Size | None = None,
    chips: int | None = None,
) -> dict[str, dict[str, Any]]:
    """For every chip whose capacity is known: ``placement`` and ``advice``, by profile.

    Args:
        counts: What the runs did; their spike rates tell the traffic between chips.
        profiles: The profiles of the report; technologies and processors are left out.
        size: (H, W) of the image that one run takes.
        target_size: (H, W) of the picture to restore; by default ``size``.
        chips: Chips that there are.
    """
    rates = {layer.name: layer.rate * counts.steps for layer in counts.layers}
    found = {}
    for profile in profiles:
        if profile.model != "chip":
            continue
        try:
            placed = placement(counts.net, profile, size)
            said = advice(
                counts.net,
                profile,
                size,
                halo=halo_of(counts.net),
                target_size=target_size,
                chips=chips,
                rates=rates,
            )
        except UserError:  # a network that does not expand, or an image that does not go through, has no placement
            continue
        if placed.chips is not None or placed.cores is not None:
            found[profile.id] = {"placement": placed.as_dict(), "advice": said}
    return found


def chips_of(placed: Mapping[str, Any], profile: Profile) -> int | None:
    """The lower number of chips of a placement, if it has one."""
    entry = placed.get(profile.id)
    chips = None if entry is None else entry["placement"]["chips"]
    return None if chips is None else int(chips[0])
