"""Counting what a run does: exact integers per layer, step and image, from the spikes that really occurred.

A synaptic operation is one spike arriving at one in-bounds synapse. The count of a layer is the sum over its spikes of
the in-bounds fan-out of the place where they occurred, see :mod:`neurodeploy.energy.geometry`; nothing is estimated
from a mean rate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import lcm
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neurodeploy.energy.connections import Connection, connections
from neurodeploy.energy.geometry import Shape, node_shapes, nonzero_outputs, reached, tap_histogram
from neurodeploy.energy.results import Counts, ImageCounts
from neurodeploy.energy.tally import LayerCounts, empty_rows
from neurodeploy.errors import InternalError
from neurodeploy.quantize.network import IntegerConv, IntegerDense, IntegerLif, IntegerNetwork
from neurodeploy.simulate.kernel.counts import RowSums, SpikeCounts
from neurodeploy.simulate.observe import BoolArray, IntArray, Pair

Floats = NDArray[np.float64]


@dataclass
class _Image:
    """One image while it runs: its counts, and the maps that need the whole layer at once."""

    name: str
    extent: Pair
    shapes: dict[str, Shape]
    rows: dict[str, LayerCounts]
    codes_seen: int = 0
    seen: dict[str, int] = field(default_factory=dict)
    arrived: dict[tuple[str, int], BoolArray] = field(default_factory=dict)
    """(layer, groups) -> (T, groups, H, W): where any channel of the group spiked."""
    ever: dict[str, BoolArray] = field(default_factory=dict)
    """Layer -> (C, H, W): where any population spiked in any step."""


class OperationCounter:
    """An observer that counts operations, image after image.

    Give it to every run (``observer=counter``), call :meth:`begin` before an image to name it, and read
    :meth:`counts` at the end. Images that run in tiles are put together again; an image of which a part was never
    shown is an error, because it would be priced too low.
    """

    def __init__(self, net: IntegerNetwork) -> None:
        self.net = net
        self._links = connections(net)
        self._from = {name: [link for link in self._links if link.source == name] for name in net.nodes}
        self._nonzero = {link.name: _weights_at(link) for link in self._links}
        self._next = ""
        self._image: _Image | None = None
        self._done: list[ImageCounts] = []

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
        return Counts(net=self.net, images=tuple(self._done))

    def codes(self, *, codes: IntArray, origin: Pair, extent: Pair) -> None:
        """Counts what the analog input drives."""
        image = self._image
        if image is None or image.codes_seen >= image.extent[0] * image.extent[1]:
            image = self._open(extent)
        image.codes_seen += codes.shape[-2] * codes.shape[-1]
        name = self.net.input.name
        frames = codes if codes.ndim == 4 else codes[None]
        repeats = self.net.host.steps if codes.ndim == 3 else 1
        histograms = [self._histograms(name, (frame != 0).astype(np.float64), origin, extent) for frame in frames]
        for link in self._from[name]:
            row = image.rows[link.row]
            for histogram in histograms if link.node is not None else ():
                weights = _cropped(self._nonzero[link.name], link, image, codes, origin)
                row.mac_nonzero += repeats * link.copies * _sum(histogram[link.name] * weights)
        if len(frames) == 1:
            self._book_ann(image, name, histograms[0])
        else:
            ever = (frames != 0).any(axis=0).astype(np.float64)
            self._book_ann(image, name, self._histograms(name, ever, origin, extent))

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
        if self.net.host.steps == 1:
            ever = np.minimum(events, 1.0)
            row.activations_nonzero += _sum(ever)
            self._book_ann(image, name, self._histograms(name, ever, origin, extent))
        else:
            self._keep_ever(image, name, events > 0, origin, extent)

    @property
    def takes_counts(self) -> bool:
        """Sums of counts are all it needs where every spike goes into a convolution without groups."""
        return all(isinstance(link.node, IntegerConv) and link.node.groups == 1 for link in self._links if link.spiking)

    def layer_counts(self, *, name: str, counts: SpikeCounts, origin: Pair, extent: Pair) -> None:
        """Counts all steps of one spiking layer, as :meth:`layer` does step by step."""
        image = self._image
        if image is None:
            raise InternalError(f"layer {name} was shown before any input")
        row = image.rows[name]
        places = counts.values.shape[1] * counts.values.shape[2]
        image.seen[name] = image.seen.get(name, 0) + places * counts.steps
        for step in range(counts.steps):
            self._keep_arrived(image, step, name, counts.anywhere(step)[None], origin, extent)
            self._book_spikes(image, step, name, counts.spikes(step), counts.rows(step), origin, extent)
        row.activations_nonzero += counts.ever_active
        self._book_ann(image, name, self._histograms(name, counts.ever_rows(), origin, extent))

    def _open(self, extent: Pair) -> _Image:
        name = self._next
        self._close()
        self._image = _Image(
            name=name or f"image {len(self._done) + 1}",
            extent=extent,
            shapes=node_shapes(self.net, extent),
            rows=empty_rows(self.net, extent),
        )
        return self._image

    def _book_spikes(
        self,
        image: _Image,
        step: int,
        name: str,
        spikes: int,
        events: Floats | RowSums,
        origin: Pair,
        extent: Pair,
    ) -> None:
        sender = image.rows[name]
        sender.spikes += spikes
        sender.resets += spikes
        sender.per_step["spikes"][step] += spikes
        if not spikes:
            return
        histograms = self._histograms(name, events, origin, extent)
        for link in self._from[name]:
            row, histogram = image.rows[link.row], histograms[link.name]
            operations = link.copies * _sum(histogram) * _outputs(link)
            row.sop += operations
            row.per_step["sop"][step] += operations
            weights = _cropped(self._nonzero[link.name], link, image, events, origin)
            row.sop_nonzero += link.copies * _sum(histogram * weights)

    def _book_ann(self, image: _Image, name: str, histograms: Mapping[str, Floats]) -> None:
        booked: set[str] = set()
        for link in self._from[name]:
            if link.node is not None and link.name not in booked:
                booked.add(link.name)
                image.rows[link.row].ann_mac_nonzero += _sum(histograms[link.name]) * _outputs(link)

    def _histograms(self, name: str, events: Floats | RowSums, origin: Pair, extent: Pair) -> dict[str, Floats]:
        """How often every tap of every convolution behind ``name`` is reached; the events themselves without taps."""
        shared: dict[tuple[object, ...], Floats] = {}
        found: dict[str, Floats] = {}
        for link in self._from[name]:
            if isinstance(link.node, IntegerConv):
                node = link.node
                key = (node.weight.shape[2:], node.stride, node.padding, node.dilation)
                if key not in shared:
                    shared[key] = tap_histogram(events, node, origin, extent)
                found[link.name] = shared[key]
            elif not isinstance(events, RowSums):
                found[link.name] = events
        return found

    def _keep_arrived(self, image: _Image, step: int, name: str, spiked: BoolArray, origin: Pair, extent: Pair) -> None:
        channels, height, width = spiked.shape
        window = (slice(origin[0], origin[0] + height), slice(origin[1], origin[1] + width))
        steps = self.net.host.steps
        for groups in {_groups_of(link, image.shapes) for link in self._from[name]}:
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
        for name, ever in image.ever.items():
            image.rows[name].activations_nonzero += int(np.count_nonzero(ever))
            found = self._histograms(name, ever.astype(np.float64), (0, 0), (ever.shape[1], ever.shape[2]))
            self._book_ann(image, name, found)
        for link in self._links:
            if not link.spiking and link.source != self.net.input.name:  # values that nobody shows: all may matter
                row = image.rows[link.row]
                row.mac_nonzero, row.ann_mac_nonzero = row.mac, row.dense_mac
        for row in image.rows.values():
            row.ann_mac_nonzero = min(row.ann_mac_nonzero, row.dense_mac)  # two sources of one convolution overlap
            if row.kind == "readout":
                row.activations_nonzero = row.activations
            if row.neuron_updates:
                self._book_updates(image, row)
        self._done.append(ImageCounts(name=image.name, extent=image.extent, layers=tuple(image.rows.values())))

    def _check_whole(self, image: _Image) -> None:
        missing = [] if image.codes_seen == image.extent[0] * image.extent[1] else [self.net.input.name]
        for name, row in image.rows.items():
            if isinstance(self.net.nodes[name], IntegerLif):
                places = row.shape[1] * row.shape[2] * self.net.host.steps
                missing += [name] if image.seen.get(name, 0) != places else []
        if missing:
            raise InternalError(f"{image.name}: not every place of {', '.join(missing)} was shown exactly once a step")

    def _book_updates(self, image: _Image, row: LayerCounts) -> None:
        links = [link for link in self._links if link.row == row.name]
        for step in range(self.net.host.steps):
            receiving = _receiving(image, links, step, row.shape)
            active = int(np.count_nonzero(receiving)) * (row.shape[0] // len(receiving)) * row.populations
            row.neuron_updates_active += active
            row.per_step["neuron_updates_active"][step] = active
        row.neuron_updates_idle = row.neuron_updates - row.neuron_updates_active


def _receiving(image: _Image, links: Sequence[Connection], step: int, shape: Shape) -> BoolArray:
    """(G, H, W): where the neurons of a group of channels receive anything at this step."""
    maps: list[BoolArray] = []
    for link in links:
        groups = _groups_of(link, image.shapes)
        arrived = np.ones((groups, *image.shapes[link.source][1:]), np.bool_)
        if link.spiking:
            arrived = image.arrived[(link.source, groups)][step]
        if isinstance(link.node, IntegerDense):
            maps.append(np.full((1, *shape[1:]), bool(arrived.any())))
            continue
        if isinstance(link.node, IntegerConv):
            arrived = reached(arrived, link.node)
        if arrived.shape[1:] != shape[1:]:  # a flatten lies between
            channels = shape[0] // (arrived.shape[1] * arrived.shape[2])
            arrived = np.repeat(arrived, channels // len(arrived), axis=0).reshape(shape)
        maps.append(arrived)
    together = np.zeros((lcm(*(len(found) for found in maps)), *shape[1:]), np.bool_)
    for found in maps:
        together |= np.repeat(found, len(together) // len(found), axis=0)
    return together


def _cropped(counted: Floats, link: Connection, image: _Image, shown: NDArray[Any] | RowSums, origin: Pair) -> Floats:
    """Weights that events meet, in the shape of their histogram: of a matrix only the part that was shown."""
    if not isinstance(link.node, IntegerDense):
        return counted
    height, width = shown.shape[-2:]
    rows, columns = slice(origin[0], origin[0] + height), slice(origin[1], origin[1] + width)
    part: Floats = counted.reshape(image.shapes[link.source])[:, rows, columns]
    return part


def _groups_of(link: Connection, shapes: Mapping[str, Shape]) -> int:
    """How many parts of the source's channels reach different neurons."""
    if isinstance(link.node, IntegerConv):
        return link.node.groups
    return shapes[link.source][0] if link.node is None else 1


def _weights_at(link: Connection) -> Floats:
    """Weights other than 0 that an event meets: (I, kh, kw) for a convolution, (I,) for a matrix, 1 for a bare edge."""
    if isinstance(link.node, IntegerConv):
        return nonzero_outputs(link.node)
    if isinstance(link.node, IntegerDense):
        counted: Floats = (link.node.weight != 0).sum(axis=0, dtype=np.float64)
        return counted
    return np.ones(())


def _outputs(link: Connection) -> int:
    """Neurons of one population that an input reaches through one tap."""
    if isinstance(link.node, IntegerConv):
        return int(link.node.weight.shape[0]) // link.node.groups
    return int(link.node.weight.shape[0]) if link.node is not None else 1


def _sum(values: NDArray[np.float64]) -> int:
    """Sum of integers held in float64, exact below 2**53."""
    return int(values.sum())
