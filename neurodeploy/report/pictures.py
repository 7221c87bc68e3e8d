"""Restoring pictures, or running arrays, in the chip's integers: files in, files out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from neurodeploy.errors import UserError
from neurodeploy.files import writing_file, writing_folder
from neurodeploy.images.io import read_image, read_size, write_image
from neurodeploy.model import Model
from neurodeploy.report.arrays import are_arrays, read_codes
from neurodeploy.simulate.kernel.counts import SpikeCounts
from neurodeploy.simulate.observe import BoolArray, IntArray, Observer, Pair, Trace
from neurodeploy.simulate.restore import resolve_backend, restore, run_codes

SCHEMA_VERSION = 1

OnProgress = Callable[[int, int, str], None]


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

    def layer_counts(self, *, name: str, counts: SpikeCounts, origin: Pair, extent: Pair) -> None:
        """Adds the spikes of one layer and tile, all steps."""
        del origin, extent
        self.spikes[name] += sum(counts.spikes(step) for step in range(counts.steps))
        self.places[name] += counts.neurons * counts.steps

    def rows(self) -> list[dict[str, Any]]:
        """Layer, spikes, and the rate: spikes a neuron and step."""
        return [
            {"name": name, "spikes": count, "rate": count / self.places[name]} for name, count in self.spikes.items()
        ]


def simulate(
    model: Model,
    images: Sequence[str | Path],
    out: str | Path,
    *,
    backend: str = "auto",
    tile: int | None = None,
    trace: str | Path | None = None,
    force: bool = False,
    progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Restores picture files and writes the restored ones (8-bit PNG) into a folder; or runs arrays.

    Of an array, ``NAME.npz`` is written: ``output`` (C, h, w) int64, the sum over the time steps, and ``mean``, its
    mean over the time steps in units of the NIR graph.

    Args:
        model: A student, graph, ``.net`` or bundle.
        images: The degraded pictures, any size; or ``.npy`` files, see :func:`neurodeploy.report.arrays.read_codes`.
        out: The folder to write.
        backend: A simulator by name; all give the same integers. ``auto`` is the fastest that runs the network.
        tile: Side of the tiles of large pictures.
        trace: An ``.npz`` for everything that one picture does: ``codes``, and for every layer ``spikes/<layer>``,
            ``v/<layer>`` (T, D, C, h, w), ``u/<layer>`` and ``current/<layer>`` (T, C, h, w).
        force: Replace the folder and the trace.
        progress: Called after every picture.

    Raises:
        UserError: A picture cannot be read, two would be written to one name, the folder is in use.
    """
    paths = [Path(image) for image in images]
    if trace is not None and len(paths) != 1:
        raise UserError("a trace is of one picture", node="--trace", have=f"{len(paths)} pictures")
    arrays = are_arrays([str(path) for path in paths])
    names = _names(paths, ".npz" if arrays else ".png")
    for path in () if arrays else paths:
        read_size(path)  # what its header tells is told before the first picture runs
    net = model.integer()
    recorded = Trace(steps=net.host.steps) if trace is not None else None
    rows = []
    with ExitStack() as stack:
        kept = stack.enter_context(writing_file(trace, force=force)) if trace is not None else None
        folder = stack.enter_context(writing_folder(out, force=force))
        for place, path in enumerate(paths):
            tally = SpikeTally(recorded)
            run = _run_array if arrays else _run_picture
            (height, width), seconds = run(model, path, folder / names[place], backend, tile, tally)
            row = {"input": str(path), "output": str(Path(out) / names[place]), "height": height, "width": width}
            rows.append({**row, "seconds": round(seconds, 4), "layers": tally.rows()})
            if progress is not None:
                progress(place + 1, len(paths), path.name)
        if kept is not None and recorded is not None:
            _write_trace(kept, recorded)
    return {
        "schema_version": SCHEMA_VERSION,
        "model": {"name": model.name, "kind": model.kind},
        "arithmetic": net.arithmetic,
        "backend": resolve_backend(net, backend, observer=recorded),
        "T": net.host.steps,
        "out": str(out),
        "trace": None if trace is None else str(trace),
        "images": rows,
    }


def _run_picture(
    model: Model, path: Path, out: Path, backend: str, tile: int | None, observer: Observer
) -> tuple[Pair, float]:
    """Restores one picture; hands back its (H, W) and the seconds that it took."""
    degraded = read_image(path, channels=model.channels)
    start = time.perf_counter()
    restored = restore(model.integer(), degraded, tile=tile, backend=backend, observer=observer)
    seconds = time.perf_counter() - start
    write_image(out, restored)
    return (degraded.shape[1], degraded.shape[2]), seconds


def _run_array(
    model: Model, path: Path, out: Path, backend: str, _tile: int | None, observer: Observer
) -> tuple[Pair, float]:
    """Runs one array; hands back its (h, w) and the seconds that it took."""
    net = model.integer()
    codes = read_codes(path, net)
    start = time.perf_counter()
    total = run_codes(net, codes, backend=backend, observer=observer)
    seconds = time.perf_counter() - start
    unit = net.units.get(net.readout.name, 1.0)
    np.savez(out, output=total, mean=total * (unit / net.host.steps))
    return (codes.shape[-2], codes.shape[-1]), seconds


def _names(paths: Sequence[Path], suffix: str) -> list[str]:
    """A name for every result.

    Raises:
        UserError: Two inputs share one.
    """
    names = [f"{path.stem}{suffix}" for path in paths]
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
