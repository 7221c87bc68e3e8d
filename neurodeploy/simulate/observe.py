"""Looking on while a network runs: the protocol, and an observer that keeps everything."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, TypeGuard, runtime_checkable

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from neurodeploy.simulate.kernel.counts import RunCounts

IntArray = NDArray[np.int64]
BoolArray = NDArray[np.bool_]
Pair = tuple[int, int]


class Observer(Protocol):
    """What a simulator calls while it runs.

    All arrays are views that later steps may overwrite: copy what is kept. When an image runs in tiles, every call
    carries only the neurons that the tile owns, so that sums over the calls of all tiles equal those of an untiled run.
    ``origin`` is the (row, column) of the first owned neuron in the whole layer and ``extent`` the (H, W) of the whole
    layer. Layers without a grid (after a flatten) have the shape (N, 1, 1).
    """

    def codes(self, *, codes: IntArray, origin: Pair, extent: Pair) -> None:
        """The input of the network, once a run (and tile): (C, h, w), or (T, C, h, w) when a sequence was given."""

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
        """One spiking layer after one time step.

        Args:
            step: Time step, from 0.
            name: Node name of the layer.
            current: (C, h, w), the summed integer current that arrived.
            u: (C, h, w), the synaptic current after the step.
            v: (D, C, h, w), the membranes of the D populations after the step (0 where they fired).
            fired: (D, C, h, w), which populations spiked.
            origin: (row, column) of the first neuron in the whole layer.
            extent: (H, W) of the whole layer.
        """


@runtime_checkable
class CountObserver(Observer, Protocol):
    """An observer that can do with spike counts, which the kernel has, and needs no currents and membranes.

    It is an :class:`Observer` as well, for simulators that show every step. While ``takes_counts`` holds, the kernel
    calls ``codes`` and ``run_counts`` after a run, and never ``layer``. Where it has

    - ``keeps_values`` that is true, the counts of every place are there too;
    - ``owned``, rows and columns as slices, only those are counted, of every layer: a tile owns no more;
    - ``links(size=...)``, it gives for codes of a size (rows, columns) the convolutions behind layers, by the layers'
      names, of which the kernel counts what spikes arrive at; the same object where they are the same.
    """

    @property
    def takes_counts(self) -> bool:
        """Whether it is content with counts in the run to come."""

    def run_counts(self, *, counts: RunCounts, origin: Pair, extent: Pair | None) -> None:
        """All spiking layers after all their time steps.

        Args:
            counts: What was counted; views that the next run writes over.
            origin: (row, column) of the first neuron in every layer.
            extent: (H, W) of every layer where a tile has run; None where all of them has.
        """


def takes_counts(observer: object) -> TypeGuard[CountObserver]:
    """Whether an observer is content with spike counts."""
    # what isinstance would say, at a tenth of what it takes for a protocol
    return hasattr(observer, "run_counts") and bool(getattr(observer, "takes_counts", False))


@dataclass
class LayerTrace:
    """One spiking layer over a run: ``current``, ``u`` (T, C, H, W); ``v``, ``fired`` (T, D, C, H, W)."""

    current: IntArray
    u: IntArray
    v: IntArray
    fired: BoolArray


@dataclass
class Trace:
    """An observer that keeps copies of everything, put together from tiles if there are any.

    Meant for proofs and tests: it holds all steps of all layers in memory.
    """

    steps: int
    layers: dict[str, LayerTrace] = field(default_factory=dict)
    input: IntArray | None = None

    def codes(self, *, codes: IntArray, origin: Pair, extent: Pair) -> None:
        """Keeps the codes."""
        if self.input is None:
            self.input = np.zeros((*codes.shape[:-2], *extent), np.int64)
        self.input[(..., *_window(codes, origin))] = codes

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
        """Keeps one step of one layer."""
        if name not in self.layers:
            one, many = (self.steps, *current.shape[:-2], *extent), (self.steps, *v.shape[:-2], *extent)
            self.layers[name] = LayerTrace(
                current=np.zeros(one, np.int64),
                u=np.zeros(one, np.int64),
                v=np.zeros(many, np.int64),
                fired=np.zeros(many, np.bool_),
            )
        kept = self.layers[name]
        place = (step, ..., *_window(current, origin))
        kept.current[place] = current
        kept.u[place] = u
        kept.v[place] = v
        kept.fired[place] = fired


def _window(array: IntArray, origin: Pair) -> tuple[slice, slice]:
    height, width = array.shape[-2:]
    return slice(origin[0], origin[0] + height), slice(origin[1], origin[1] + width)
