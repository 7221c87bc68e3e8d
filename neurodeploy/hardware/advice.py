"""What fits: the largest tile for some chips, what a picture of some size takes, what would have to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from neurodeploy.errors import UserError
from neurodeploy.hardware.placement import Placement, placement
from neurodeploy.hardware.plan import plan_chips
from neurodeploy.hardware.profile import Profile
from neurodeploy.hardware.shapes import Size
from neurodeploy.quantize.network import IntArray, IntegerConv, IntegerDense, IntegerLif, IntegerNetwork, IntegerNode

LARGEST_SIDE = 4096
"""No larger tile is looked for."""


def advice(
    net: IntegerNetwork,
    profile: Profile,
    size: Size,
    *,
    halo: int | None,
    target_size: Size | None = None,
    chips: int | None = None,
    rates: Mapping[str, float] | None = None,
) -> dict[str, Any] | None:
    """What fits on so many chips, as JSON values; None where the profile has nothing that would tell.

    Args:
        net: The integer network, compact.
        profile: The chip.
        size: (H, W) of the image that one run takes.
        halo: Pixels at every side of a tile that depend on what lies outside; None where the network has no tiles.
        target_size: (H, W) of the picture to restore; by default ``size``.
        chips: Chips that there are; by default 1.
        rates: Mean spikes a neuron and image by layer, for the traffic.

    Returns:
        ``plan`` and ``other_plans`` for one run at ``size``; ``largest_tile``: sides with weights shared and expanded;
        ``target``: chips to hold that picture at once, or how many tiles to run one after another; ``changes``: what
        makes one run at the target size fit, sentences, empty where it fits.
    """
    wanted, there = target_size or size, chips or 1
    placed = _placed(net, profile, wanted)
    if placed is None or placed.chips is None:
        return None
    one_run = placed if wanted == size else _placed(net, profile, size)
    plans = [] if one_run is None else plan_chips(net, one_run, profile, size, rates=rates)
    tiles = tuple(largest_tile(net, profile, there, end) for end in (0, 1))
    fits = placed.chips[0] <= there
    return {
        "chips": there,
        "size": list(size),
        "plan": plans[0].as_dict() if plans else None,
        "other_plans": [
            {"strategy": plan.strategy, "chips": plan.chips, "traffic_pairs": plan.pairs} for plan in plans[1:]
        ],
        "largest_tile": {
            "shared_weights": tiles[0],
            "expanded_weights": tiles[1],
            "halo": halo,
            "kept": None if tiles[0] is None or halo is None else max(0, tiles[0] - 2 * halo),
        },
        "target": {
            "size": list(wanted),
            "cores": None if placed.cores is None else list(placed.cores),
            "chips": list(placed.chips),
            "fits": fits,
            "tiles": None if tiles[0] is None or halo is None else tiles_for(wanted, tiles[0], halo),
        },
        "changes": [] if fits else changes(net, profile, wanted, there, tiles[0], halo),
        "assumptions": _assumptions(profile, placed),
    }


def largest_tile(net: IntegerNetwork, profile: Profile, chips: int, end: int = 0) -> int | None:
    """Side of the largest square image that one run on so many chips holds; None where none does.

    Args:
        net: The network.
        profile: The chip.
        chips: How many.
        end: 0 with weights shared, 1 with every synapse stored.
    """
    unit = net.host.unshuffle

    def fits(sides: int) -> bool:
        placed = _placed(net, profile, (sides * unit, sides * unit))
        return placed is not None and placed.chips is not None and placed.chips[end] <= chips

    best = _largest(fits, LARGEST_SIDE // unit, _smallest(net, profile))
    return None if best is None else best * unit


def tiles_for(size: Size, tile: int, halo: int) -> int | None:
    """Tiles that cover a picture with exact seams, overlapping by the halo; None where a tile is all halo."""
    count = 1
    for length in size:
        if tile < length:
            if tile <= 2 * halo:
                return None
            count *= -(-(length - 2 * halo) // (tile - 2 * halo))
    return count


def changes(
    net: IntegerNetwork, profile: Profile, size: Size, chips: int, tile: int | None, halo: int | None
) -> list[str]:
    """Ways to make one run at ``size`` fit, each a sentence; the network would have to be trained anew for some."""
    where = "one chip" if chips == 1 else f"{chips} chips"
    width = max((len(node.bias) for node in net.lifs()), default=0)
    levels = max((len(node.levels) for node in net.lifs()), default=1)

    def holds(other: IntegerNetwork, end: int = 0) -> bool:
        placed = _placed(other, profile, size)
        return placed is not None and placed.chips is not None and placed.chips[end] <= chips

    def shared(other: IntegerNetwork) -> str:
        return "" if holds(other, 1) else ", with weights shared,"

    said = []
    narrow = _largest(lambda channels: holds(narrowed(net, channels / width)), width - 1, 1) if width > 1 else None
    picture = f"{size[0]}x{size[1]}"
    if narrow is not None:
        how = shared(narrowed(net, narrow / width))
        many = f"{narrow} channel{'s' if narrow > 1 else ''}"
        said.append(f"T stays; {many} instead of {width} fit {where}{how} at {picture} (train anew)")
    fewer = _largest(lambda count: holds(with_levels(net, count)), levels - 1, 1) if levels > 1 else None
    if fewer is not None:
        how = shared(with_levels(net, fewer))
        many = f"{fewer} level{'s' if fewer > 1 else ''}"
        said.append(f"{many} instead of {levels} fit {where}{how} at {picture} (train anew)")
    if tile is not None and halo is not None:
        count = tiles_for(size, tile, halo)
        if count is not None:
            placed = _placed(net, profile, (tile, tile))
            kept = placed is not None and placed.chips is not None and placed.chips[1] <= chips
            how = f"fit {where}" if kept else f"fit {where}, with weights shared"
            said.append(f"tiles of {tile}x{tile} {how}: {count} of them, one after another, give {picture}")
        else:
            said.append(
                f"no tile helps: the largest that fits {where} is {tile}x{tile}, and {halo} pixels at every side"
            )
    return said


def narrowed(net: IntegerNetwork, share: float) -> IntegerNetwork:
    """A network of the same shape with that share of every hidden layer's channels, rounded up; weights are 0."""
    keep = {node.name: max(1, int(np.ceil(len(node.bias) * share - 1e-9))) for node in net.lifs()}
    return _reshaped(net, keep)


def with_levels(net: IntegerNetwork, levels: int) -> IntegerNetwork:
    """The same network with that many threshold populations at most."""
    nodes = {
        name: replace(node, levels=node.levels[:levels]) if isinstance(node, IntegerLif) else node
        for name, node in net.nodes.items()
    }
    return replace(net, nodes=nodes)


def _reshaped(net: IntegerNetwork, keep: Mapping[str, int]) -> IntegerNetwork:
    channels: dict[str, int] = {}
    nodes: dict[str, IntegerNode] = {}
    for name, node in net.nodes.items():
        before = [channels[source] for source in net.forward_sources(name)]
        if isinstance(node, IntegerConv) and node.groups == 1:
            wanted = {keep[target] for target in net.targets(name) if target in keep}
            out = wanted.pop() if len(wanted) == 1 else node.weight.shape[0]
            nodes[name] = replace(node, weight=_nothing((out, before[0], *node.weight.shape[2:])))
            channels[name] = out
        elif isinstance(node, IntegerLif):
            kept = keep[name]
            nodes[name] = replace(node, bias=node.bias[:kept], v_decay=_first(node.v_decay, kept),
                                  i_decay=_first(node.i_decay, kept))  # fmt: skip
            channels[name] = kept
        else:
            nodes[name] = node
            channels[name] = _channels(node, before)
    return replace(net, nodes=nodes)


def _channels(node: IntegerNode, before: list[int]) -> int:
    if isinstance(node, IntegerConv | IntegerDense):
        return int(node.weight.shape[0])
    channels: int | None = getattr(node, "channels", None)
    return channels if channels is not None else before[0] if before else 1


def _first(values: int | IntArray, kept: int) -> int | IntArray:
    return values if isinstance(values, int) else values[:kept]


def _nothing(shape: tuple[int, ...]) -> IntArray:
    return np.zeros(shape, np.int64)


def _placed(net: IntegerNetwork, profile: Profile, size: Size) -> Placement | None:
    try:
        return placement(net, profile, size)
    except UserError:
        return None


def _smallest(net: IntegerNetwork, profile: Profile) -> int:
    """The least side, in places of the network's grid, that goes through the network at all."""
    unit = net.host.unshuffle
    for sides in range(1, 65):
        if _placed(net, profile, (sides * unit, sides * unit)) is not None:
            return sides
    return LARGEST_SIDE


def _largest(fits: Callable[[int], bool], most: int, least: int) -> int | None:
    """The largest number from ``least`` to ``most`` that fits, given that what is smaller fits, too."""
    if least > most or not fits(least):
        return None
    low, high = least, min(2 * least, most)
    while high < most and fits(high):
        low, high = high, min(2 * high, most)
    while low < high:
        tried = (low + high + 1) // 2
        low, high = (tried, high) if fits(tried) else (low, tried - 1)
    return low


def _assumptions(profile: Profile, placed: Placement) -> list[str]:
    """What the estimate rests on without a public document."""
    said = ["the weights of a convolution are shared by the neurons of a layer (the lower figures)", placed.estimate]
    said += [f"{name} is not known in public: nothing is said about it" for name in placed.unknown]
    said += [f"{name} was set by whoever ran this" for name in profile.assumed]
    said += [
        f"{use.name} is known second-hand ({use.limit:,.0f})" for use in placed.limits if use.trust == "second-hand"
    ]
    return said
