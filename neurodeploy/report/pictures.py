"""Restoring pictures in the chip's integers: files in, files out."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.files import writing_file, writing_folder
from neurodeploy.images.io import write_image
from neurodeploy.images.sequences import Picture, find_pictures
from neurodeploy.model.base import Model
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.report.arrays import are_arrays, read_codes
from neurodeploy.report.resume import Record
from neurodeploy.simulate.observe import Pair, Trace
from neurodeploy.simulate.restore import resolve_backend, restore, run_codes
from neurodeploy.simulate.spread import Cores, Memory, Pool, SpikeTally, picture_bytes, restore_spread, tiles_of

SCHEMA_VERSION = 1

MEMORY = 1 << 29
"""Bytes that pictures may take at once by themselves, beside the working memory of their tiles."""

ELSEWHERE = ("norse", "lava")
"""Simulators of others, whose results are compared with the integers."""

OnProgress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class How:
    """How pictures are worked on; no value that comes out depends on it.

    Attributes:
        backend: A simulator by name; all give the same integers. ``auto`` is the fastest that runs the network.
        tile: Side of the tiles of large pictures; None chooses.
        jobs: Pictures at once; None: as many as there are cores or machines.
        memory: Bytes that pictures may take at once.
        pool: Where tiles run; None: on the cores of this machine.
    """

    backend: str = "auto"
    tile: int | None = None
    jobs: int | None = None
    memory: int = MEMORY
    pool: Pool | None = None


def simulate(
    model: Model,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    how: How | None = None,
    trace: str | Path | None = None,
    resume: bool = False,
    force: bool = False,
    progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Restores pictures and writes the restored ones (8-bit PNG) into a folder; or runs arrays.

    Of an array, ``NAME.npz`` is written: ``output`` (C, h, w) int64, the sum over the time steps, and ``mean``, its
    mean over the time steps in units of the NIR graph.

    Args:
        model: A student, graph, ``.net`` or bundle.
        images: Files of degraded pictures of any size, folders of them, and files of several pages, whose pages
            become pictures of their own; or ``.npy`` files, see :func:`neurodeploy.report.arrays.read_codes`.
        out: The folder to write.
        how: On how many cores or machines, within how much memory.
        trace: An ``.npz`` for everything that one picture does: ``codes``, and for every layer ``spikes/<layer>``,
            ``v/<layer>`` (T, D, C, h, w), ``u/<layer>`` and ``current/<layer>`` (T, C, h, w).
        resume: Write picture by picture into the folder, with a record, and leave out what is done already. Otherwise
            the folder takes its place when all is whole.
        force: Replace the folder and the trace.
        progress: Called after every tile with (tiles done, tiles in all, name of the picture).

    Raises:
        UserError: A picture cannot be read, two would be written to one name, the folder is in use.
    """
    chosen = how or How()
    arrays = are_arrays([str(image) for image in images])
    pictures = [] if arrays else find_pictures(images)
    count = len(images) if arrays else len(pictures)
    if trace is not None and count != 1:
        raise UserError("a trace is of one picture", node="--trace", have=f"{count} pictures")
    if resume and (trace is not None or arrays):
        raise UserError("only pictures without a trace are gone on with", node="--resume", instead="leave it out")
    if chosen.backend in ELSEWHERE and (arrays or resume or trace is not None or chosen.pool is not None):
        raise UserError(
            "simulators of others restore pictures, here and in one go",
            node=f"--backend {chosen.backend}",
            instead="leave --trace, --resume and --scheduler out",
        )
    names = _names([f"{Path(image).stem}.npz" for image in images] if arrays else [f"{p.stem}.png" for p in pictures])
    net = model.integer()
    recorded = Trace(steps=net.host.steps) if trace is not None else None
    with ExitStack() as stack:
        kept = stack.enter_context(writing_file(trace, force=force)) if trace is not None else None
        record = Record(Path(out), net) if resume else None
        folder = record.folder if record is not None else stack.enter_context(writing_folder(out, force=force))
        if arrays:
            rows = []
            for place, (image, name) in enumerate(zip(images, names, strict=True)):
                rows.append(_array(net, Path(image), folder / name, chosen, SpikeTally(recorded)))
                if progress is not None:
                    progress(place + 1, count, Path(image).name)
        elif chosen.backend in ELSEWHERE:
            rows = _elsewhere(net, pictures, [folder / name for name in names], chosen, progress)
        elif recorded is not None:
            rows = [_traced(net, pictures[0], folder / names[0], recorded, chosen, progress)]
        else:
            with _pool(chosen) as pool:
                rows = _Run(net, pool, chosen, folder, record, progress).all(pictures, names)
        if kept is not None and recorded is not None:
            _write_trace(kept, recorded)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": model.name, "kind": model.kind},
        "arithmetic": net.arithmetic,
        "backend": chosen.backend
        if chosen.backend in ELSEWHERE
        else resolve_backend(net, chosen.backend, observer=recorded),
        "ok": all(_as_promised(row.get("comparison")) for row in rows),
        "T": net.host.steps,
        "out": str(out),
        "trace": None if trace is None else str(trace),
        "resumed": sum(row["resumed"] for row in rows),
        "images": [{**row, "output": str(Path(out) / name)} for row, name in zip(rows, names, strict=True)],
    }


def _as_promised(comparison: dict[str, Any] | None) -> bool:
    return comparison is None or bool(comparison["equal"]) or not comparison["promised"]


@contextmanager
def _pool(how: How) -> Iterator[Pool]:
    if how.pool is not None:
        yield how.pool
        return
    cores = Cores()
    try:
        yield cores
    finally:
        cores.close()


class _Run:
    """Pictures that run at once, and how far they are."""

    def __init__(
        self,
        net: IntegerNetwork,
        pool: Pool,
        how: How,
        folder: Path,
        record: Record | None,
        progress: OnProgress | None,
    ) -> None:
        self.net, self.pool, self.how, self.folder, self.record = net, pool, how, folder, record
        self.progress = progress
        self.channels = _channels(net)
        self.memory = Memory(how.memory)
        self.backend = resolve_backend(net, how.backend, observer=SpikeTally())
        self.done = self.total = 0
        self.alone = True
        self._lock = threading.Lock()

    def all(self, pictures: Sequence[Picture], names: Sequence[str]) -> list[dict[str, Any]]:
        """The rows of all pictures, in their order."""
        before = {
            place: {**row, "resumed": True}
            for place, (picture, name) in enumerate(zip(pictures, names, strict=True))
            if self.record is not None and (row := self.record.done(name, picture.path)) is not None
        }
        left = [place for place in range(len(pictures)) if place not in before]
        self.total = sum(self._tiles(picture) for picture in pictures)
        self.done = sum(self._tiles(pictures[place]) for place in before)
        self.alone = len(left) == 1
        futures: dict[int, Future[dict[str, Any]]] = {}
        with ThreadPoolExecutor(self.how.jobs or max(2, self.pool.workers), thread_name_prefix="picture") as threads:
            try:
                for place in left:
                    needed = picture_bytes(self.net, pictures[place].size)
                    self.memory.take(needed)
                    _raise_first(futures)
                    # read here, in order: files of several pages are read from the front
                    degraded = pictures[place].read(self.channels)
                    futures[place] = threads.submit(self._one, pictures[place], degraded, names[place], needed)
                    del degraded
                rows = {place: future.result() for place, future in futures.items()}
            except BaseException:
                threads.shutdown(wait=True, cancel_futures=True)
                raise
        return [rows[place] if place in rows else before[place] for place in range(len(pictures))]

    def _tiles(self, picture: Picture) -> int:
        return len(tiles_of(self.net, picture.size, self.pool, tile=self.how.tile, backend=self.backend))

    def _one(self, picture: Picture, degraded: NDArray[np.float32], name: str, needed: int) -> dict[str, Any]:
        try:
            tally = SpikeTally()
            start = time.perf_counter()
            restored = restore_spread(
                self.net,
                degraded,
                self.pool,
                tile=self.how.tile,
                backend=self.how.backend,
                alone=self.alone,
                tally=tally,
                progress=lambda: self._step(picture),
            )
            seconds = time.perf_counter() - start
            write_image(self.folder / name, restored, force=self.record is not None)
            row = _row(picture.label, picture.size, seconds, tally)
            if self.record is not None:
                with self._lock:
                    self.record.add(name, picture.path, row)
            return row
        finally:
            self.memory.give(needed)

    def _step(self, picture: Picture) -> None:
        with self._lock:
            self.done += 1
            if self.progress is not None:
                self.progress(self.done, self.total, Path(picture.label).name)


def _raise_first(futures: dict[int, Future[dict[str, Any]]]) -> None:
    """Ends the run at the first picture that failed, before more are read."""
    for future in futures.values():
        if future.done() and future.exception() is not None:
            future.result()


def _channels(net: IntegerNetwork) -> Literal[1, 3]:
    if net.host.channels not in (1, 3):
        raise UserError(
            "takes arrays, not pictures", node=net.input.name, have=f"{net.host.channels} channels", limit="1 or 3"
        )
    return 1 if net.host.channels == 1 else 3


def _row(label: str, size: Pair, seconds: float, tally: SpikeTally) -> dict[str, Any]:
    return {
        "input": label,
        "height": size[0],
        "width": size[1],
        "seconds": round(seconds, 4),
        "resumed": False,
        "layers": tally.rows(),
    }


def _traced(
    net: IntegerNetwork, picture: Picture, path: Path, trace: Trace, how: How, progress: OnProgress | None
) -> dict[str, Any]:
    """One picture, of which everything is kept."""
    degraded = picture.read(_channels(net))
    tally = SpikeTally(trace)
    start = time.perf_counter()
    restored = restore(net, degraded, tile=how.tile, backend=how.backend, observer=tally)
    seconds = time.perf_counter() - start
    write_image(path, restored)
    if progress is not None:
        progress(1, 1, Path(picture.label).name)
    return _row(picture.label, picture.size, seconds, tally)


def _elsewhere(
    net: IntegerNetwork, pictures: Sequence[Picture], paths: Sequence[Path], how: How, progress: OnProgress | None
) -> list[dict[str, Any]]:
    """Pictures in a simulator of others; each row has the ``comparison`` with the integers."""
    from neurodeploy.report.elsewhere import restore_elsewhere

    images = [picture.read(_channels(net)) for picture in pictures]
    rows = []
    for picture, path, found in zip(pictures, paths, restore_elsewhere(net, images, how.backend), strict=True):
        write_image(path, found.restored)
        tally = SpikeTally()
        for name, seen in found.spikes.items():
            tally.spikes[name], tally.places[name] = int(seen.sum()), seen.size
        rows.append(_row(picture.label, picture.size, found.seconds, tally) | {"comparison": found.comparison})
        if progress is not None:
            progress(len(rows), len(pictures), Path(picture.label).name)
    return rows


def _array(net: IntegerNetwork, path: Path, out: Path, how: How, tally: SpikeTally) -> dict[str, Any]:
    """Runs one array."""
    codes = read_codes(path, net)
    start = time.perf_counter()
    total = run_codes(net, codes, backend=how.backend, observer=tally)
    seconds = time.perf_counter() - start
    unit = net.units.get(net.readout.name, 1.0)
    np.savez(out, output=total, mean=total * (unit / net.host.steps))
    return _row(str(path), (codes.shape[-2], codes.shape[-1]), seconds, tally)


def _names(names: list[str]) -> list[str]:
    """The names of what is written.

    Raises:
        UserError: Two are the same.
    """
    for name, count in Counter(names).items():
        if count > 1:
            raise UserError("two pictures would be written to one name", node=name, instead="restore them in two runs")
    return names


def _write_trace(path: Path, trace: Trace) -> None:
    arrays = {} if trace.input is None else {"codes": trace.input}
    for name, layer in trace.layers.items():
        arrays |= {
            f"spikes/{name}": layer.fired.astype(np.uint8),
            f"v/{name}": layer.v.astype(np.int32),
            f"u/{name}": layer.u.astype(np.int32),
            f"current/{name}": layer.current.astype(np.int32),
        }
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
