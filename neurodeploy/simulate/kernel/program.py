"""A network made ready to run: its buffers, and everything that the kernel is told, for codes of one size."""

from __future__ import annotations

import ctypes
import threading
from collections import OrderedDict
from collections.abc import Mapping
from math import ceil
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from neurodeploy.simulate.kernel.buffers import Buffer, Pair, buffer
from neurodeploy.simulate.kernel.counts import Links, RunCounts, SpikeCounts, Spread, arrival, found_size
from neurodeploy.simulate.kernel.library import GROUPS, Arrival, Layer, Network, Term, library
from neurodeploy.simulate.kernel.limits import clips_from, wraps_from
from neurodeploy.simulate.kernel.pack import aligned
from neurodeploy.simulate.kernel.plan import LayerPlan, Plan, TermPlan, extents_of
from neurodeploy.simulate.observe import IntArray

Form = Literal["auto", "dense", "events", "sets"]
Window = tuple[slice, slice]

EVENT_RATE = {"plain": 1.1, "avx2": 0.24, "avx512": 0.04, "vbmi2": 0.14, "amx": 0.035}
"""Spike rate of a source below which the event form of a layer is the faster one, by instruction path. Measured."""

WIDE_EVENT_RATE = {"avx2": 0.32, "vbmi2": 0.25}
"""The same of sources of 64 channels and more, where it is another. Measured at 64."""

EVENT_RATE.update({"neon": 0.25, "dotprod": 0.12, "i8mm": 0.06})
# These are guesses: an instruction of avx2 does as many products as additions of events, as one of neon does; one of
# dotprod does twice as many, one of i8mm four times.

SETS_RATE = {16: 0.03, 32: 0.08}
"""The same of sources of so many channels at most whose readers all have a table of sets: beyond it that is the faster
one. Measured, on pictures that the processor had not seen."""

WIDE_SETS_RATE = 0.12
"""The same of wider ones."""

EVENT_CHANNELS = {"avx2": 32, "amx": 64}
"""Channels of a source below which the event form never is, unless there are tables of sets. Measured."""

WORK_PER_THREAD = 1 << 21
"""Multiply-accumulates of a layer for which another thread is worth while; some tens of microseconds."""

ROWS_PER_THREAD = 128
"""Rows of codes, or of the output, for which another thread is worth while."""

KEPT_BYTES = 96 << 20
"""Most bytes that are kept from one run for the next: fresh memory costs as much as a small layer."""

EVERY = 1 << 62
"""More spikes than there are."""

KEPT = 64
"""Most programs that are."""


class Refused(Exception):
    """Why codes do not run, in words."""


class Case(NamedTuple):
    """What a program is made for.

    Attributes:
        size: Rows and columns of the codes.
        frames: Of codes: 1, or as many as steps.
        threads: At most.
        form: See :func:`neurodeploy.simulate.kernel.runner.run`.
        keeps: Whether the spikes of all layers are still there after the run.
    """

    size: Pair
    frames: int
    threads: int
    form: Form
    keeps: bool


class Program:
    """The buffers and structures of a plan for one case; one run at a time."""

    def __init__(self, plan: Plan, case: Case) -> None:
        self.plan, self.case = plan, case
        extents = extents_of(plan, case.size)
        if isinstance(extents, str):
            raise Refused(extents)
        self.extents = extents
        self._buffers = self._make_buffers()
        self._shown = np.zeros((case.frames, plan.input_channels), np.uint8)
        self._seen: list[NDArray[np.uint8]] = []
        self._forms = {layer.name: np.zeros(plan.steps, np.uint8) for layer in plan.layers if self._lists(layer)}
        self._layers = (Layer * len(plan.layers))(*(self._layer(layer) for layer in plan.layers))
        self._network = self._make_network()
        self._scratch = np.empty((0, 0), np.int32)
        self._make_scratch()
        self._arrivals: list[ctypes.Array[Arrival]] = []
        self._counts: RunCounts | None = None
        self._links: Mapping[str, Links] | None = None
        self._window: Window | None = None
        unique = {id(held): held.bytes for held in self._buffers.values()}
        self.bytes = self._scratch.nbytes + sum(unique.values())
        """Of its buffers."""

    def run(self, codes: IntArray, counts: RunCounts | None = None, spent: NDArray[np.int64] | None = None) -> IntArray:
        """Runs.

        Args:
            codes: (frames, C, h, w).
            counts: What :meth:`counts` has given, where spikes are to be counted.
            spent: (layers,), gets the nanoseconds of the calling thread in each layer.

        Returns:
            (C, h', w') int64: the sum over all time steps of the current into the readout plus its bias.

        Raises:
            Refused: The codes are too large.
        """
        if codes.dtype != np.int64 or codes.strides[3] != 8:
            codes = codes.astype(np.int64, order="C")
        readout = self.plan.layers[-1]
        total = np.empty((readout.channels, *self.extents[readout.name]), np.int64)
        network = self._network
        network.codes, network.total = codes.ctypes.data, total.ctypes.data
        network.frame_step, network.channel_step, network.row_step = (stride // 8 for stride in codes.strides[:3])
        network.counting = counts is not None
        network.spent = None if spent is None else spent.ctypes.data
        if not library().run(network, self.plan.path):
            raise Refused(too_large(self.plan, int(network.largest)))
        return total

    def counts(self, links: Mapping[str, Links], window: Window | None) -> RunCounts:
        """Where the next runs count, which is written over by every one of them.

        Args:
            links: For layers of which arrivals are to be counted, the convolutions that read them.
            window: The rows and columns of every layer that are counted; all by default, and then also where something
                arrives.
        """
        if self._counts is None or links is not self._links or window != self._window:
            self._counts = self._count(links, window)
            self._links, self._window = links, window
        return self._counts

    def _lists(self, layer: LayerPlan) -> bool:
        """Whether spikes of a source are ever taken as bits."""
        least = EVENT_CHANNELS.get(self.plan.path, 0)
        often = layer.channels >= least or self._in_bits(layer)
        wanted = self.case.form in ("events", "sets") or (self.case.form == "auto" and often)
        return wanted and layer.name in self.plan.binary

    def _in_bits(self, layer: LayerPlan) -> bool:
        """Whether all readers of a source take its spikes as bits, however many there are."""
        return self.case.form in ("auto", "sets") and layer.name in self.plan.in_bits

    def _unread(self, layer: LayerPlan) -> bool:
        """Whether a source's spikes are bits alone."""
        return self._in_bits(layer) and not self.case.keeps

    def _few(self, layer: LayerPlan) -> int:
        """Spikes of a step below which the rows of single spikes are added."""
        if self.case.form != "auto":
            return 0 if self.case.form == "sets" else EVERY
        path, (rows, columns) = self.plan.path, self.extents[layer.name]
        rate = WIDE_EVENT_RATE.get(path, EVENT_RATE[path]) if layer.channels >= 64 else EVENT_RATE[path]
        if self._in_bits(layer):
            rate = next((sets for most, sets in SETS_RATE.items() if layer.channels <= most), WIDE_SETS_RATE)
        return ceil(rate * rows * columns * layer.channels)

    def _make_buffers(self) -> dict[str, Buffer]:
        """Of the input and of every spiking layer; those that live at different times share them."""
        plan, case = self.plan, self.case
        held = plan.input_channels + plan.input_channels % 2
        halo, stride = plan.halo.get(plan.input, (0, 0)), plan.strides.get(plan.input, 1)
        found = {plan.input: buffer(case.frames, case.size, held, np.int16, halo=halo, stride=stride)}
        spiking = plan.layers[:-1]
        halos = [plan.halo.get(layer.name, (0, 0)) for layer in spiking]
        halo = max((one[0] for one in halos), default=0), max((one[1] for one in halos), default=0)
        stride = max((plan.strides.get(layer.name, 1) for layer in spiking), default=1)
        sizes = [(self.extents[layer.name], layer.padded, self._lists(layer), self._unread(layer)) for layer in spiking]
        slots = list(range(len(spiking))) if case.keeps else plan.slots(sizes)
        made: dict[int, Buffer] = {}
        for layer, slot, (extent, channels, lists, unread) in zip(spiking, slots, sizes, strict=True):
            if slot not in made:
                made[slot] = buffer(
                    plan.steps, extent, channels, np.uint8, halo=halo, stride=stride, masks=lists, unread=unread
                )
            found[layer.name] = made[slot]
        readout = plan.layers[-1]
        return found | {readout.name: buffer(1, self.extents[readout.name], readout.padded, np.int32)}

    def _make_network(self) -> Network:
        plan, case = self.plan, self.case
        codes = self._buffers[plan.input]
        frame, row, place, _ = (stride // 2 for stride in codes.array.strides)
        rows = max(case.size[0], self.extents[plan.layers[-1].name][0])
        return Network(
            layers=self._layers,
            held=codes.address(*codes.halo),
            held_frame=frame,
            held_row=row,
            held_place=place,
            shown=self._shown.ctypes.data,
            code_max=plan.code_max,
            offset=plan.offset.ctypes.data,
            layer_count=len(plan.layers),
            frames=case.frames,
            channels=plan.input_channels,
            rows=case.size[0],
            columns=case.size[1],
            outputs=plan.layers[-1].channels,
            threads=max(1, min(case.threads, rows // ROWS_PER_THREAD)),
        )

    def _make_scratch(self) -> None:
        """Room for all threads to work in, at least as much as there was."""
        words = max(library().scratch(layer) for layer in self._layers)
        threads = max(layer.threads for layer in self._layers)
        if words > self._scratch.shape[1]:
            self._scratch = aligned((threads, words), np.int32)
            self._network.scratch, self._network.scratch_stride = self._scratch.ctypes.data, words

    def _layer(self, layer: LayerPlan) -> Layer:
        terms = (Term * len(layer.terms))(*(self._term(term) for term in layer.terms))
        tables = (layer.v_keep, layer.u_keep, layer.bias, layer.threshold)
        v_keep, u_keep, bias, threshold = (None if table is None else table.ctypes.data for table in tables)
        (rows, columns), to = self.extents[layer.name], self._buffers[layer.name]
        made = Layer(
            terms=ctypes.cast(terms, ctypes.POINTER(Term)),
            v_keep=v_keep,
            u_keep=u_keep,
            bias=bias,
            threshold=threshold,
            out=to.address(*to.halo),
            out_step=to.array.strides[0] if layer.levels else 0,
            out_row=to.array.strides[1],
            wraps_from=wraps_from(layer, self.plan.steps),
            clips_from=clips_from(layer, self.plan.steps),
            term_count=len(layer.terms),
            steps=self.plan.steps,
            rows=rows,
            columns=columns,
            channels=layer.padded,
            levels=layer.levels,
            remembers=layer.remembers,
            u_remembers=layer.u_remembers,
            halvings=layer.halvings,
            constant=not any(term.step_bytes for term in terms),
            summed=layer.summed,
        )
        if self._lists(layer) and to.masks is not None:
            made.few = self._few(layer)
            made.unread = self._unread(layer)
            made.form = self._forms[layer.name].ctypes.data
            made.masks = to.mask_address(*to.halo)
            made.mask_step, made.mask_row = to.masks.strides[:2]
        made.threads = self._useful_threads(made)
        return made

    def _useful_threads(self, layer: Layer) -> int:
        """As many threads as have enough to do: waking one up and waiting for it costs as much as a small layer."""
        places = layer.rows * layer.columns * layer.steps * layer.channels
        work = sum(term.rows * term.columns * term.groups for term in layer.terms[: layer.term_count])
        size = GROUPS.get(self.plan.path, 4)
        useful: int = places * work * size // WORK_PER_THREAD
        return max(1, min(self.case.threads, int(layer.rows), useful))

    def _term(self, term: TermPlan) -> Term:
        source = self._buffers[term.source]
        corner = source.halo[0] - term.padding[0], source.halo[1] - term.padding[1]
        step_bytes, row_bytes, place_bytes, _ = source.array.strides
        made = Term(
            source=source.address(*corner),
            weights=term.weights.ctypes.data,
            step_bytes=step_bytes if len(source.array) > 1 else 0,
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
            thin=term.thin,
        )
        if term.reads is not None and made.step_bytes:
            self._seen.append(np.zeros(self.case.frames, np.uint8))
            made.reads, made.shown = term.reads.ctypes.data, self._seen[-1].ctypes.data
        if term.alone is not None:
            made.alone = term.alone.ctypes.data
        if term.events is not None and source.masks is not None and term.source in self._forms:
            made.masks = source.mask_address(*corner)
            made.mask_step, made.mask_row, made.mask_place, _ = source.masks.strides
            made.events, made.form = term.events.rows.ctypes.data, self._forms[term.source].ctypes.data
            made.inputs, made.event_shift, made.narrow = term.events.inputs, term.events.shift, term.events.narrow
            made.joined, made.bits = term.events.joined, source.unread
            if term.events.sets is not None and self.case.form != "events":
                made.sets = term.events.sets.ctypes.data
        return made

    def _count(self, links: Mapping[str, Links], window: Window | None) -> RunCounts:
        """Tells the kernel where to count."""
        spiking = self.plan.layers[:-1]
        sizes = [found_size(self.plan.steps, links.get(layer.name)) for layer in spiking]
        found = np.zeros(sum(sizes), np.int64)
        reached = np.zeros((len(self.plan.layers), self.plan.steps), np.int64)
        layers: dict[str, SpikeCounts] = {}
        for layer, part, made in zip(spiking, np.split(found, np.cumsum(sizes)[:-1]), self._layers, strict=False):
            rows, columns = self.extents[layer.name]
            shown = window or (slice(0, rows), slice(0, columns))
            marks = np.zeros((self.plan.steps, rows, -(-columns // 8)), np.uint8)
            read = links.get(layer.name)
            made.links, made.link_count = (read.array, read.size) if read is not None else (None, 0)
            made.found, made.marks = part.ctypes.data, marks.ctypes.data
            made.first_row, made.end_row = shown[0].start, shown[0].stop
            made.first_column, made.end_column = shown[1].start, shown[1].stop
            layers[layer.name] = SpikeCounts(
                channels=layer.channels,
                levels=layer.levels,
                extent=(shown[0].stop - shown[0].start, shown[1].stop - shown[1].start),
                found=part,
                marks=marks,
                values=self._buffers[layer.name].inside[(slice(None), *shown)] if self.case.keeps else None,
            )
        self._arrivals = [self._arrive(layer, layers) for layer in self.plan.layers]
        for made, into, steps in zip(self._layers, self._arrivals, reached, strict=True):
            made.arrivals, made.arrival_count, made.reached = into, 0 if window else len(into), steps.ctypes.data
        self._make_scratch()
        names = tuple(layer.name for layer in self.plan.layers)
        return RunCounts(layers, found, None if window else reached, names)

    def _arrive(self, layer: LayerPlan, counts: Mapping[str, SpikeCounts]) -> ctypes.Array[Arrival]:
        """What brings something to a layer's neurons."""
        return (Arrival * len(layer.terms))(
            *(
                arrival(
                    counts[term.source].marks if term.source in counts else None,
                    self.extents.get(term.source, self.case.size),
                    Spread(term.kernel, term.stride, term.padding, term.dilation),
                )
                for term in layer.terms
            )
        )


def too_large(plan: Plan, largest: int) -> str:
    """Why codes do not run."""
    return f"codes up to {largest}, where sums are proved to fit only up to {plan.code_max}"


class Programs:
    """Those that nobody runs, the longest unused first; where they would keep too much memory, it goes first."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._free: OrderedDict[int, tuple[Plan, Case, Program]] = OrderedDict()
        self._kept = 0  # bytes of them

    def take(self, plan: Plan, case: Case) -> Program:
        """One of its own for a run."""
        with self._lock:
            for key in reversed(self._free):
                of, made_for, program = self._free[key]
                if of is plan and made_for == case:
                    del self._free[key]
                    self._kept -= program.bytes
                    return program
        return Program(plan, case)

    def give(self, program: Program) -> None:
        """Hands one back."""
        if program.bytes > KEPT_BYTES:
            return
        with self._lock:
            self._free[id(program)] = program.plan, program.case, program
            self._kept += program.bytes
            while self._kept > KEPT_BYTES or len(self._free) > KEPT:
                self._kept -= self._free.popitem(last=False)[1][2].bytes


PROGRAMS = Programs()
"""Of this process."""
