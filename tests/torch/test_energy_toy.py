"""The toy network whose counts NeuroBench 2.3.0 and SpikingJelly 2.0.0 were found to reproduce.

A small float network runs in torch with the neurons of snnTorch or SpikingJelly; its spikes are shown to the counter.
The nearest membrane is 1.2e-4 from the threshold, so the order of summation cannot flip a spike.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.results import Counts
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
)
from tests.energy_nets import chain

T, B = 8, 4
SHAPES = [(4, 1, 3, 3), (8, 4, 3, 3), (10, 128)]  # convolution, padding 1; convolution, stride 2, padding 1; matrix
Cell = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


WEIGHTS = [torch.randn(shape, generator=_seeded(10 + i)) * 0.6 for i, shape in enumerate(SHAPES)]
BIASES = [torch.randn(shape[0], generator=_seeded(20 + i)) * 0.05 for i, shape in enumerate(SHAPES)]
_DATA = _seeded(0)
EVENTS = (torch.rand(B, T, 1, 8, 8, generator=_DATA) < 0.15).float()
IMAGE = torch.rand(B, 1, 8, 8, generator=_DATA)


def _leaky(v: torch.Tensor, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """snnTorch's Leaky(beta=0.9): the reset is subtracted one step late."""
    v = 0.9 * v + current - (v > 1).float()
    return v, (v > 1).float()


def _lif(v: torch.Tensor, current: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """SpikingJelly's LIFNode(tau=10, decay_input=False, v_reset=None)."""
    v = 0.9 * v + current
    spikes = (v >= 1).float()
    return v - spikes, spikes


def _layer(place: int, x: torch.Tensor) -> torch.Tensor:
    if place == 2:
        return F.linear(x.flatten(1), WEIGHTS[2], BIASES[2])
    return F.conv2d(x, WEIGHTS[place], BIASES[place], stride=1 + place, padding=1)


def _network(*, events: bool, steps: int) -> IntegerNetwork:
    """The toy's shape; only the geometry matters to the counter, so every weight is 1."""
    convs = [IntegerConv(f"c{i + 1}", np.ones(SHAPES[i], np.int64), (1 + i,) * 2, (1, 1)) for i in range(2)]
    lifs = [IntegerLif(f"l{i + 1}", 1, np.ones(shape[0], np.int64)) for i, shape in enumerate(SHAPES)]
    nodes: list[IntegerNode] = [IntegerInput("input", 1)]
    if events:
        nodes.append(IntegerLif("events", 1, np.zeros(1, np.int64)))
    nodes += [convs[0], lifs[0], convs[1], lifs[1], IntegerFlatten("flat")]
    nodes += [IntegerDense("f1", np.ones(SHAPES[2], np.int64)), lifs[2]]
    return chain(nodes, steps=steps)


def _show(counter: OperationCounter, step: int, name: str, fired: torch.Tensor) -> None:
    marks = fired.numpy().astype(bool)
    marks = marks.reshape(1, *marks.shape, *(1,) * (3 - marks.ndim))
    nothing = np.zeros(marks.shape[1:], np.int64)
    extent = (marks.shape[2], marks.shape[3])
    counter.layer(
        step=step, name=name, current=nothing, u=nothing, v=nothing[None], fired=marks, origin=(0, 0), extent=extent
    )


def _count(cell: Cell, *, events: bool) -> tuple[OperationCounter, Counts]:
    data = EVENTS if events else IMAGE.unsqueeze(1).repeat(1, T, 1, 1, 1)
    counter = OperationCounter(_network(events=events, steps=T))
    v = [torch.zeros(B, 4, 8, 8), torch.zeros(B, 8, 4, 4), torch.zeros(B, 10)]
    spikes: list[list[torch.Tensor]] = []
    for step in range(T):
        x = data[:, step]
        spikes.append([x] if events else [])
        for place in range(3):
            v[place], x = cell(v[place], _layer(place, x))
            spikes[-1].append(x)
    for sample in range(B):
        counter.codes(codes=np.ones((1, 8, 8), np.int64), origin=(0, 0), extent=(8, 8))
        for step in range(T):
            for name, fired in zip((["events"] if events else []) + ["l1", "l2", "l3"], spikes[step], strict=True):
                _show(counter, step, name, fired[sample])
    return counter, counter.counts()


def _rows(counts: Counts) -> dict[str, object]:
    return {layer.name: layer for layer in counts.layers}


def test_the_data_is_that_of_the_record():
    assert EVENTS.sum() == 306
    assert float(IMAGE.double().sum()) == pytest.approx(126.946859, abs=1e-5)


def test_events_give_neurobenchs_counts():
    _, counts = _count(_leaky, events=True)
    rows = _rows(counts)
    assert [rows[name].sop / B for name in ("l1", "l2", "l3")] == [2400, 1542, 982.5]
    assert [image.total("sop") for image in counts.images] == [4918, 4860, 5256, 4664]
    per_step = [sum(rows[name].per_step["sop"][step] for name in ("l1", "l2", "l3")) for step in range(T)]
    assert per_step == [2252, 3114, 2924, 2588, 2368, 1570, 2870, 2012]
    assert [rows[name].spikes / B for name in ("l1", "l2", "l3")] == [96.25, 98.25, 17.5]
    assert counts.total("mac") == 0
    assert T * counts.mean("dense_mac") == 56704
    assert [T * rows[name].dense_mac / B for name in ("l1", "l2", "l3")] == [15488, 30976, 10240]
    assert T * counts.mean("dense_mac_padded") == 65536
    assert [T * rows[name].dense_mac_padded / B for name in ("l1", "l2", "l3")] == [18432, 36864, 10240]
    assert sum(rows[name].neuron_updates for name in ("l1", "l2", "l3")) / B == 3152


def test_direct_coding_gives_neurobenchs_counts():
    _, counts = _count(_leaky, events=False)
    rows = _rows(counts)
    assert [rows[name].sop / B for name in ("l1", "l2", "l3")] == [0, 1832, 1067.5]
    assert [image.total("sop") for image in counts.images] == [2512, 3496, 2776, 2814]
    assert counts.mean("mac") == 15488
    assert counts.mean("mac_once") == 15488 / T
    assert [rows[name].spikes / B for name in ("l1", "l2", "l3")] == [124.5, 106.75, 17.25]
    assert T * counts.mean("dense_mac") == 56704
    assert counts.mean("neuron_updates") == 3152


@pytest.mark.parametrize(("events", "expected"), [(True, [2400, 1588, 1080]), (False, [0, 1990, 1242.5])])
def test_spikingjellys_neuron_gives_its_synop(events, expected):
    _, counts = _count(_lif, events=events)
    assert [_rows(counts)[name].sop / B for name in ("l1", "l2", "l3")] == expected


def test_the_ann_with_its_own_sparsity():
    counter = OperationCounter(_network(events=False, steps=1))
    first = F.relu(_layer(0, IMAGE))
    second = F.relu(_layer(1, first))
    for sample in range(B):
        counter.codes(codes=np.ones((1, 8, 8), np.int64), origin=(0, 0), extent=(8, 8))
        for name, x in (("l1", first), ("l2", second), ("l3", torch.ones(B, 10))):
            _show(counter, 0, name, x[sample] > 0)
    counts = counter.counts()
    assert [layer.ann_mac_nonzero / B for layer in counts.layers] == [1936, 1136, 587.5]
    assert counts.mean("ann_mac_nonzero") == 3659.5
    assert counts.mean("dense_mac") == 7088
    assert counts.mean("dense_mac_padded") == 8192
