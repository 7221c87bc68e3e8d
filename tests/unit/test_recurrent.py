"""Networks with feedback: the integers, the floats and the counts against a run by hand, spike by spike."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings

from neurodeploy.energy.baselines import baselines
from neurodeploy.energy.count import OperationCounter
from neurodeploy.errors import InternalError, UserError
from neurodeploy.hardware.placement import placement
from neurodeploy.hardware.profile import load_profile
from neurodeploy.quantize.bounds import current_ranges
from neurodeploy.quantize.grid import grid_network
from neurodeploy.quantize.levels import expand_levels, fold_levels
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import IntegerDense, IntegerLif, IntegerNetwork
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.floating import run_float
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.restore import receptive_radius, resolve_backend, run_codes, run_tiled
from neurodeploy.targets.canonical import canonical
from neurodeploy.targets.equal import network_differences
from tests.recurrent_nets import Recurrent, by_hand, recurrent_nets, synapses


def traced(net: IntegerNetwork, codes: np.ndarray) -> tuple[np.ndarray, Trace]:
    trace = Trace(net.host.steps)
    return reference.run(net, codes, observer=trace), trace


@settings(max_examples=80, deadline=None)
@given(recurrent_nets())
def test_the_reference_is_the_run_by_hand(case: Recurrent) -> None:
    assert case.net.feedback == case.feedback
    out, trace = traced(case.net, case.codes)
    ran = by_hand(case)
    for name, spikes in ran.spikes.items():
        np.testing.assert_array_equal(trace.layers[name].fired.reshape(spikes.shape), spikes, err_msg=name)
    np.testing.assert_array_equal(out.reshape(-1), ran.output)


@settings(max_examples=80, deadline=None)
@given(recurrent_nets())
def test_operations_are_counted_where_and_when_they_arrive(case: Recurrent) -> None:
    """Per layer and step, with zero weights and without; spikes of the last step do not arrive over feedback edges."""
    counter = OperationCounter(case.net)
    counter.begin("one")
    run_codes(case.net, case.codes, observer=counter)
    rows = {row.name: row for row in counter.counts().layers}
    ran = by_hand(case)
    for name, row in rows.items():
        into = case.net.sources(name)
        per_step = [sum(ran.sop[weights][t] for weights in into) for t in range(len(case.codes))]
        assert row.per_step["sop"] == per_step, name
        assert row.sop == sum(per_step)
        assert row.sop_nonzero == sum(sum(ran.sop_nonzero[weights]) for weights in into)
        if name in ran.spikes:
            assert row.per_step["spikes"] == ran.spikes[name].sum(axis=(1, 2)).tolist()


@settings(max_examples=40, deadline=None)
@given(recurrent_nets())
def test_what_is_held_and_what_an_ann_would_compute_includes_the_recurrent_weights(case: Recurrent) -> None:
    """A sequence: an ANN of the same shape computes every layer in every step."""
    net, steps = case.net, len(case.codes)
    counter = OperationCounter(net)
    counter.begin("one")
    run_codes(net, case.codes, observer=counter)
    counts = counter.counts()
    rows = {row.name: row for row in counts.layers}
    wired = synapses(net, (case.codes.shape[2], case.codes.shape[3]))
    ran = by_hand(case)
    for name, row in rows.items():
        into = net.sources(name)
        node = net.nodes[name]
        levels = len(node.levels) if isinstance(node, IntegerLif) else 0
        assert row.parameters == sum(net.nodes[w].weight.size for w in into) + len(node.bias) + levels
        assert row.synapses == sum(len(wired[w]) for w in into) * max(levels, 1)
        assert row.dense_mac == steps * sum(len(wired[w]) for w in into)
        nonzero = 0
        for weights in into:
            (source,) = net.sources(weights)
            late = (weights, name) in case.feedback
            for t in range(late, steps):
                at = t - late
                sent = case.codes[at].reshape(-1) if source == "input" else ran.spikes[source][at].any(axis=0)
                nonzero += sum(bool(sent[i]) for i, _, _ in wired[weights])
        assert row.ann_mac_nonzero == nonzero
    dense = baselines(counts)[0]
    assert dense.mac == steps * sum(map(len, wired.values()))
    outputs = sum(len(net.nodes[name].bias) for name in rows) * case.codes.shape[2] * case.codes.shape[3]
    assert dense.additions == steps * outputs
    if steps > 1:
        assert f"each of the {steps} time steps" in dense.note


def test_a_still_input_is_computed_once_by_the_ann() -> None:
    case = example(steps=4)
    counter = OperationCounter(case.net)
    counter.begin("one")
    run_codes(case.net, case.codes[0], observer=counter)
    (row, *_) = counter.counts().layers
    wired = synapses(case.net, (1, 1))
    assert row.dense_mac == len(wired["w1"]) + 4 * len(wired["own"])


@settings(max_examples=60, deadline=None)
@given(recurrent_nets(exact=True))
def test_integers_and_floats_agree_where_nothing_is_truncated(case: Recurrent) -> None:
    net = expand_levels(case.net)
    network = grid_network(net, (case.codes.shape[2], case.codes.shape[3]))
    out, trace = traced(net, case.codes)
    kept: dict[str, list[np.ndarray]] = {name: [] for name in trace.layers}

    def record(*, step: int, name: str, output: np.ndarray, membrane: np.ndarray | None) -> None:
        del step, membrane
        if name in kept:
            kept[name].append(output)

    summed = run_float(network.graph, case.codes, net.host.steps, net.host.dt, record).sum(axis=0)
    for name, layer in trace.layers.items():
        np.testing.assert_array_equal(np.stack(kept[name]), layer.fired[:, 0], err_msg=name)
    np.testing.assert_array_equal(summed * 256, out)


@settings(max_examples=40, deadline=None)
@given(recurrent_nets(exact=True))
def test_the_graph_of_a_network_gives_the_network_again(case: Recurrent) -> None:
    net = canonical(case.net)
    again = canonical(quantize(grid_network(net, (case.codes.shape[2], case.codes.shape[3]))))
    # a dense layer stands there as a 1x1 convolution
    dense = {f"graph: {name}" for name, node in net.nodes.items() if isinstance(node, IntegerDense)}
    assert {found.node for found in network_differences(net, again, "graph")} == dense
    np.testing.assert_array_equal(reference.run(again, case.codes), reference.run(net, case.codes))


@settings(max_examples=40, deadline=None)
@given(recurrent_nets())
def test_levels_are_written_as_channels_and_found_again(case: Recurrent) -> None:
    wide = expand_levels(case.net)
    np.testing.assert_array_equal(reference.run(wide, case.codes), reference.run(case.net, case.codes))
    folded = fold_levels(wide)
    np.testing.assert_array_equal(reference.run(folded, case.codes), reference.run(case.net, case.codes))


@settings(max_examples=40, deadline=None)
@given(recurrent_nets())
def test_the_bounds_of_registers_hold_what_feedback_brings(case: Recurrent) -> None:
    _, trace = traced(case.net, case.codes)
    ranges = current_ranges(case.net, input_range=(int(case.codes.min()), int(case.codes.max())))
    for name, layer in trace.layers.items():
        low, high = (bound[:, None, None] for bound in ranges[f"{name}.u"])
        assert ((layer.u >= 64 * low) & (layer.u <= 64 * high)).all()
    into = case.net.sources("lif1")
    alone = current_ranges(replace(case.net, edges=tuple(e for e in case.net.edges if e not in case.feedback)))
    weights = [case.net.nodes[w].weight for w in into if (w, "lif1") in case.feedback]
    if any(np.any(weight > 0) for weight in weights):
        assert current_ranges(case.net)["lif1.u"][1].max() >= alone["lif1.u"][1].max()
        assert current_ranges(case.net)["lif1.u"][1].sum() > alone["lif1.u"][1].sum()


@pytest.mark.skipif(kernel.missing() is not None, reason=str(kernel.missing()))
@settings(max_examples=20, deadline=None)
@given(recurrent_nets())
def test_the_kernel_leaves_feedback_to_the_reference(case: Recurrent) -> None:
    assert "feedback from" in (kernel.declines(case.net) or "")
    assert resolve_backend(case.net, "auto") == "reference"
    with pytest.raises(UserError, match="feedback from"):
        run_codes(case.net, case.codes, backend="kernel")


def example(steps: int = 3, grid: tuple[int, int] = (1, 1)) -> Recurrent:
    """The first network that a search finds with so many steps, over such a grid, whose first layer feeds itself."""
    from hypothesis import find

    return find(
        recurrent_nets(),
        lambda case: len(case.codes) == steps and case.codes.shape[2:] == grid and "own" in case.net.nodes,
        settings=settings(max_examples=5000, database=None, derandomize=True),
    )


def test_feedback_widens_what_a_place_sees_with_every_step() -> None:
    """A 3x3 kernel in the loop: every step of a run adds a place, and tiles give the same as one go."""
    case = example(steps=3, grid=(3, 2))
    rng = np.random.default_rng(0)
    base = case.net
    assert receptive_radius(base) >= 3 + 2
    codes = rng.integers(-3, 6, (3, base.input.channels, 20, 17))
    whole = reference.run(base, codes)
    np.testing.assert_array_equal(run_tiled(base, codes, core=5), whole)
    one, two = OperationCounter(base), OperationCounter(base)
    run_tiled(base, codes, core=None, observer=one)
    run_tiled(base, codes, core=6, observer=two)
    assert one.counts().as_dict() == two.counts().as_dict()


def test_placement_holds_the_recurrent_synapses() -> None:
    case = example()
    placed = placement(case.net, load_profile("loihi2"), (1, 1))
    wired = synapses(case.net, (1, 1))
    (layer, *_) = placed.layers
    copies = len(next(case.net.lifs()).levels)
    into = case.net.sources("lif1")
    wide = expand_levels(case.net)
    assert layer.synapses == sum(wide.nodes[w].weight.size for w in into) >= copies * sum(len(wired[w]) for w in into)
    assert layer.delay == 0
    assert placed.pipeline_steps == 3


def test_a_backward_edge_closes_a_cycle_with_neurons() -> None:
    net = example().net
    order = ["input", "lif1", "w1", *(name for name in net.nodes if name not in ("input", "lif1", "w1"))]
    with pytest.raises(InternalError, match="does not run forward"):
        replace(net, nodes={name: net.nodes[name] for name in order})
    with pytest.raises(InternalError, match="without neurons"):
        replace(net, edges=(*net.edges, ("w2", "w2")))
