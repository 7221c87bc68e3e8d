"""The cases that other counters get wrong, each with the right answer by brute force.

What is known of the others stands beside each case; none of them is run here (see tests/external/test_counters.py).
"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.results import Counts
from neurodeploy.networks.macs import count_macs
from neurodeploy.quantize.network import IntegerConv, IntegerInput, IntegerLif, IntegerNetwork, IntegerReadout
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from tests.energy_nets import brute_force, chain, targets_of


def macs(module: nn.Module, *inputs: torch.Tensor) -> int:
    """Products inside the image, with nothing left uncovered."""
    found = count_macs(module, inputs)
    assert found.not_covered == ()
    return found.total.in_bounds


# --- networks without spikes --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("cells", "gates"), [(nn.LSTM, 4), (nn.GRU, 3), (nn.RNN, 1)])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_recurrent_layers(cells, gates, bidirectional):
    """SpikingJelly counts an LSTM as 0; NeuroBench's counter fails inside and prints 0.0."""
    inputs, hidden, steps, batch, layers = 5, 7, 6, 3, 2
    net = cells(inputs, hidden, num_layers=layers, bidirectional=bidirectional)
    expected = 0
    for layer, _direction, _step, _sample in itertools.product(
        range(layers), range(1 + bidirectional), range(steps), range(batch)
    ):
        before = inputs if layer == 0 else hidden * (1 + bidirectional)
        expected += gates * hidden * (before + hidden)
    assert macs(net, torch.zeros(steps, batch, inputs)) == expected


@pytest.mark.parametrize("heads", [1, 4])
def test_attention(heads):
    """Silently absent in NeuroBench: only a Linear behind it is counted."""
    width, tokens, batch = 8, 6, 2
    net = nn.MultiheadAttention(width, heads, batch_first=True)
    x = torch.zeros(batch, tokens, width)
    expected = 0
    for _ in range(batch):
        expected += 4 * tokens * width * width  # query, key, value, output
        for _head, _query, _key in itertools.product(range(heads), range(tokens), range(tokens)):
            expected += 2 * (width // heads)  # the score, and the weighted sum
    assert macs(net, x, x, x) == expected


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("padding", [0, 1])
def test_transposed_convolution(stride, padding):
    """Silently absent in NeuroBench."""
    net = nn.ConvTranspose2d(2, 3, 3, stride=stride, padding=padding, bias=False)
    height, width = 4, 5
    out_height, out_width = ((side - 1) * stride - 2 * padding + 3 for side in (height, width))
    expected = 0
    for row, column, tap_row, tap_column in itertools.product(range(height), range(width), range(3), range(3)):
        y, x = row * stride - padding + tap_row, column * stride - padding + tap_column
        expected += 2 * 3 if 0 <= y < out_height and 0 <= x < out_width else 0
    assert macs(net, torch.zeros(1, 2, height, width)) == expected


def test_products_outside_of_any_layer():
    """``q @ k.T @ v`` has no module: counters that hook modules miss it."""

    class Functional(nn.Module):
        def forward(self, q: torch.Tensor) -> torch.Tensor:
            return q @ q.transpose(-1, -2) @ q

    rows, columns = 8, 4
    assert macs(Functional(), torch.zeros(rows, columns)) == 2 * rows * rows * columns


def test_a_network_that_is_one_layer():
    """0 in NeuroBench, which looks at children only."""
    assert macs(nn.Linear(6, 5), torch.zeros(3, 6)) == 3 * 6 * 5


def test_tokens_are_counted_each():
    """torchinfo ignores the further axes of a Linear's input."""
    assert macs(nn.Linear(6, 5), torch.zeros(2, 7, 6)) == 2 * 7 * 6 * 5


@pytest.mark.parametrize("stride", [(1, 1), (2, 2), (2, 1)])
@pytest.mark.parametrize("padding", [(0, 0), (1, 1), (2, 0)])
def test_zero_padding_and_strides(stride, padding):
    """torch's own counter, fvcore and torchinfo count the taps on the padding: up to a third more on small maps."""
    net = nn.Conv2d(2, 3, 3, stride=stride, padding=padding, bias=False)
    height, width = 5, 6
    out = [(side + 2 * pad - 3) // step + 1 for side, pad, step in zip((height, width), padding, stride, strict=True)]
    expected = 0
    for row, column, tap_row, tap_column in itertools.product(range(out[0]), range(out[1]), range(3), range(3)):
        y, x = row * stride[0] - padding[0] + tap_row, column * stride[1] - padding[1] + tap_column
        expected += 2 * 3 if 0 <= y < height and 0 <= x < width else 0
    assert macs(net, torch.zeros(1, 2, height, width)) == expected


def test_reflected_padding_is_data():
    """4x4 ones, reflected to 6x6: every tap is in bounds."""
    net = nn.Conv2d(1, 1, 3, padding=1, padding_mode="reflect", bias=False)
    assert macs(net, torch.ones(1, 1, 4, 4)) == 16 * 9


# --- spikes -------------------------------------------------------------------------------------------------------


def counted(net: IntegerNetwork, codes: np.ndarray) -> tuple[Counts, Trace]:
    """Counts of one run, and the run itself."""
    counter, trace = OperationCounter(net), Trace(steps=net.host.steps)
    run(net, codes, observer=counter)
    run(net, codes, observer=trace)
    return counter.counts(), trace


def spiking(
    weight: np.ndarray, *, levels: tuple[int, ...] = (0,), steps: int = 1, stride: int = 1, padding: int = 1
) -> IntegerNetwork:
    """input -> lif0 -> a convolution with these weights -> lif1 -> output."""
    out, channels = weight.shape[:2]
    one = np.eye(channels, dtype=np.int64)[:, :, None, None]
    return chain(
        [
            IntegerInput("input", channels),
            IntegerConv("conv0", one),
            IntegerLif("lif0", 5, np.zeros(channels, np.int64), levels=levels),
            IntegerConv("conv1", weight, stride=(stride, stride), padding=(padding, padding)),
            IntegerLif("lif1", 1, np.zeros(out, np.int64)),
            IntegerConv("last", np.ones((1, out, 1, 1), np.int64)),
            IntegerReadout("output", np.zeros(1, np.int64)),
        ],
        steps=steps,
    )


def row(counts: Counts, name: str):
    return next(layer for layer in counts.layers if layer.name == name)


CODES = np.random.default_rng(3).integers(0, 12, (2, 6, 7))


@pytest.mark.parametrize("values", [(0, 1), (0, 255), (1, 1), (-1, 1)])
def test_a_binarised_image_is_analog(values):
    """NeuroBench decides by the values of a call: an ANN's first layer on a black and white image becomes ACs."""
    net = spiking(np.ones((3, 2, 3, 3), np.int64))
    codes = np.where(CODES > 5, values[1], values[0])
    counts, _ = counted(net, codes)
    first = row(counts, "lif0")
    assert first.sop == 0
    assert first.mac == 2 * 2 * 6 * 7  # two channels of one by one taps, every code a product, zero or not
    assert first.mac_nonzero == 2 * 1 * 6 * 7 - int((codes == 0).sum())


@pytest.mark.parametrize("theta", [1, 2, 7, 64])
def test_the_height_of_a_spike_does_not_matter(theta):
    """{0, theta} spikes become MACs in NeuroBench and SpikingJelly; here theta sits in the weights behind."""
    weight = np.random.default_rng(0).integers(-4, 5, (3, 2, 3, 3))
    plain, trace = counted(spiking(weight), CODES)
    scaled, _ = counted(spiking(theta * weight), CODES)
    expected = brute_force(spiking(weight), trace, CODES)
    assert row(scaled, "lif1").sop == row(plain, "lif1").sop == expected.sop["lif1"]
    assert row(scaled, "lif1").mac == row(plain, "lif1").mac == 0


def test_integer_activations_are_the_spikes_of_their_populations():
    """A value of 3 is three spikes, each with its fan-out; a counter of nonzero inputs would count one."""
    net = spiking(np.ones((3, 2, 3, 3), np.int64), levels=(0, -2, -4))
    counts, trace = counted(net, CODES)
    values = trace.layers["lif0"].fired[0].sum(axis=0)
    assert values.max() == 3
    expected = 0
    for place in np.ndindex(values.shape):
        expected += int(values[place]) * sum(1 for _ in targets_of(net.nodes["conv1"], place, values.shape))
    nonzero = sum(
        sum(1 for _ in targets_of(net.nodes["conv1"], place, values.shape)) for place in np.argwhere(values).tolist()
    )
    assert row(counts, "lif1").sop == expected > nonzero


def test_average_pooled_spikes_are_no_spikes_any_more():
    """Spikes into the pooling are synaptic operations; its sums, into the next convolution, are graded: MACs."""
    pool = IntegerConv("pool", np.ones((2, 1, 2, 2), np.int64), (2, 2), groups=2)
    behind = IntegerConv("behind", np.ones((3, 2, 3, 3), np.int64), padding=(1, 1))
    net = chain(
        [
            IntegerInput("input", 2),
            IntegerConv("conv0", np.eye(2, dtype=np.int64)[:, :, None, None]),
            IntegerLif("lif0", 5, np.zeros(2, np.int64)),
            pool,
            behind,
            IntegerLif("lif1", 1, np.zeros(3, np.int64)),
            IntegerConv("last", np.ones((1, 3, 1, 1), np.int64)),
            IntegerReadout("output", np.zeros(1, np.int64)),
        ],
        steps=1,
    )
    codes = np.random.default_rng(3).integers(0, 12, (2, 6, 8))
    counts, trace = counted(net, codes)
    fired = trace.layers["lif0"].fired[0, 0]
    into_pool = sum(sum(1 for _ in targets_of(pool, place, fired.shape)) for place in np.argwhere(fired).tolist())
    taps = sum(sum(1 for _ in targets_of(behind, place, (2, 3, 4))) for place in np.ndindex(2, 3, 4))
    assert row(counts, "pool").sop == into_pool > 0
    assert row(counts, "lif1").sop == 0
    assert row(counts, "lif1").mac == taps


def test_zero_weights_are_told_apart():
    """SpikingJelly counts them, NeuroBench leaves them out; both figures are given."""
    weight = np.random.default_rng(1).integers(-1, 2, (3, 2, 3, 3))
    assert (weight == 0).any()
    counts, trace = counted(spiking(weight), CODES)
    expected = brute_force(spiking(weight), trace, CODES)
    found = row(counts, "lif1")
    assert (found.sop, found.sop_nonzero) == (expected.sop["lif1"], expected.sop_nonzero["lif1"])
    assert found.sop_nonzero < found.sop


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
def test_borders_and_strides_by_the_place_of_every_spike(stride, padding):
    """A mean rate times dense operations is off at borders (syops: by 18 %), ceil(k / stride)^2 by 38 %."""
    net = spiking(np.ones((3, 2, 3, 3), np.int64), stride=stride, padding=padding, steps=3)
    counts, trace = counted(net, CODES)
    expected = brute_force(net, trace, CODES)
    assert row(counts, "lif1").sop == expected.sop["lif1"] > 0
    assert row(counts, "lif1").neuron_updates_active == expected.active["lif1"]


def test_direct_coding_multiplies_at_every_step():
    """The analog first layer is computed T times, unless a run really computed it once."""
    one, many = (counted(spiking(np.ones((3, 2, 3, 3), np.int64), steps=steps), CODES)[0] for steps in (1, 5))
    assert row(many, "lif0").mac == 5 * row(one, "lif0").mac
    assert row(many, "lif0").mac_once == row(one, "lif0").mac
