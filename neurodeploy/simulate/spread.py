"""Many pictures and large ones at once: tiles spread over cores, or over the machines of a cluster.

The unit of work is a tile, a pure function of the network and of what the tile sees of the codes. Where it runs, and in
which order tiles come back, changes no value: every tile owns its part of the output alone, and spikes are sums.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.simulate import kernel
from neurodeploy.simulate.kernel.counts import RunCounts
from neurodeploy.simulate.kernel.library import default_threads
from neurodeploy.simulate.observe import BoolArray, IntArray, Observer, Pair
from neurodeploy.simulate.restore import (
    BACKENDS,
    Backend,
    Tile,
    bytes_per_place,
    check_image,
    core_side,
    cut,
    receptive_radius,
    resolve_backend,
    restore,
    run_tile,
)

TILE = 384
"""Side of a tile's core on the grid when a picture is spread: small enough for a few tiles a core, large enough that
the margins cost little."""

BYTES_A_PIXEL = 56
"""What a picture takes while it is restored, a pixel and channel: image, codes, sums and the restored image."""


class SpikeTally:
    """An observer that counts the spikes of every layer, and hands everything on to another one."""

    def __init__(self, then: Observer | None = None) -> None:
        self.spikes: Counter[str] = Counter()
        self.places: Counter[str] = Counter()
        self.then = then

    def codes(self, *, codes: IntArray, origin: Pair, extent: Pair) -> None:
        """Only hands on."""
        if self.then is not None:
            self.then.codes(codes=codes, origin=origin, extent=extent)

    def layer(
        self,
        *,
        step: int,
        name: str,
        current: IntArray,
        u: IntArray,
        v: IntArray,
        fired: BoolArray,
        origin: Pair,
        extent: Pair,
    ) -> None:
        """Adds the spikes of one layer, step and tile."""
        self.spikes[name] += int(np.count_nonzero(fired))
        self.places[name] += fired.size
        if self.then is not None:
            self.then.layer(step=step, name=name, current=current, u=u, v=v, fired=fired, origin=origin, extent=extent)

    @property
    def takes_counts(self) -> bool:
        """Unless another one wants to see everything."""
        return self.then is None

    def run_counts(self, *, counts: RunCounts, origin: Pair, extent: Pair | None) -> None:
        """Adds the spikes of all layers of a tile, all steps."""
        del origin, extent
        for name, layer in counts.layers.items():
            self.spikes[name] += sum(layer.spikes(step) for step in range(layer.steps))
            self.places[name] += layer.neurons * layer.steps

    def add(self, piece: Piece) -> None:
        """Adds the spikes of a tile that ran elsewhere."""
        self.spikes.update(piece.spikes)
        self.places.update(piece.places)

    def rows(self) -> list[dict[str, Any]]:
        """Layer, spikes, and the rate: spikes a neuron and step."""
        return [
            {"name": name, "spikes": count, "rate": count / self.places[name]} for name, count in self.spikes.items()
        ]


@dataclass(frozen=True)
class Piece:
    """What a tile gives: its part of the output (C, h, w) int64, and spikes and neuron steps by layer."""

    output: IntArray
    spikes: dict[str, int] = field(default_factory=dict)
    places: dict[str, int] = field(default_factory=dict)


def run_piece(net: IntegerNetwork, codes: NDArray[Any], tile: Tile, backend: str, threads: int | None) -> Piece:
    """Runs one tile: what a core, or a machine of a cluster, is given to do.

    Args:
        net: The network.
        codes: What the tile sees, (C, h, w), integers.
        tile: Where it lies.
        backend: A key of :data:`BACKENDS`.
        threads: Of the kernel; None: as many as the machine has.
    """
    tally = SpikeTally()
    run: Backend = partial(kernel.run, threads=threads) if backend == "kernel" else BACKENDS[backend]
    output = run_tile(net, codes.astype(np.int64, copy=False), tile, backend=run, observer=tally)
    return Piece(np.ascontiguousarray(output), dict(tally.spikes), dict(tally.places))


class Pool(Protocol):
    """Where tiles and pictures are worked on."""

    @property
    def workers(self) -> int:
        """How many of them at once."""

    @property
    def local(self) -> bool:
        """Whether that is this process, which shares its memory and its cores."""

    def submit(self, function: Callable[..., Any], net: IntegerNetwork, *arguments: Any) -> Future[Any]:
        """Has ``function(net, *arguments)`` called; the result has ``result()`` and ``cancel()``."""


class Cores:
    """The cores of this process."""

    local = True

    def __init__(self, workers: int | None = None) -> None:
        self.workers = workers or default_threads()
        self._threads = ThreadPoolExecutor(self.workers, thread_name_prefix="tile")

    def submit(self, function: Callable[..., Any], net: IntegerNetwork, *arguments: Any) -> Future[Any]:
        """Runs it on one of the threads."""
        return self._threads.submit(function, net, *arguments)

    def close(self) -> None:
        """Waits for nothing: what has not begun is dropped."""
        self._threads.shutdown(wait=True, cancel_futures=True)


def grid(net: IntegerNetwork, size: Pair) -> Pair:
    """(h, w) of the network's grid for an image of ``size`` (H, W)."""
    factor = net.host.unshuffle
    return -(-size[0] // factor), -(-size[1] // factor)


def tiles_of(net: IntegerNetwork, size: Pair, pool: Pool, *, tile: int | None, backend: str) -> list[Tile]:
    """The tiles that a picture of ``size`` (H, W) is worked on in; one that is all of it where that is enough."""
    extent = grid(net, size)
    needed = kernel.bytes_per_place(net) if backend == "kernel" else bytes_per_place(net)
    largest = TILE if pool.workers > 1 else None
    core = core_side(net, extent, tile=tile, needed=needed, at_once=pool.workers, largest=largest)
    if core is None or core >= max(extent):
        whole = (slice(0, extent[0]), slice(0, extent[1]))
        return [Tile(whole, whole, extent)]
    return list(cut(extent, core, receptive_radius(net)))


def restore_spread(
    net: IntegerNetwork,
    image: NDArray[np.floating[Any]],
    pool: Pool,
    *,
    tile: int | None = None,
    backend: str = "auto",
    alone: bool = True,
    tally: SpikeTally | None = None,
    progress: Callable[[], None] | None = None,
) -> NDArray[np.float64]:
    """Restores a picture as :func:`neurodeploy.simulate.restore.restore` does, its tiles spread over a pool.

    Args:
        net: The network.
        image: (C, H, W) in [0, 1], any size.
        pool: Where the tiles run.
        tile: Side of the tiles in pixels; None chooses.
        backend: A key of :data:`neurodeploy.simulate.restore.BACKENDS`.
        alone: Whether no other picture is worked on at the same time, so that a picture of one tile may take all cores.
        tally: Gets the spikes.
        progress: Called after every tile.

    Returns:
        (C, H, W) float64, not clipped; the same values wherever the tiles ran.

    Raises:
        UserError: As for ``restore``.
    """
    if backend not in BACKENDS:
        raise UserError("unknown back end", node=backend, limit=", ".join(BACKENDS))
    check_image(net, image)
    codes = net.host.encode(image)
    chosen = resolve_backend(net, backend, codes=codes, observer=SpikeTally())
    size = (image.shape[1], image.shape[2])
    tiles = tiles_of(net, size, pool, tile=tile, backend=chosen)
    threads = None if pool.local and alone and len(tiles) == 1 else 1
    total = np.zeros(net.host.output_shape(codes), np.int64)
    waiting: deque[tuple[Tile, Future[Any]]] = deque()
    left = iter(tiles)
    try:
        while True:
            # a few more than there are workers: nobody waits, and little lies about
            while len(waiting) < 2 * pool.workers and (now := next(left, None)) is not None:
                seen = codes[(..., *now.window)]
                # fewer bytes on the wire
                seen = seen if pool.local else seen.astype(np.int32)
                waiting.append((now, pool.submit(run_piece, net, seen, now, chosen, threads)))
            if not waiting:
                break
            place, future = waiting.popleft()
            piece: Piece = future.result()
            _put(net, total, place, piece.output)
            if tally is not None:
                tally.add(piece)
            if progress is not None:
                progress()
    finally:
        for _, future in waiting:
            future.cancel()
    unit = net.units.get(net.readout.name, 1.0)
    return net.host.decode(total * (unit / net.host.steps), image)


def _put(net: IntegerNetwork, total: IntArray, tile: Tile, output: IntArray) -> None:
    window = total[(..., *tile.core)]
    if output.shape != window.shape:
        raise UserError(
            "does not restore images: its output has another shape than its input",
            node=net.readout.name,
            have=str(output.shape),
            limit=str(window.shape),
        )
    window[...] = output


def ahead(
    pool: Pool, function: Callable[..., Any], net: IntegerNetwork, items: Iterable[tuple[Any, tuple[Any, ...]]]
) -> Iterator[tuple[Any, Any]]:
    """(item, ``function(net, *arguments)``) for every (item, arguments), in order, a few of them on their way.

    Args:
        pool: Where the function runs.
        function: A function of a module, so that it can be sent.
        net: Its first argument.
        items: Read only as fast as results are taken.
    """
    left = iter(items)
    waiting: deque[tuple[Any, Future[Any]]] = deque()
    try:
        while True:
            while len(waiting) < 2 * pool.workers and (now := next(left, None)) is not None:
                item, arguments = now
                waiting.append((item, pool.submit(function, net, *arguments)))
            if not waiting:
                return
            item, future = waiting.popleft()
            yield item, future.result()
    finally:
        for _, future in waiting:
            future.cancel()


def restore_timed(
    net: IntegerNetwork, image: NDArray[np.floating[Any]], tile: int | None
) -> tuple[NDArray[np.float64], float]:
    """A restored picture, and the seconds that it took where it ran."""
    start = time.perf_counter()
    restored = restore(net, image.astype(np.float32), tile=tile)
    return restored, time.perf_counter() - start


class Memory:
    """A bound on the bytes that pictures take at once: who would go beyond it waits until others are done."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._used = 0
        self._changed = threading.Condition()

    def take(self, needed: int) -> None:
        """Waits for so many bytes. What is larger than the whole bound waits to be alone, and then goes beyond it."""
        with self._changed:
            self._changed.wait_for(lambda: self._used == 0 or self._used + needed <= self.limit)
            self._used += needed

    def give(self, needed: int) -> None:
        """Hands back what was taken."""
        with self._changed:
            self._used -= needed
            self._changed.notify_all()


def picture_bytes(net: IntegerNetwork, size: Pair) -> int:
    """Roughly what a picture takes beside the working memory of its tiles."""
    return BYTES_A_PIXEL * net.host.channels * size[0] * size[1]
