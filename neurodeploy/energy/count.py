"""Counting what a run does: exact integers per layer, step and image, from the spikes that really occurred.

A synaptic operation is one spike arriving at one in-bounds synapse. The count of a layer is the sum over its spikes of
the in-bounds fan-out of the place where they occurred, see :mod:`neurodeploy.energy.geometry`; nothing is estimated
from a mean rate. Over a feedback edge spikes arrive a step later: those of the last step do not arrive in the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from neurodeploy.energy.arrivals import LinkTables, is_counted, is_plain, places_reached
from neurodeploy.energy.connections import Connection, connections
from neurodeploy.energy.events import (
    Floats,
    groups_of,
    histograms,
    outputs_of,
    receiving,
    shown_weights,
    weights_at,
)
from neurodeploy.energy.geometry import Shape, node_shapes
from neurodeploy.energy.results import Counts, ImageCounts
from neurodeploy.energy.tally import LayerCounts, added, ann_passes, empty_rows
from neurodeploy.energy.ticks import book_ticks, tick_operations
from neurodeploy.errors import InternalError
from neurodeploy.quantize.bursts import without_ticks
from neurodeploy.quantize.network import IntegerConv, IntegerLif, IntegerNetwork
from neurodeploy.simulate import kernel
from neurodeploy.simulate.kernel.counts import Arrivals, Links, RunCounts, count_codes
from neurodeploy.simulate.kernel.pack import rounded
from neurodeploy.simulate.observe import BoolArray, IntArray, Pair

SMALL = 1 << 31
"""Bound of the weights that the spikes of a place meet, where the kernel counts them."""


@dataclass
class _Image:
    """One image while it runs: its counts, and the maps that need the whole layer at once."""

    name: str
    extent: Pair
    shapes: dict[str, Shape]
    passes: dict[str, int]
    """How often an ANN of the same shape computes what a node puts out."""
    blank: dict[str, LayerCounts]
    """What can be said of the layers without running."""
    codes_seen: int = 0
    driven: list[tuple[int, list[int], list[int]]] = field(default_factory=list)
    """Of the codes: steps that show them, taps that some value other than 0 arrives at, weights that all meet."""
    spiked: list[tuple[RunCounts, IntArray]] = field(default_factory=list)
    """What runs of the kernel have found: how to read it, and the integers."""
    receiving: IntArray | None = None
    """Places of every layer that received something, (rows, T), from a run of the kernel that was whole."""
    seen: dict[str, int] = field(default_factory=dict)
    arrived: dict[tuple[str, int], BoolArray] = field(default_factory=dict)
    """(layer, groups) -> (T, groups, H, W): where any channel of the group spiked."""
    marks: dict[str, BoolArray] = field(default_factory=dict)
    """Layer of which the kernel counted parts -> (T, H, W): where any channel spiked."""
    ever: dict[str, BoolArray] = field(default_factory=dict)
    """Layer -> (C, H, W): where any population spiked in any step."""

    @cached_property
    def rows(self) -> dict[str, LayerCounts]:
        """What has been counted of the layers; of images that the kernel runs, made when it is asked for."""
        return {key: row.copy() for key, row in self.blank.items()}


class OperationCounter:
    """An observer that counts operations, image after image.

    Give it to every run (``observer=counter``), call :meth:`begin` before an image to name it, and read
    :meth:`counts` at the end. Images that run in tiles are put together again; an image of which a part was never
    shown is an error, because it would be priced too low.
    """

    def __init__(self, net: IntegerNetwork) -> None:
        self._ticks = tick_operations(net)
        self._shown = 1 if net.host.ticks else net.host.steps
        self._ran = net
        self.net = net = without_ticks(net)
        self._links = connections(net)
        self._from = {name: [link for link in self._links if link.source == name] for name in net.nodes}
        self._into = {link.row: [other for other in self._links if other.row == link.row] for link in self._links}
        self._tables = LinkTables(self._from)
        self._spiking = tuple(lif.name for lif in net.lifs())
        self._held: dict[Pair, dict[str, Shape]] = {}
        """Shapes of all nodes for images of the last size, as the kernel holds them."""
        plain = all(map(is_plain, self._from[net.input.name])) and not net.feedback
        self._plain_input = plain and kernel.missing() is None
        counts = is_counted if self._ticks else is_plain  # with ticks nobody asks which places receive something
        self._plain = all(counts(link) and self._is_small(link) for link in self._links if link.spiking)
        self._nonzero = {link.name: weights_at(link) for link in self._links}
        self._empty: dict[tuple[Pair, bool], tuple[dict[str, Shape], dict[str, LayerCounts]]] = {}
        """What images of the last size hold before anything has run."""
        self._reached: dict[tuple[str, Pair], list[int]] = {}
        """(layer, extent of the image) -> places that receive something, if all sources spike everywhere."""
        self._next = ""
        self._image: _Image | None = None
        self._done: list[ImageCounts | _Image] = []
        """Images that the kernel ran whole are put into rows when they are asked for."""

    def begin(self, name: str) -> None:
        """Names the image that comes next, and closes the one before."""
        self._close()
        self._next = name

    def counts(self) -> Counts:
        """What has been counted, per layer over all images and per image.

        Raises:
            InternalError: No image has run, or only a part of one.
        """
        self._close()
        if not self._done:
            raise InternalError("no image has run: there is nothing to count")
        self._done = [self._finished(image) if isinstance(image, _Image) else image for image in self._done]
        images = tuple(image for image in self._done if isinstance(image, ImageCounts))
        return Counts(net=self._ran, images=images)

    def codes(self, *, codes: IntArray, origin: Pair, extent: Pair) -> None:
        """Counts what the analog input drives."""
        image = self._image
        if image is None or image.codes_seen >= image.extent[0] * image.extent[1]:
            image = self._open(extent, sequence=codes.ndim == 4)
        image.codes_seen += codes.shape[-2] * codes.shape[-1]
        name = self.net.input.name
        if self._ticks:  # codes come with the first of them alone
            codes = codes[:1, : self.net.input.channels]
        frames = codes if codes.ndim == 4 else codes[None]
        repeats = self.net.host.steps if codes.ndim == 3 else 1
        if self._plain_input:
            shape = frames.shape[2], frames.shape[3]
            tables = self._tables.of([name], {name: frames.shape[1:]}, size=shape, origin=origin, extent=extent)
            image.driven.append((repeats, *count_codes(frames, tables[name])))
            return
        maps = [(frame != 0).astype(np.float64) for frame in (*frames, (frames != 0).any(axis=0))]
        for place, events in enumerate(maps):
            taps = histograms(self._from[name], events, origin, extent)
            if (place < len(frames)) == (image.passes[name] > 1):
                self._book_ann(image, name, self._sums(name, taps))
            for link in self._from[name] if place < len(frames) else ():
                if link.node is not None:
                    weights = self._weights(image, link, events, origin)
                    image.rows[link.row].mac_nonzero += repeats * link.copies * _sum(taps[link.name] * weights)

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
        """Counts one step of one spiking layer and what its spikes drive."""
        del current, u, v
        image = self._image
        if image is None:
            raise InternalError(f"layer {name} was shown before any input")
        row = image.rows[name]
        image.seen[name] = image.seen.get(name, 0) + fired.shape[-2] * fired.shape[-1]
        events = fired.sum(axis=0, dtype=np.float64)
        self._keep_arrived(image, step, name, events > 0, origin, extent)
        self._book_spikes(image, step, name, _sum(events), events, origin, extent)
        if self.net.host.steps == 1 or image.passes[name] > 1:
            ever = np.minimum(events, 1.0)
            self._book_ann(image, name, self._sums(name, histograms(self._from[name], ever, origin, extent)), step)
        if self.net.host.steps == 1:
            row.activations_nonzero += _sum(ever)
        else:
            self._keep_ever(image, name, events > 0, origin, extent)

    @property
    def takes_counts(self) -> bool:
        """Sums of counts are all it needs where every spike goes into a convolution without groups."""
        return self._plain

    def links(self, *, size: Pair, origin: Pair = (0, 0), extent: Pair | None = None) -> Mapping[str, Links]:
        """The convolutions behind spiking layers: the kernel counts what arrives there.

        Args:
            size: Rows and columns that run; all of the input, or those that a tile owns.
            origin: Row and column of the first place that a tile owns.
            extent: (H, W) of every layer, of which a tile is a part.
        """
        key = extent or size
        if key not in self._held:
            shapes = node_shapes(self.net, key)
            self._held = {key: {name: (rounded(shape[0]), *shape[1:]) for name, shape in shapes.items()}}
        return self._tables.of(self._spiking, self._held[key], size=size, origin=origin, extent=extent)

    def run_counts(self, *, counts: RunCounts, origin: Pair, extent: Pair | None) -> None:
        """Counts all steps of all spiking layers, as :meth:`layer` does step by step."""
        image = self._image
        if image is None:
            raise InternalError("spikes were shown before any input")
        image.spiked.append((counts, counts.found.copy()))
        if counts.reached is not None:
            image.receiving = counts.reached.copy()
            return
        for name, layer in counts.layers.items():
            height, width = layer.extent
            image.seen[name] = image.seen.get(name, 0) + height * width * layer.steps
            if name not in image.marks:
                image.marks[name] = np.zeros((layer.steps, *(extent or layer.extent)), np.bool_)
            image.marks[name][:, origin[0] : origin[0] + height, origin[1] : origin[1] + width] = layer.spiking()

    def _book_counts(self, image: _Image, name: str, found: Arrivals) -> None:
        """What the kernel has found of one layer."""
        row, spikes = image.rows[name], sum(found.spikes)
        row.spikes += spikes
        row.resets += spikes
        row.per_step["spikes"] = added(row.per_step["spikes"], found.spikes)
        row.activations_nonzero += found.ever if row.activations else 0
        steps = len(found.spikes)
        for link, taps in zip(self._from[name], found.links, strict=True):
            receiver, factor = image.rows[link.row], link.copies * outputs_of(link)
            if not link.sends:
                continue
            operations = [factor * count for count in taps[:steps]]
            receiver.sop += sum(operations)
            receiver.per_step["sop"] = added(receiver.per_step["sop"], operations)
            receiver.sop_nonzero += link.copies * taps[-1]
        self._book_ann(image, name, [taps[steps] for taps in found.links])

    def _book_codes(self, image: _Image, repeats: int, ever: Sequence[int], met: Sequence[int]) -> None:
        for link, weights in zip(self._from[self.net.input.name], met, strict=True):
            image.rows[link.row].mac_nonzero += repeats * link.copies * weights
        self._book_ann(image, self.net.input.name, ever)

    def _is_small(self, link: Connection) -> bool:
        """Whether 32 bits hold the weights of a connection times all spikes that a place of its source can have."""
        source = self.net.nodes[link.source]
        spikes = self.net.host.steps * (len(source.levels) if isinstance(source, IntegerLif) else 1)
        return isinstance(link.node, IntegerConv) and link.node.weight.size * spikes < SMALL

    def _open(self, extent: Pair, sequence: bool) -> _Image:
        name = self._next
        self._close()
        key = extent, sequence
        if key not in self._empty:
            self._empty = {key: (node_shapes(self.net, extent), empty_rows(self.net, extent, sequence, self._shown))}
        shapes, rows = self._empty[key]
        self._image = _Image(
            name=name or f"image {len(self._done) + 1}",
            extent=extent,
            shapes=shapes,
            passes=ann_passes(self.net, sequence),
            blank=rows,
        )
        return self._image

    def _book_spikes(
        self,
        image: _Image,
        step: int,
        name: str,
        spikes: int,
        events: Floats,
        origin: Pair,
        extent: Pair,
    ) -> None:
        sender = image.rows[name]
        sender.spikes += spikes
        sender.resets += spikes
        sender.per_step["spikes"] = added(sender.per_step["spikes"], [spikes], step)
        if not spikes:
            return
        taps = histograms(self._from[name], events, origin, extent)
        for link in self._from[name]:
            if step + link.delay >= self.net.host.steps or not link.sends:
                continue
            row, histogram = image.rows[link.row], taps[link.name]
            operations = link.copies * _sum(histogram) * outputs_of(link)
            row.sop += operations
            row.per_step["sop"] = added(row.per_step["sop"], [operations], step + link.delay)
            row.sop_nonzero += link.copies * _sum(histogram * self._weights(image, link, events, origin))

    def _book_ann(self, image: _Image, name: str, taps: Sequence[int], step: int = 0) -> None:
        """Of every connection behind ``name``, the taps that something other than 0 arrives at in some step."""
        booked: set[str] = set()
        for link, arrived in zip(self._from[name], taps, strict=True):
            last = step + link.delay >= self.net.host.steps
            if link.node is not None and link.trained and link.name not in booked and not last:
                booked.add(link.name)
                image.rows[link.row].ann_mac_nonzero += arrived * outputs_of(link)

    def _weights(self, image: _Image, link: Connection, events: Floats, origin: Pair) -> Floats:
        size = events.shape[-2], events.shape[-1]
        return shown_weights(self._nonzero[link.name], link, image.shapes[link.source], size, origin)

    def _sums(self, name: str, taps: Mapping[str, Floats]) -> list[int]:
        return [_sum(taps[link.name]) for link in self._from[name]]

    def _keep_arrived(self, image: _Image, step: int, name: str, spiked: BoolArray, origin: Pair, extent: Pair) -> None:
        channels, height, width = spiked.shape
        window = (slice(origin[0], origin[0] + height), slice(origin[1], origin[1] + width))
        steps = self.net.host.steps
        for groups in {groups_of(link, image.shapes) for link in self._from[name]}:
            kept = image.arrived.setdefault((name, groups), np.zeros((steps, groups, *extent), np.bool_))
            kept[(step, slice(None), *window)] |= spiked.reshape(groups, channels // groups, height, width).any(axis=1)

    def _keep_ever(self, image: _Image, name: str, spiked: BoolArray, origin: Pair, extent: Pair) -> None:
        channels, height, width = spiked.shape
        ever = image.ever.setdefault(name, np.zeros((channels, *extent), np.bool_))
        ever[:, origin[0] : origin[0] + height, origin[1] : origin[1] + width] |= spiked

    def _close(self) -> None:
        image, self._image, self._next = self._image, None, ""
        if image is None:
            return
        self._check_whole(image)
        self._done.append(self._finished(image) if image.receiving is None else image)

    def _finished(self, image: _Image) -> ImageCounts:
        """Everything that was found, in rows."""
        for driven in image.driven:
            self._book_codes(image, *driven)
        for counts, found in image.spiked:
            for name, arrivals in counts.arrivals(found).items():
                self._book_counts(image, name, arrivals)
        for name, ever in image.ever.items():
            if image.rows[name].activations:
                image.rows[name].activations_nonzero += int(np.count_nonzero(ever))
            if image.passes[name] > 1:
                continue
            taps = histograms(self._from[name], ever.astype(np.float64), (0, 0), (ever.shape[1], ever.shape[2]))
            self._book_ann(image, name, self._sums(name, taps))
        for link in self._links:
            if not link.spiking and link.source != self.net.input.name:  # values that nobody shows: all may matter
                row = image.rows[link.row]
                row.mac_nonzero, row.ann_mac_nonzero = row.mac, row.dense_mac
        for row in image.rows.values():
            row.ann_mac_nonzero = min(row.ann_mac_nonzero, row.dense_mac)  # two sources of one convolution overlap
            if row.kind == "readout":
                row.activations_nonzero = row.activations
            if row.name in self._ticks:
                book_ticks(row, self._ticks[row.name], self.net.input.name)
            if row.neuron_updates:
                self._book_updates(image, row)
        return ImageCounts(name=image.name, extent=image.extent, layers=tuple(image.rows.values()))

    def _check_whole(self, image: _Image) -> None:
        missing = [] if image.codes_seen == image.extent[0] * image.extent[1] else [self.net.input.name]
        for name in self._spiking if image.receiving is None else ():
            places = image.shapes[name][1] * image.shapes[name][2] * self.net.host.steps
            missing += [name] if image.seen.get(name, 0) != places else []
        if missing:
            raise InternalError(f"{image.name}: not every place of {', '.join(missing)} was shown exactly once a step")

    def _places_reached(self, image: _Image, row: LayerCounts, links: Sequence[Connection]) -> list[int]:
        """As :func:`places_reached`; where all sources spiked everywhere it is the same for every picture of a size."""
        extent, steps = (row.shape[1], row.shape[2]), self.net.host.steps
        if image.receiving is not None:
            found: list[int] = image.receiving[image.spiked[0][0].names.index(row.name)].tolist()
            return found
        if any(link.source in image.marks for link in links):
            return places_reached(links, image.marks, image.shapes, extent, steps)
        key = row.name, image.extent
        if key not in self._reached:
            self._reached[key] = places_reached(links, {}, image.shapes, extent, steps)
        return list(self._reached[key])

    def _book_updates(self, image: _Image, row: LayerCounts) -> None:
        links, steps = self._into.get(row.name, []), self.net.host.steps
        if self._ticks:  # they climb at every step, and what the readout receives is spread over all
            row.neuron_updates_active = row.neuron_updates
            row.per_step["neuron_updates_active"] = [row.neurons] * steps
            return
        if self._plain and not image.arrived and all(map(is_plain, links)):
            places = self._places_reached(image, row, links)
            each = row.shape[0]
        else:
            marks = receiving(links, image.arrived, image.shapes, row.shape, steps)
            places = [int(np.count_nonzero(found)) for found in marks]
            each = row.shape[0] // marks.shape[1]
        active = [count * each * row.populations for count in places]
        row.neuron_updates_active += sum(active)
        row.per_step["neuron_updates_active"] = active
        row.neuron_updates_idle = row.neuron_updates - row.neuron_updates_active


def _sum(values: NDArray[np.float64]) -> int:
    """Sum of integers held in float64, exact below 2**53."""
    return int(values.sum())
