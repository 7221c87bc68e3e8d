"""Restoring a picture: the host encodes, the integer network runs (in tiles if need be), the host decodes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerNetwork,
)
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.observe import BoolArray, CountObserver, IntArray, Observer, takes_counts

if TYPE_CHECKING:
    from neurodeploy.simulate.kernel.counts import Links, RunCounts

MEMORY = 1 << 29
"""Bytes of working memory above which a picture is cut into tiles by itself."""

SMALLEST_CORE = 32
"""Side, on the network's grid, below which tiles chosen by themselves do not go."""


class Backend(Protocol):
    """A simulator: the signature of :func:`neurodeploy.simulate.reference.run`."""

    def __call__(self, net: IntegerNetwork, codes: IntArray, *, observer: Observer | None = None) -> IntArray:
        """The readout's sum over all time steps, (C, h, w) int64."""


BACKENDS: dict[str, Backend] = {"auto": kernel.auto, "kernel": kernel.run, "reference": reference.run}
"""Simulators by name. Every one owes the very integers of the reference, and an observer the same spikes.

``auto`` is the kernel where it was compiled and holds the network, else the reference.
"""


def restore(
    net: IntegerNetwork,
    image: NDArray[np.floating[Any]],
    *,
    tile: int | None = None,
    backend: str = "auto",
    observer: Observer | None = None,
) -> NDArray[np.float64]:
    """Restores a picture with a network's integers.

    Args:
        net: The network; its layers keep the resolution of its input.
        image: (C, H, W) in [0, 1], any size.
        tile: Side in pixels of the square that a tile owns. None cuts only what would need more than 512 MiB. The
            result does not depend on it: a tile sees as much of its neighbourhood as the network can.
        backend: A key of :data:`BACKENDS`.
        observer: Is shown every owned neuron of every tile once a step.

    Returns:
        (C, H, W) float64, not clipped.

    Raises:
        UserError: The image does not fit the network, the backend is unknown or does not run the network, or the
            network cannot restore images.
    """
    if backend not in BACKENDS:
        raise UserError("unknown back end", node=backend, limit=", ".join(BACKENDS))
    check_image(net, image)
    codes = net.host.encode(image)
    chosen = resolve_backend(net, backend, codes=codes, observer=observer)
    needed = kernel.bytes_per_place(net) if chosen == "kernel" else bytes_per_place(net)
    core = core_side(net, (codes.shape[-2], codes.shape[-1]), tile=tile, needed=needed)
    total = run_tiled(net, codes, core=core, backend=BACKENDS[chosen], observer=observer)
    if total.shape != net.host.output_shape(codes):
        raise UserError(
            "does not restore images: its output has another shape than its input",
            node=net.readout.name,
            have=str(total.shape),
            limit=str(net.host.output_shape(codes)),
        )
    unit = net.units.get(net.readout.name, 1.0)
    return net.host.decode(total * (unit / net.host.steps), image)


def run_codes(
    net: IntegerNetwork, codes: IntArray, *, backend: str = "auto", observer: Observer | None = None
) -> IntArray:
    """Runs a network on codes, without the host's share.

    Args:
        net: The network.
        codes: (C, h, w), shown at every step, or (T, C, h, w), one a step.
        backend: A key of :data:`BACKENDS`.
        observer: Is shown every neuron once a step.

    Returns:
        (C, h', w') int64: the sum over all time steps of what reaches the readout.

    Raises:
        UserError: The codes do not fit the network, or the backend is unknown or does not run the network.
    """
    if backend not in BACKENDS:
        raise UserError("unknown back end", node=backend, limit=", ".join(BACKENDS))
    return BACKENDS[resolve_backend(net, backend, codes=codes, observer=observer)](net, codes, observer=observer)


def resolve_backend(
    net: IntegerNetwork, backend: str = "auto", *, codes: IntArray | None = None, observer: Observer | None = None
) -> str:
    """The key of :data:`BACKENDS` that really runs, for ``auto`` and for what the kernel leaves to the reference.

    Args:
        net: The network.
        backend: A key of :data:`BACKENDS`.
        codes: What it is to run on; without them a network is not refused for codes that are too large.
        observer: Who looks on. Currents and membranes come from the reference.
    """
    if backend not in ("auto", "kernel"):
        return backend
    declined = kernel.declines(net, codes) is not None
    if declined:
        return "reference" if backend == "auto" else backend
    return "kernel" if observer is None or takes_counts(observer) else "reference"


def check_image(net: IntegerNetwork, image: NDArray[Any]) -> None:
    """Raises a UserError for an image that the network's host side cannot encode."""
    if image.ndim != 3 or image.shape[0] != net.host.channels or 0 in image.shape:
        raise UserError(
            "the image does not fit the network",
            have=f"shape {image.shape}",
            limit=f"({net.host.channels}, H, W)",
            instead="convert the image, or take a network for its channels",
        )
    if not np.isfinite(image).all():
        raise UserError("the image holds values that are not finite")


def run_tiled(
    net: IntegerNetwork,
    codes: IntArray,
    *,
    core: int | None,
    backend: Backend = reference.run,
    observer: Observer | None = None,
) -> IntArray:
    """Runs a network over codes in tiles that own ``core`` x ``core`` places of the grid, or in one go for None.

    A tile is its core and a margin as wide as the receptive field, cut off at the true borders of the image. What the
    zero padding of convolutions spoils inside the image is margin, and is thrown away.

    Returns:
        (C, h, w) int64, bit for bit the result of one go.
    """
    if core is None or (core >= codes.shape[-2] and core >= codes.shape[-1]):
        return backend(net, codes, observer=observer)
    margin = receptive_radius(net)
    total: IntArray | None = None
    for tile in cut((codes.shape[-2], codes.shape[-1]), core, margin):
        out = run_tile(net, codes[(..., *tile.window)], tile, backend=backend, observer=observer)
        if total is None:
            total = np.zeros((out.shape[0], *tile.extent), np.int64)
        total[(..., *tile.core)] = out
    if total is None:
        raise UserError("the codes are empty", node=net.input.name, have=str(codes.shape))
    return total


def run_tile(
    net: IntegerNetwork, codes: IntArray, tile: Tile, *, backend: Backend, observer: Observer | None = None
) -> IntArray:
    """Runs one tile on what it sees of the codes; gives what it owns of the output."""
    cropped = None if observer is None else _OwnedOnly(observer, tile)
    return backend(net, codes, observer=cropped)[(..., *tile.owned)]


def receptive_radius(net: IntegerNetwork) -> int:
    """How many places of the grid away an input can change an output; feedback carries it further in every step.

    Raises:
        UserError: A node does not keep the resolution, so that the network does not run in tiles.
    """
    own: dict[str, int] = {}
    for name, node in net.nodes.items():
        if isinstance(node, IntegerDense | IntegerFlatten):
            raise UserError("mixes all places of the grid, so that the network does not run in tiles", node=name)
        own[name] = _conv_radius(node) if isinstance(node, IntegerConv) else 0
    before: dict[str, int] = {}
    for _ in range(net.host.steps if net.feedback else 1):
        radius: dict[str, int] = {}
        for name in net.nodes:
            arriving = [(before if (s, name) in net.feedback else radius).get(s, 0) for s in net.sources(name)]
            radius[name] = own[name] + max([*arriving, before.get(name, own[name]) - own[name]], default=0)
        before = radius
    return before[net.readout.name]


def _conv_radius(node: IntegerConv) -> int:
    radius = 0
    for axis in range(2):
        reach = node.dilation[axis] * (node.weight.shape[2 + axis] - 1)
        if node.stride[axis] != 1 or 2 * node.padding[axis] != reach:
            raise UserError(
                "does not keep the resolution, so that the network does not run in tiles",
                node=node.name,
                have=f"stride {node.stride}, padding {node.padding}",
                limit=f"stride (1, 1), padding {reach / 2:g}",
                instead="run the whole image in one go",
            )
        radius = max(radius, reach // 2)
    return radius


def core_side(
    net: IntegerNetwork,
    extent: tuple[int, int],
    *,
    tile: int | None = None,
    needed: int,
    at_once: int = 1,
    largest: int | None = None,
) -> int | None:
    """Side of a tile's core on the grid, or None for one go.

    Args:
        net: The network.
        extent: (h, w) of the grid.
        tile: Side in pixels that was asked for.
        needed: Bytes that a place of the grid takes.
        at_once: How many tiles are worked on at the same time, within :data:`MEMORY`.
        largest: Side of the grid beyond which a picture is cut even where memory would do, to be spread.

    Raises:
        UserError: The side that was asked for is too small.
    """
    if tile is not None:
        if tile < net.host.unshuffle:
            raise UserError("a tile needs a side of at least", have=str(tile), limit=f"{net.host.unshuffle} pixels")
        return tile // net.host.unshuffle
    fits = needed * extent[0] * extent[1] <= MEMORY // at_once
    if (fits and (largest is None or max(extent) <= largest)) or not _keeps_resolution(net):
        return None
    side = max(SMALLEST_CORE, int((MEMORY / at_once / max(needed, 1)) ** 0.5) - 2 * receptive_radius(net))
    side = side if largest is None else min(side, max(SMALLEST_CORE, largest))
    # as many tiles as that takes, all of about one size
    return max(-(-length // -(-length // side)) for length in extent)


def _keeps_resolution(net: IntegerNetwork) -> bool:
    try:
        receptive_radius(net)
    except UserError:
        return False
    return True


def bytes_per_place(net: IntegerNetwork) -> int:
    """Roughly what the reference holds for one place of the grid: states, outputs, and the largest layer's work."""
    states = [(1 + len(node.levels)) * len(node.bias) for node in net.lifs()]
    outputs = [len(node.weight) for node in net.nodes.values() if isinstance(node, IntegerConv)]
    remembered = sum(states) if net.host.steps > 1 else 0
    shown = net.host.steps * net.input.channels if net.host.ticks else 0
    return 8 * (shown + remembered + 2 * sum(outputs) + 4 * max(states, default=net.input.channels))


@dataclass(frozen=True)
class Tile:
    """One tile of a grid.

    Rows and columns of a tile: ``core`` is what it owns, ``window`` what it sees, both in the whole grid.
    """

    core: tuple[slice, slice]
    window: tuple[slice, slice]
    extent: tuple[int, int]

    @property
    def owned(self) -> tuple[slice, slice]:
        """The core inside the window."""
        first, second = (
            slice(core.start - window.start, core.stop - window.start)
            for core, window in zip(self.core, self.window, strict=True)
        )
        return first, second

    @property
    def origin(self) -> tuple[int, int]:
        """First row and column of the core."""
        return self.core[0].start, self.core[1].start


def cut(extent: tuple[int, int], core: int, margin: int) -> Iterator[Tile]:
    """The tiles that own squares of ``core`` places and see ``margin`` more on every side, row by row."""

    def cuts(length: int) -> list[tuple[slice, slice]]:
        return [
            (
                slice(start, min(start + core, length)),
                slice(max(0, start - margin), min(start + core + margin, length)),
            )
            for start in range(0, length, core)
        ]

    for row_core, row_window in cuts(extent[0]):
        for column_core, column_window in cuts(extent[1]):
            yield Tile((row_core, column_core), (row_window, column_window), extent)


@dataclass(frozen=True)
class _OwnedOnly:
    """Passes on to an observer only the neurons that a tile owns."""

    observer: Observer
    tile: Tile

    @property
    def takes_counts(self) -> bool:
        return takes_counts(self.observer)

    @property
    def owned(self) -> tuple[slice, slice]:
        return self.tile.owned

    @property
    def keeps_values(self) -> bool:
        return getattr(self.observer, "keeps_values", False)

    def links(self, *, size: tuple[int, int]) -> Mapping[str, Links]:
        del size
        links = getattr(self.observer, "links", None)
        rows, columns = self.tile.core
        shown = rows.stop - rows.start, columns.stop - columns.start
        return {} if links is None else links(size=shown, origin=self.tile.origin, extent=self.tile.extent)

    def run_counts(self, *, counts: RunCounts, origin: tuple[int, int], extent: tuple[int, int] | None) -> None:
        del origin, extent
        if isinstance(self.observer, CountObserver):
            self.observer.run_counts(counts=counts, origin=self.tile.origin, extent=self.tile.extent)

    def codes(self, *, codes: IntArray, origin: tuple[int, int], extent: tuple[int, int]) -> None:
        del origin, extent
        self.observer.codes(codes=codes[(..., *self.tile.owned)], origin=self.tile.origin, extent=self.tile.extent)

    def layer(
        self,
        *,
        step: int,
        name: str,
        current: IntArray,
        u: IntArray,
        v: IntArray,
        fired: BoolArray,
        origin: tuple[int, int],
        extent: tuple[int, int],
    ) -> None:
        del origin, extent
        owned = (..., *self.tile.owned)
        self.observer.layer(
            step=step,
            name=name,
            current=current[owned],
            u=u[owned],
            v=v[owned],
            fired=fired[owned],
            origin=self.tile.origin,
            extent=self.tile.extent,
        )
