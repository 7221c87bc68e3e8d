"""Running a network with the kernel: buffers, one call a layer, and what observers are shown."""

from __future__ import annotations

import ctypes
import weakref
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.simulate import reference
from neurodeploy.simulate.kernel.buffers import POOL, Buffer, Pair, slack
from neurodeploy.simulate.kernel.counts import SpikeCounts
from neurodeploy.simulate.kernel.library import (
    GROUPS,
    Layer,
    Term,
    default_threads,
    library,
    missing,
)
from neurodeploy.simulate.kernel.pack import aligned, rounded
from neurodeploy.simulate.kernel.plan import LayerPlan, Plan, TermPlan, make_plan, may_wrap
from neurodeploy.simulate.kernel.refuse import is_sized, refusal
from neurodeploy.simulate.observe import CountObserver, IntArray, Observer, WindowObserver, takes_counts

Form = Literal["auto", "dense", "events"]

EVENT_RATE = {"plain": 1.1, "avx2": 0.25, "avx512": 0.04, "vbmi2": 0.19, "amx": 0.035}
"""Spike rate of a source below which the event form of a layer is the faster one, by instruction path. Measured."""

EVENT_RATE.update({"neon": 0.25, "dotprod": 0.12, "i8mm": 0.06})
# These are guesses: an instruction of avx2 does as many products as additions of events, as one of neon does; one of
# dotprod does twice as many, one of i8mm four times.

EVENT_CHANNELS = {"amx": 64}
"""Channels of a source below which the event form never is. Measured."""

WORK_PER_THREAD = 1 << 21
"""Multiply-accumulates of a layer for which another thread is worth while; some tens of microseconds."""

_PLANS: dict[int, dict[tuple[str, Pair | None], Plan | str]] = {}
"""Plans by the identity of their network, for as long as it lives: by path, and by size where they depend on it."""


def plan_for(net: IntegerNetwork, path: str, size: Pair) -> Plan | str:
    """The plan of a network for an input of a size (rows, columns), made once, or why there is none."""
    known = _known(net)
    key = path, size if is_sized(net) else None
    if key not in known:
        known[key] = _refusal(net) or make_plan(net, path, size)
    return known[key]


def _known(net: IntegerNetwork) -> dict[tuple[str, Pair | None], Plan | str]:
    known = _PLANS.get(id(net))
    if known is None:
        known = _PLANS[id(net)] = {}
        weakref.finalize(net, _PLANS.pop, id(net), None)
    return known


def _refusal(net: IntegerNetwork) -> str | None:
    """As :func:`refusal`, looked for once."""
    known, key = _known(net), ("", None)
    if key not in known:
        known[key] = refusal(net) or ""
    return str(known[key]) or None


def declines(net: IntegerNetwork, codes: IntArray | None = None) -> str | None:
    """Why the kernel does not run a network (on these codes); None where it does."""
    reason = missing() or _refusal(net)
    if reason is not None or codes is None:
        return reason
    plan = plan_for(net, library().paths[-1], (codes.shape[-2], codes.shape[-1]))
    return plan if isinstance(plan, str) else _declines_codes(plan, codes)


def _declines_codes(plan: Plan, codes: IntArray) -> str | None:
    largest = _largest(codes)
    if largest > plan.code_max:
        return f"codes up to {largest}, where sums are proved to fit only up to {plan.code_max}"
    found = _extents(plan, (codes.shape[-2], codes.shape[-1]))
    return found if isinstance(found, str) else None


def run(
    net: IntegerNetwork,
    codes: IntArray,
    *,
    observer: Observer | None = None,
    path: str | None = None,
    threads: int | None = None,
    form: Form = "auto",
) -> IntArray:
    """Runs a network as :func:`neurodeploy.simulate.reference.run` does, bit for bit.

    An observer that wants currents and membranes gets them from the reference: the kernel never holds them all.

    Args:
        net: The network.
        codes: (C, h, w), shown at every step, or (T, C, h, w), one a step.
        observer: Is shown the codes and every spiking layer.
        path: Instruction path; by default the fastest that the machine has.
        threads: By default ``OMP_NUM_THREADS``, or the cores of this process.
        form: ``events`` adds weights for spikes wherever they are binary, ``dense`` multiplies everywhere; ``auto``
            takes, for every layer and step, what the spike rate of its source makes the faster one.

    Returns:
        (C, h', w') int64: the sum over all time steps of the current into the readout plus its bias.

    Raises:
        UserError: There is no kernel, it does not run this network, or the codes do not fit the network.
    """
    paths = library().paths
    chosen = path or paths[-1]
    if chosen not in paths:
        raise UserError("this machine has no such instruction path", node=chosen, limit=", ".join(paths))
    reference.check_codes(net, codes)
    plan = plan_for(net, chosen, (codes.shape[-2], codes.shape[-1]))
    reason = plan if isinstance(plan, str) else _declines_codes(plan, codes)
    if isinstance(plan, str) or reason is not None:
        raise UserError(
            f"the kernel does not run this network: {reason}",
            node="kernel",
            instead="take the reference simulator, which gives the same integers, slower",
        )
    if observer is not None and not takes_counts(observer):
        return reference.run(net, codes, observer=observer)
    total = _Run(plan, codes, observer, threads or default_threads(), form).total()
    return total + net.readout.bias.reshape(-1, 1, 1) * plan.steps


def auto(net: IntegerNetwork, codes: IntArray, *, observer: Observer | None = None) -> IntArray:
    """Runs a network with the kernel where there is one and it holds the network, else with the reference."""
    reference.check_codes(net, codes)
    if (observer is not None and not takes_counts(observer)) or declines(net, codes) is not None:
        return reference.run(net, codes, observer=observer)
    return run(net, codes, observer=observer)


def bytes_per_place(net: IntegerNetwork) -> int:
    """Roughly the bytes that the kernel holds for one place of the grid."""
    if is_sized(net):  # it is never cut into tiles
        return sum(net.host.steps * rounded(len(lif.bias)) for lif in net.lifs())
    plan = plan_for(net, library().paths[-1], (0, 0))
    if isinstance(plan, str):
        return 0
    ends = {layer.name: place for place, layer in enumerate(plan.layers)}
    sizes = {layer.name: plan.steps * layer.padded for layer in plan.layers}
    live = [
        sum(size for name, size in sizes.items() if ends[name] <= place <= plan.last_use.get(name, ends[name]))
        for place in range(len(plan.layers))
    ]
    # codes in 64 and in 16 bits, the readout in 32 and in 64
    return max(live) + 10 * net.input.channels + 4 * plan.layers[-1].padded + 8 * plan.layers[-1].channels


def _largest(codes: IntArray) -> int:
    return max(int(codes.max()), -int(codes.min()))


def _extents(plan: Plan, size: Pair) -> dict[str, Pair] | str:
    """Rows and columns of every layer, or why its sources do not fit together."""
    found: dict[str, Pair] = {}
    for layer in plan.layers:
        shapes = set()
        for term in layer.terms:
            shapes.add(term.outputs(found.get(term.source, size)))
        if len(shapes) != 1 or min(min(shape) for shape in shapes) < 1:
            return f"{layer.name}: convolutions of other sizes than one another, or larger than the image"
        found[layer.name] = shapes.pop()
    return found


class _Run:
    """One run: the buffers, and the layers in turn."""

    def __init__(self, plan: Plan, codes: IntArray, observer: CountObserver | None, threads: int, form: Form) -> None:
        self.plan, self.observer, self.threads, self.form = plan, observer, threads, form
        self.largest = _largest(codes)
        self.size = codes.shape[-2], codes.shape[-1]
        self.codes = codes if codes.ndim == 4 else codes[None]
        self.live: dict[str, Buffer] = {}
        self.sparse: dict[str, NDArray[np.uint8]] = {}
        """For every binary source, (T,): whether its spikes are few enough for the event form."""
        self.by_channel = np.empty((0, 0), np.uint32)
        """Of the last layer that was counted; the next one of its shape writes over them."""
        self.window = observer.owned if isinstance(observer, WindowObserver) else None
        if observer is not None:
            observer.codes(codes=codes, origin=(0, 0), extent=self.size)

    def total(self) -> IntArray:
        """The readout's sum without its bias, (C, h, w)."""
        extents = _extents(self.plan, self.size)
        if isinstance(extents, str):
            raise UserError(extents)
        for place, layer in enumerate(self.plan.layers):
            for term in layer.terms:
                if term.source not in self.live:
                    self.live[term.source] = self._codes_buffer(term)
            if layer.levels:
                self._spiking(layer, extents[layer.name])
            else:
                rows, columns = extents[layer.name]
                sums = POOL.take_sums((rows, columns, layer.padded))
                self._run(self._call(layer, sums.address(0, 0), (0, sums.array.strides[1]), extents[layer.name]))
            self._release(place)
        found: IntArray = sums.array[0, :, :, : layer.channels].transpose(2, 0, 1).astype(np.int64, order="C")
        POOL.give(sums)
        return found

    def _codes_buffer(self, term: TermPlan) -> Buffer:
        steps, channels, rows, columns = self.codes.shape
        halo = self.plan.halo[term.source]
        shape = (steps, rows + 2 * halo[0], columns + 2 * halo[1], channels + channels % 2)
        space = slack(2 * shape[3], self.plan.strides[term.source])
        buffer = Buffer(aligned(shape, np.int16, slack=space), halo)
        buffer.inside[..., :channels] = self.codes.transpose(0, 2, 3, 1)
        return buffer

    def _spiking(self, layer: LayerPlan, extent: Pair) -> None:
        halo = self.plan.halo.get(layer.name, (0, 0))
        shape = (self.plan.steps, extent[0] + 2 * halo[0], extent[1] + 2 * halo[1], layer.padded)
        buffer = POOL.take(shape, halo, self.plan.strides.get(layer.name, 1))
        call = self._call(layer, buffer.address(*halo), buffer.array.strides[:2], extent)
        spikes = np.zeros((self.plan.steps, extent[0]), np.uint32)
        masks = buffer.masks if layer.name in self.plan.binary and self._may_list(layer.channels) else None
        if masks is not None:
            call.spikes = spikes.ctypes.data
            call.masks = buffer.mask_address(*halo)
            call.mask_step, call.mask_row = masks.strides[:2]
        self.live[layer.name] = buffer
        if self.observer is None:
            self._run(call)
        else:
            self._run_counted(layer, call, buffer, self.observer)
        if masks is None:
            return
        few = EVENT_RATE[self.plan.path] * extent[0] * extent[1] * layer.channels
        sparse = spikes.sum(axis=1) < few if self.form == "auto" else np.ones(self.plan.steps)
        self.sparse[layer.name] = sparse.astype(np.uint8)

    def _may_list(self, channels: int) -> bool:
        """Whether the event form is ever taken for a source."""
        least = EVENT_CHANNELS.get(self.plan.path, 0)
        return self.form == "events" or (self.form == "auto" and channels >= least)

    def _run_counted(self, layer: LayerPlan, call: Layer, buffer: Buffer, observer: CountObserver) -> None:
        """Runs a layer, sums up its spikes over what the observer wants to see of it, and shows it them."""
        rows, columns = extent = buffer.extent
        window = self.window or (slice(0, rows), slice(0, columns))
        steps = self.plan.steps
        if self.by_channel.shape != (rows, layer.padded):
            self.by_channel = np.empty((rows, layer.padded), np.uint32)
        by_row, ever = np.empty((steps, rows), np.uint64), np.empty(rows, np.uint64)
        marks = np.empty((steps, rows, -(-columns // 8)), np.uint8)
        call.by_channel, call.by_row = self.by_channel.ctypes.data, by_row.ctypes.data
        call.ever, call.marks = ever.ctypes.data, marks.ctypes.data
        call.first_row, call.end_row = window[0].start, window[0].stop
        call.first_column, call.end_column = window[1].start, window[1].stop
        self._run(call)
        counts = SpikeCounts(
            values=buffer.inside[(slice(None), *window)],
            channels=layer.channels,
            levels=layer.levels,
            by_channel=self.by_channel[window[0]],
            by_row=by_row[:, window[0]],
            ever=ever[window[0]],
            marks=marks[:, window[0], window[1].start // 8 : -(-window[1].stop // 8)],
            offset=window[1].start % 8,
        )
        observer.layer_counts(name=layer.name, counts=counts, origin=(0, 0), extent=extent)

    def _release(self, place: int) -> None:
        for name in list(self.live):
            if self.plan.last_use.get(name, place) <= place:
                buffer = self.live.pop(name)
                if buffer.masks is not None:
                    POOL.give(buffer)

    def _call(self, layer: LayerPlan, out: int, strides: tuple[int, ...], extent: Pair) -> Layer:
        terms = (Term * len(layer.terms))(*(self._term(term) for term in layer.terms))
        tables = (layer.v_keep, layer.u_keep, layer.bias, layer.threshold)
        v_keep, u_keep, bias, threshold = (None if table is None else table.ctypes.data for table in tables)
        return Layer(
            terms=ctypes.cast(terms, ctypes.POINTER(Term)),
            v_keep=v_keep,
            u_keep=u_keep,
            bias=bias,
            threshold=threshold,
            out=out,
            out_step=strides[0],
            out_row=strides[1],
            term_count=len(layer.terms),
            steps=self.plan.steps,
            rows=extent[0],
            columns=extent[1],
            channels=layer.padded,
            levels=layer.levels,
            remembers=layer.remembers,
            u_remembers=layer.u_remembers,
            halvings=layer.halvings,
            wraps=may_wrap(layer, self.largest, self.plan.steps),
            constant=not any(term.step_bytes for term in terms),
            summed=layer.summed,
        )

    def _run(self, call: Layer) -> None:
        threads = self._useful_threads(call)
        words = library().scratch(call)
        scratch = aligned((threads, words), np.int32)
        call.scratch, call.scratch_stride = scratch.ctypes.data, words
        library().run_layer(call, self.plan.path, threads)

    def _useful_threads(self, call: Layer) -> int:
        """As many threads as have enough to do: waking one up and waiting for it costs as much as a small layer."""
        places = call.rows * call.columns * call.steps * call.channels
        work = sum(term.rows * term.columns * term.groups for term in call.terms[: call.term_count])
        size = GROUPS.get(self.plan.path, 4)
        useful: int = places * work * size // WORK_PER_THREAD
        return max(1, min(self.threads, int(call.rows), useful))

    def _term(self, term: TermPlan) -> Term:
        buffer = self.live[term.source]
        step_bytes, row_bytes, place_bytes, _ = buffer.array.strides
        return Term(
            source=buffer.address(buffer.halo[0] - term.padding[0], buffer.halo[1] - term.padding[1]),
            weights=term.weights.ctypes.data,
            step_bytes=step_bytes if len(buffer.array) > 1 else 0,
            row_bytes=row_bytes,
            place_bytes=place_bytes,
            next_row=row_bytes * term.stride[0],
            next_place=place_bytes * term.stride[1],
            rows=term.kernel[0],
            columns=term.kernel[1],
            row_dilation=term.dilation[0],
            column_dilation=term.dilation[1],
            groups=term.groups,
            graded=term.graded,
            shift=term.shift,
            run=term.run,
            parts=term.parts,
            chunks=term.chunks,
            **self._events(term, buffer),
        )

    def _events(self, term: TermPlan, buffer: Buffer) -> dict[str, Any]:
        """What the event form of a term needs, where it has one."""
        if term.events is None or buffer.masks is None or term.source not in self.sparse:
            return {}
        step, row, place, _ = buffer.masks.strides
        return {
            "masks": buffer.mask_address(buffer.halo[0] - term.padding[0], buffer.halo[1] - term.padding[1]),
            "mask_step": step,
            "mask_row": row,
            "mask_place": place,
            "events": term.events.rows.ctypes.data,
            "form": self.sparse[term.source].ctypes.data,
            "inputs": term.events.inputs,
            "event_shift": term.events.shift,
            "narrow": term.events.narrow,
        }
