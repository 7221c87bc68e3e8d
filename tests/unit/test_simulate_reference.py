"""The reference against an independent one: plain Python integers, neuron by neuron, written event by event."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from neurodeploy.errors import UserError
from neurodeploy.graph.spec import HostSide
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerDense,
    IntegerFlatten,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerNode,
    IntegerReadout,
)
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import conv, decay, exact_dtype, lif_step, run, wrap

# the independent one


def brute_wrap(value: int, bits: int) -> int:
    """Python's own two's complement: through bytes of an unsigned remainder."""
    remainder = value % 2**bits
    return remainder - 2**bits if remainder >= 2 ** (bits - 1) else remainder


def brute_decay(value: int, amount: int) -> int:
    return math.trunc(Fraction(value * (4096 - amount), 4096))


class BruteNeuron:
    """One channel's neuron at one place, with its populations."""

    def __init__(self, i_decay: int, v_decay: int, vth: int, biases: list[int]) -> None:
        self.i_decay, self.v_decay, self.vth, self.biases = i_decay, v_decay, vth, biases
        self.u = 0
        self.v = [0] * len(biases)

    def step(self, current: int) -> list[bool]:
        u = brute_wrap(brute_decay(self.u, self.i_decay) + brute_wrap(current * 64, 32), 32)
        if u > 8388608:
            u -= 16777216
        elif u <= -8388608:
            u += 16777216
        self.u = u
        fired = []
        for population, bias in enumerate(self.biases):
            v = brute_decay(self.v[population], self.v_decay) + u + bias * 64
            v = min(max(v, -8388607), 8388607)
            spike = v > self.vth * 64
            self.v[population] = 0 if spike else v
            fired.append(spike)
        return fired


def brute_conv(x: dict[tuple[int, int, int], int], node: IntegerConv, height: int, width: int) -> dict:
    """Scatter form: every input event adds its column of weights to the outputs that it reaches."""
    outputs, fan_in, rows, columns = node.weight.shape
    per_group_out = outputs // node.groups
    out_height = (height + 2 * node.padding[0] - node.dilation[0] * (rows - 1) - 1) // node.stride[0] + 1
    out_width = (width + 2 * node.padding[1] - node.dilation[1] * (columns - 1) - 1) // node.stride[1] + 1
    out = {(o, i, j): 0 for o in range(outputs) for i in range(out_height) for j in range(out_width)}
    for (channel, row, column), value in x.items():
        group, inner = divmod(channel, fan_in)
        for o in range(group * per_group_out, (group + 1) * per_group_out):
            for a in range(rows):
                for b in range(columns):
                    i, i_rest = divmod(row + node.padding[0] - a * node.dilation[0], node.stride[0])
                    j, j_rest = divmod(column + node.padding[1] - b * node.dilation[1], node.stride[1])
                    if i_rest == 0 and j_rest == 0 and (o, i, j) in out:
                        out[o, i, j] += value * int(node.weight[o, inner, a, b])
    return {place: brute_wrap(value, 24) for place, value in out.items()}


def brute_run(net: IntegerNetwork, codes: NDArray[np.int64]) -> tuple[dict, dict]:
    """The readout's sums, and u, v, spikes, current of every layer by (name, step, place)."""
    neurons: dict[tuple, BruteNeuron] = {}
    history: dict[tuple, tuple] = {}
    totals: dict[tuple, int] = {}
    for step in range(net.host.steps):
        frame = codes if codes.ndim == 3 else codes[step]
        values: dict[str, dict] = {}
        for name, node in net.nodes.items():
            arriving: dict[tuple, int] = {}
            for source, target in net.edges:
                if target == name:
                    for place, value in values[source].items():
                        arriving[place] = arriving.get(place, 0) + value
            if isinstance(node, IntegerInput):
                values[name] = {place: int(value) for place, value in np.ndenumerate(frame)}
            elif isinstance(node, IntegerConv):
                height, width = (1 + max(place[axis] for place in arriving) for axis in (1, 2))
                values[name] = brute_conv(arriving, node, height, width)
            elif isinstance(node, IntegerFlatten):
                flat = [arriving[place] for place in sorted(arriving)]
                values[name] = {(index, 0, 0): value for index, value in enumerate(flat)}
            elif isinstance(node, IntegerDense):
                values[name] = {
                    (o, 0, 0): sum(int(node.weight[o, place[0]]) * value for place, value in arriving.items())
                    for o in range(len(node.weight))
                }
            elif isinstance(node, IntegerLif):
                values[name] = {}
                for place, current in arriving.items():
                    key = (name, *place)
                    if key not in neurons:
                        one = [int(np.broadcast_to(d, node.bias.shape)[place[0]]) for d in (node.i_decay, node.v_decay)]
                        bias = int(node.bias[place[0]])
                        neurons[key] = BruteNeuron(one[0], one[1], node.vth, [bias + level for level in node.levels])
                    fired = neurons[key].step(current)
                    history[name, step, *place] = (current, neurons[key].u, tuple(neurons[key].v), tuple(fired))
                    values[name][place] = sum(fired)
            elif isinstance(node, IntegerReadout):
                for place, value in arriving.items():
                    bias = int(node.bias[place[0] % len(node.bias)])
                    totals[place] = totals.get(place, 0) + value + bias
    return totals, history


def assert_equal_to_brute(net: IntegerNetwork, codes: NDArray[np.int64]) -> None:
    trace = Trace(net.host.steps)
    out = run(net, codes, observer=trace)
    totals, history = brute_run(net, codes)
    assert {place: int(value) for place, value in np.ndenumerate(out)} == totals
    compared = 0
    for (name, step, *place), (current, u, v, fired) in history.items():
        layer, where = trace.layers[name], tuple(place)
        assert layer.current[step][where] == current
        assert layer.u[step][where] == u
        assert tuple(layer.v[(step, slice(None), *where)].tolist()) == v
        assert tuple(layer.fired[(step, slice(None), *where)].tolist()) == fired
        compared += 1
    assert compared == sum(layer.u.size for layer in trace.layers.values())


# random networks


@st.composite
def networks(draw: st.DrawFn) -> tuple[IntegerNetwork, NDArray[np.int64]]:
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    steps, depth = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    channels = [draw(st.sampled_from([1, 2, 4])) for _ in range(depth + 1)]
    large = draw(st.booleans())
    nodes: dict[str, IntegerNode] = {"input": IntegerInput("input", channels[0])}
    edges: list[tuple[str, str]] = []
    last = "input"
    for layer in range(depth):
        kernel = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
        reach = [dilation[axis] * (kernel[axis] - 1) for axis in range(2)]
        groups = draw(st.sampled_from([1, np.gcd(channels[layer], channels[layer + 1])]))
        name = f"conv{layer}"
        nodes[name] = IntegerConv(
            name,
            rng.integers(-256, 255, (channels[layer + 1], channels[layer] // groups, *kernel)),
            stride=(draw(st.integers(1, 2)), draw(st.integers(1, 2))),
            padding=(reach[0] // 2 + draw(st.integers(0, 1)), reach[1] // 2 + draw(st.integers(0, 1))),
            dilation=dilation,
            groups=int(groups),
        )
        decays = [
            draw(st.sampled_from([0, 1, 163, 2048, 4095, 4096]))
            if draw(st.booleans())
            else rng.integers(0, 4097, channels[layer + 1])
            for _ in range(2)
        ]
        nodes[f"lif{layer}"] = IntegerLif(
            f"lif{layer}",
            vth=int(rng.integers(0, 131072 if large else 300)),
            bias=rng.integers(-4096, 4096, channels[layer + 1]) // (1 if large else 64),
            v_decay=decays[0],
            i_decay=decays[1],
            levels=draw(st.sampled_from([(0,), (0, -40), (0, -100, -300), (5, 0)])),
        )
        edges += [(last, name), (name, f"lif{layer}")]
        last = f"lif{layer}"
    if draw(st.booleans()):
        nodes["flatten"] = IntegerFlatten("flatten")
        edges.append((last, "flatten"))
        last = "flatten"
    nodes["output"] = IntegerReadout("output", np.array([7]))
    edges.append((last, "output"))
    net = IntegerNetwork(nodes, tuple(edges), HostSide(steps=steps))
    span = 2**18 if large else 300
    size = (channels[0], draw(st.integers(3, 5)), draw(st.integers(3, 5)))
    codes = rng.integers(-span, span, (steps, *size) if draw(st.booleans()) else size)
    return net, codes


@settings(max_examples=60)
@given(networks())
def test_every_state_equals_the_brute_force_one(case: tuple[IntegerNetwork, NDArray[np.int64]]) -> None:
    assert_equal_to_brute(*case)


def test_sum_edges_dense_and_readout_bias_equal_the_brute_force_one() -> None:
    rng = np.random.default_rng(5)
    nodes: dict[str, IntegerNode] = {
        "input": IntegerInput("input", 2),
        "conv0": IntegerConv("conv0", rng.integers(-20, 20, (3, 2, 3, 3)), padding=(1, 1)),
        "lif0": IntegerLif("lif0", vth=800, bias=np.array([3, -4, 5]), v_decay=1000),
        "conv1": IntegerConv("conv1", rng.integers(-200, 200, (3, 3, 3, 3)), padding=(1, 1)),
        "lif1": IntegerLif("lif1", vth=300, bias=np.array([30, 0, 1]), levels=(0, -300)),
        "flatten": IntegerFlatten("flatten"),
        "dense": IntegerDense("dense", rng.integers(-9, 9, (5, 36))),
        "output": IntegerReadout("output", np.arange(5)),
    }
    edges = (
        *(("input", "conv0"), ("conv0", "lif0"), ("lif0", "conv1"), ("conv1", "lif1"), ("conv0", "lif1")),
        *(("lif1", "flatten"), ("flatten", "dense"), ("dense", "output")),
    )
    net = IntegerNetwork(nodes, edges, HostSide(steps=3))
    codes = rng.integers(0, 100, (3, 2, 3, 4))
    assert_equal_to_brute(net, codes)
    trace = Trace(3)
    run(net, codes, observer=trace)
    assert 0.05 < np.mean(trace.layers["lif1"].fired) < 0.95, "a test in which nothing happens tests nothing"


# the pieces


@given(st.integers(-(2**40), 2**40), st.integers(0, 4096))
def test_decay_truncates_toward_zero(value: int, amount: int) -> None:
    exact = abs(value) * (4096 - amount)
    expected = (exact - exact % 4096) // 4096
    assert decay(np.array([value]), amount)[0] == (expected if value >= 0 else -expected)


@given(st.integers(-(2**45), 2**45), st.sampled_from([24, 32]))
def test_wrap_is_twos_complement(value: int, bits: int) -> None:
    wrapped = int(wrap(np.array([value]), bits)[0])
    assert -(2 ** (bits - 1)) <= wrapped < 2 ** (bits - 1)
    assert (wrapped - value) % 2**bits == 0


@pytest.mark.parametrize(
    ("arriving", "kept"),
    [
        (131071, 131071 << 6),  # the largest current that fits
        (131072, 1 << 23),  # +2**23 is legal
        (131073, (131073 << 6) - (1 << 24)),  # beyond it wraps around
        (-131071, -131071 << 6),
        (-131072, 1 << 23),  # -2**23 is not legal
    ],
)
def test_the_current_register_wraps_at_24_bits(arriving: int, kept: int) -> None:
    zero = np.zeros(1, np.int64)
    u, _, _ = lif_step(zero, zero, np.array([arriving]), i_decay=4096, v_decay=4096, vth=131071, bias=0)
    assert u[0] == kept


def test_the_membrane_saturates_and_does_not_wrap() -> None:
    u, v = np.zeros(2, np.int64), np.array([8388607, -8388607])
    _, v, fired = lif_step(u, v, np.array([100000, -100000]), i_decay=4096, v_decay=0, vth=131071, bias=4095)
    assert v.tolist() == [0, -8388607]
    assert fired.tolist() == [True, False]


@given(st.integers(0, 131070), st.sampled_from([-1, 0, 1]))
def test_a_spike_needs_more_than_the_threshold(vth: int, excess: int) -> None:
    zero = np.zeros(1, np.int64)
    u, v, fired = lif_step(zero, zero, np.array([vth + excess]), i_decay=4096, v_decay=0, vth=vth, bias=0)
    assert bool(fired[0]) == (excess > 0)
    assert v[0] == (0 if excess > 0 else u[0])


def test_the_bias_enters_the_membrane_and_not_the_current() -> None:
    zero = np.zeros(1, np.int64)
    u, v, _ = lif_step(zero, zero, np.array([10]), i_decay=0, v_decay=0, vth=100, bias=5)
    assert (u[0], v[0]) == (10 << 6, 15 << 6)


@given(st.integers(0, 2**32 - 1), st.sampled_from([8, 2**12, 2**16, 2**30]))
def test_a_convolution_is_exact_in_whatever_dtype_it_is_done(seed: int, span: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(-span, span + 1, (5, 3, 3))
    weight = rng.integers(-256, 255, (2, 5, 3, 3))
    exact = [
        sum(int(w) * int(value) for w, value in zip(kernel.reshape(-1), x.reshape(-1), strict=True))
        for kernel in weight
    ]
    assert conv(x, IntegerConv("c", weight)).reshape(-1).tolist() == [brute_wrap(value, 24) for value in exact]


def test_the_dtype_of_a_product_follows_its_bound() -> None:
    weight = np.full((1, 1, 1, 1), 4)
    assert exact_dtype(np.array([2**22 - 1]), weight) is np.float32
    assert exact_dtype(np.array([2**22]), weight) is np.float64
    assert exact_dtype(np.array([-(2**51)]), weight) is np.int64


def test_dense_is_not_wrapped() -> None:
    net = IntegerNetwork(
        {
            "input": IntegerInput("input", 2),
            "dense": IntegerDense("dense", np.array([[254, 254]])),
            "output": IntegerReadout("output", np.array([0])),
        },
        (("input", "dense"), ("dense", "output")),
        HostSide(),
    )
    assert run(net, np.full((2, 1, 1), 10**6)).tolist() == [[[508 * 10**6]]]


def test_an_image_that_is_smaller_than_a_kernel_is_refused() -> None:
    with pytest.raises(UserError, match="kernel is larger"):
        conv(np.zeros((1, 2, 5), np.int64), IntegerConv("c", np.ones((1, 1, 3, 3), np.int64)))


@pytest.mark.parametrize("shape", [(3, 4, 4), (2, 4), (5, 2, 4, 4), (2, 0, 4)])
def test_codes_that_do_not_fit_are_refused(shape: tuple[int, ...]) -> None:
    net = IntegerNetwork(
        {"input": IntegerInput("input", 2), "output": IntegerReadout("output", np.array([0]))},
        (("input", "output"),),
        HostSide(steps=3),
    )
    with pytest.raises(UserError, match="input"):
        run(net, np.zeros(shape, np.int64))
