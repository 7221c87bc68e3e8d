"""The kernel computes the reference's integers, bit for bit, on every instruction path."""

from __future__ import annotations

import os
import subprocess
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

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
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.kernel.build import compilers
from neurodeploy.simulate.kernel.library import LIMIT, library
from neurodeploy.simulate.kernel.limits import MEMBRANE_MAX, clips_from
from neurodeploy.simulate.kernel.plan import make_plan
from neurodeploy.simulate.kernel.refuse import CODE_MAX
from neurodeploy.simulate.observe import Trace
from tests.kernel_nets import student_like
from tests.kernel_strategies import assert_counted, assert_same, networks, shaped_networks
from tests.random_nets import chain, even_weights

built = pytest.mark.skipif(kernel.missing() is not None, reason=str(kernel.missing()))


def paths() -> tuple[str, ...]:
    return () if kernel.missing() else library().paths


def test_it_is_built_where_there_is_a_compiler() -> None:
    works = any(not subprocess.run([*command, "--version"], capture_output=True).returncode for command in compilers())
    if not works or os.environ.get(LIMIT) == "none":
        pytest.skip("no C compiler, or no kernel is wanted")
    assert kernel.missing() is None


@built
@pytest.mark.parametrize("path", paths())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(drawn=networks(), threads=st.integers(1, 2), form=st.sampled_from(["auto", "dense", "events", "sets"]))
def test_random_networks(path: str, drawn: tuple[IntegerNetwork, np.ndarray], threads: int, form: kernel.Form) -> None:
    net, codes = drawn
    if kernel.declines(net, codes) is None:
        assert_same(net, codes, path, threads, form)
    else:
        with pytest.raises(UserError):
            kernel.run(net, codes, path=path)
        np.testing.assert_array_equal(kernel.auto(net, codes), reference.run(net, codes))


@built
@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize(("steps", "levels"), [(1, 4), (4, 1), (8, 2)])
def test_a_student(path: str, steps: int, levels: int) -> None:
    net = student_like(steps, levels)
    codes = np.random.default_rng(0).integers(-64, 128, (4, 37, 45))
    counted = assert_same(net, codes, path, threads=2)
    for name, counts in counted.layers.items():
        assert 0.02 < counts.mean() / levels < 0.9, name


FAR = (0, -60_000, 60_000)
"""Levels whose biases take the membrane to both ends."""


@built
@pytest.mark.parametrize("path", paths())
def test_currents_that_wrap_around(path: str) -> None:
    """Sums beyond 2**17 leave the 24 bits of the register, at both ends and at the very edge."""
    edge = 1 << 17
    wanted = np.array([edge - 2, edge, edge + 2, -edge + 2, -edge, -edge - 2, 3 * edge, 511 * 256, 2 * edge, -2 * edge])
    # code 2 through weights of up to 15 bits; several taps add up to the rest
    for value in wanted:
        weight = np.zeros((1, 1, 5, 5), np.int64)
        half, taps = int(value) // 2, weight.reshape(-1)
        for place in range(25):
            taps[place] = np.clip(half, -32766, 32766)
            half -= int(taps[place])
        for steps, i_decay, levels in (
            (1, 4096, FAR),
            (3, 4096, FAR),
            (3, 1000, FAR),
            (1, 4096, (0,)),
            (3, 4096, (0,)),
        ):
            nodes = {
                "input": IntegerInput("input", 1),
                "conv": IntegerConv("conv", weight, padding=(2, 2)),
                "lif": IntegerLif("lif", 40, np.array([3]), 2048, i_decay, levels),
                "last": IntegerConv("last", np.full((1, 1, 1, 1), 2)),
                "output": IntegerReadout("output", np.zeros(1, np.int64)),
            }
            edges = (("input", "conv"), ("conv", "lif"), ("lif", "last"), ("last", "output"))
            net = IntegerNetwork(nodes, edges, HostSide(steps=steps))
            assert_same(net, np.full((1, 6, 9), 2), path)


@built
@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("v_decay", [0, 2048, 1000])
@pytest.mark.parametrize("sign", [1, -1])
def test_membranes_at_their_limits(path: str, v_decay: int, sign: int) -> None:
    """From the code that the plan says, and not before, a membrane may reach the ends of its 24 bits."""
    nodes = {
        "input": IntegerInput("input", 1),
        "conv": IntegerConv("conv", np.full((16, 1, 3, 3), sign * 30), padding=(1, 1)),
        "lif": IntegerLif("lif", 100, np.full(16, sign * 70), v_decay),
        "last": IntegerConv("last", np.full((1, 16, 1, 1), 2)),
        "output": IntegerReadout("output", np.zeros(1, np.int64)),
    }
    net = IntegerNetwork(nodes, tuple(pairwise(nodes)), HostSide(steps=12))
    plan = make_plan(net, path, (5, 9))
    assert not isinstance(plan, str)
    first = clips_from(plan.layers[0], 12)
    assert 0 < first < CODE_MAX
    for code in (first - 1, first, 2 * first):
        assert_same(net, np.full((1, 5, 9), code), path)
        trace = Trace(12)
        reference.run(net, np.full((1, 5, 9), code), observer=trace)
        extreme = int(np.abs(trace.layers["lif"].v).max())
        assert extreme == MEMBRANE_MAX if code == 2 * first and sign < 0 else extreme <= MEMBRANE_MAX
        if code < first and sign < 0:
            assert MEMBRANE_MAX - 12 * 64 * 9 * 30 <= extreme < MEMBRANE_MAX, "or the bound is a loose one"
    back = np.full((12, 1, 5, 9), 8 * first)  # a membrane that went on beyond its end would not be back in time
    back[6:] *= -1
    assert_same(net, back, path)
    spikes = Trace(12)
    reference.run(net, back, observer=spikes)
    assert spikes.layers["lif"].fired[6:].any() or sign > 0


@built
@pytest.mark.parametrize("path", paths())
def test_sixteen_bits_never_overflow(path: str) -> None:
    """The most negative weights on full counts: the worst case of sums in narrow lanes."""
    levels = tuple(range(0, -15, -1))
    weights = [np.full((16, 1, 1, 1), 254), np.full((16, 16, 5, 5), -256), np.full((2, 16, 5, 5), -256)]
    net = chain(weights, vth=-(1 << 20), levels=levels)
    assert_same(net, np.full((1, 7, 11), 255), path)
    net = chain([weights[0], -weights[1] - 2, -weights[2] - 2], vth=-(1 << 20), levels=levels)
    assert_same(net, np.full((1, 7, 11), 255), path)


@built
@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("padding", [(0, 0), (1, 0), (0, 2), (3, 3)])
def test_any_padding_and_rectangular_kernels(path: str, padding: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    nodes: list[IntegerNode] = [IntegerInput("input", 3)]
    nodes.append(IntegerConv("conv0", even_weights(rng, 5, 3, 3, 2), padding=padding))
    nodes.append(IntegerLif("lif0", 900, rng.integers(-9, 9, 5)))
    nodes.append(IntegerConv("conv1", even_weights(rng, 5, 5, 2, 3), padding=padding, dilation=(1, 2)))
    nodes.append(IntegerLif("lif1", 90, rng.integers(-9, 9, 5), 100, 4096, (0, -50)))
    nodes.append(IntegerConv("last", even_weights(rng, 2, 5, 1, 2), padding=padding))
    nodes.append(IntegerReadout("output", np.zeros(2, np.int64)))
    names = [node.name for node in nodes]
    edges = tuple(pairwise(names))
    net = IntegerNetwork({node.name: node for node in nodes}, edges, HostSide(steps=2))
    assert_same(net, rng.integers(-99, 99, (3, 12, 13)), path)


@built
@pytest.mark.parametrize("path", paths())
def test_strides_groups_and_matrices(path: str) -> None:
    @settings(max_examples=25, suppress_health_check=list(HealthCheck))
    @given(shaped_networks(), st.sampled_from(["auto", "dense", "events", "sets"]), st.integers(1, 2))
    def check(drawn: tuple[IntegerNetwork, np.ndarray], form: Any, threads: int) -> None:
        net, codes = drawn
        assume(kernel.declines(net, codes) is None)  # a matrix may be too large for 24 bits
        assert_same(net, codes, path, threads, form)

    check()


@built
@settings(max_examples=25, suppress_health_check=list(HealthCheck))
@given(shaped_networks(groups=False, matrices=False))
def test_operations_behind_strides(drawn: tuple[IntegerNetwork, np.ndarray]) -> None:
    assume(kernel.declines(*drawn) is None)
    assert_counted(*drawn)


@built
def test_a_matrix_for_another_size_is_refused() -> None:
    nodes: list[IntegerNode] = [IntegerInput("input", 1), IntegerConv("conv", np.full((2, 1, 1, 1), 4))]
    nodes += [
        IntegerLif("lif", 9, np.zeros(2, np.int64)),
        IntegerFlatten("flat"),
        IntegerDense("fc", np.full((3, 8), 2)),
    ]
    nodes.append(IntegerReadout("output", np.zeros(3, np.int64)))
    edges = tuple(pairwise([node.name for node in nodes]))
    net = IntegerNetwork({node.name: node for node in nodes}, edges, HostSide(steps=2))
    fits, does_not = np.full((1, 2, 2), 5), np.full((1, 2, 3), 5)
    np.testing.assert_array_equal(kernel.run(net, fits), reference.run(net, fits))
    assert "fc: weights for 8 values behind lif with (2, 2, 3)" in str(kernel.declines(net, does_not))
    with pytest.raises(UserError, match="another size"):
        kernel.auto(net, does_not)


def altered(**changes: Any) -> IntegerNetwork:
    net = student_like()
    nodes = dict(net.nodes)
    for name, node in changes.items():
        nodes[name] = node
    return IntegerNetwork(nodes, net.edges, net.host)


def conv1(**fields: Any) -> IntegerConv:
    fields.setdefault("weight", np.full((24, 24, 3, 3), 2))
    return IntegerConv("conv1", padding=(1, 1), **fields)


@built
@pytest.mark.parametrize(
    ("net", "named"),
    [
        (lambda: altered(conv1=conv1(weight=np.full((24, 24, 3, 3), 258))), "conv1: weights 0..258"),
        (lambda: altered(conv1=conv1(weight=np.full((24, 24, 3, 3), 129))), "conv1: weights 0..129"),
        (lambda: altered(conv0=IntegerConv("conv0", np.full((24, 4, 1, 1), 40_000))), "conv0: weights 0..40000"),
        (lambda: altered(lif1=IntegerLif("lif1", 9, np.full(24, 1 << 22))), "lif1: biases beyond 22 bits"),
        (lambda: altered(lif1=IntegerLif("lif1", 1 << 24, np.zeros(24, np.int64))), "lif1: threshold"),
        (lambda: altered(lif1=IntegerLif("lif1", 9, np.zeros(24, np.int64), 4097)), "lif1: v_decay outside 0..4096"),
        (lambda: altered(lif1=IntegerLif("lif1", 9, np.zeros(24, np.int64), levels=(0,) * 121)), "lif1: 121 levels"),
    ],
)
def test_refusals_name_the_node_and_the_reference_runs(net: Any, named: str) -> None:
    refused = net()
    codes = np.random.default_rng(0).integers(0, 99, (4, 8, 8))
    assert named in str(kernel.declines(refused))
    with pytest.raises(UserError, match="reference") as caught:
        kernel.run(refused, codes)
    assert named in str(caught.value)
    if refused.nodes["lif1"].v_decay != 4097:  # type: ignore[union-attr]
        np.testing.assert_array_equal(kernel.auto(refused, codes), reference.run(refused, codes))


@built
def test_codes_beyond_the_proof_go_to_the_reference() -> None:
    net = student_like()
    codes = np.full((4, 5, 6), 1 << 20)
    assert kernel.declines(net) is None
    assert "codes up to 1048576" in str(kernel.declines(net, codes))
    np.testing.assert_array_equal(kernel.auto(net, codes), reference.run(net, codes))
    with pytest.raises(UserError, match="codes up to"):
        kernel.run(net, codes)
    with pytest.raises(UserError, match="do not fit"):
        kernel.run(net, codes[:3])


@built
def test_an_observer_of_membranes_sees_them() -> None:
    net = student_like(steps=2)
    codes = np.random.default_rng(0).integers(0, 99, (4, 8, 8))
    by_kernel, by_reference = Trace(2), Trace(2)
    kernel.run(net, codes, observer=by_kernel)
    reference.run(net, codes, observer=by_reference)
    for name, layer in by_reference.layers.items():
        np.testing.assert_array_equal(by_kernel.layers[name].v, layer.v)


@built
def test_an_unknown_path_is_refused() -> None:
    with pytest.raises(UserError, match="no such instruction path"):
        kernel.run(student_like(), np.zeros((4, 5, 5), np.int64), path="avx1024")


@built
@pytest.mark.parametrize("path", paths())
@pytest.mark.parametrize("threads", [1, 2])
def test_codes_that_a_convolution_does_not_read(path: str, threads: int) -> None:
    """Two layers read a channel each, which are shown in different steps; the third channel nobody reads."""
    rng = np.random.default_rng(3)
    nodes: dict[str, IntegerNode] = {"input": IntegerInput("input", 3)}
    edges = []
    for name, channel in (("a", 0), ("b", 1)):
        weight = np.zeros((5, 3, 3, 3), np.int64)
        weight[:, channel] = rng.integers(-40, 41, (5, 3, 3)) * 2
        nodes |= {
            f"conv_{name}": IntegerConv(f"conv_{name}", weight, padding=(1, 1)),
            f"lif_{name}": IntegerLif(f"lif_{name}", 400, rng.integers(-9, 10, 5), v_decay=1000),
            f"last_{name}": IntegerConv(f"last_{name}", rng.integers(-40, 41, (2, 5, 1, 1))),
        }
        edges += [("input", f"conv_{name}"), (f"conv_{name}", f"lif_{name}"), (f"lif_{name}", f"last_{name}")]
        edges.append((f"last_{name}", "output"))
    nodes["output"] = IntegerReadout("output", np.zeros(2, np.int64))
    net = IntegerNetwork(nodes, tuple(edges), HostSide(steps=5))
    codes = np.zeros((5, 3, 9, 40), np.int64)
    for step, channel in ((0, 0), (2, 1), (3, 2), (4, 0)):
        codes[step, channel, :, step::3] = rng.integers(1, 200, codes[step, channel, :, step::3].shape)
    counted = assert_same(net, codes, path, threads)
    assert counted.layers["lif_a"].any() and counted.layers["lif_b"].any()
    for again in (np.zeros_like(codes), codes):  # the same program, other codes
        assert_same(net, again, path, threads)
