"""Placement over cores and chips: by brute force, by properties, and what advice says."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.errors import UserError
from neurodeploy.graph.portable import portable_graph
from neurodeploy.graph.spec import HostSide, StudentSpec
from neurodeploy.hardware.advice import advice, largest_tile, narrowed, tiles_for, with_levels
from neurodeploy.hardware.fit import fit_findings
from neurodeploy.hardware.placement import Placement, neurons_a_core, placement
from neurodeploy.hardware.plan import Plan, plan_chips
from neurodeploy.hardware.profile import Profile, load_profile
from neurodeploy.hardware.reach import inputs_of_run, links_into, longest_run
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import (
    IntegerConv,
    IntegerInput,
    IntegerLif,
    IntegerNetwork,
    IntegerReadout,
)
from neurodeploy.targets.bundle import halo_of
from neurodeploy.untrained import untrained_file
from tests.energy_nets import chain, networks, student, targets_of

CHIP = {
    "cores_per_chip": 6.0,
    "neurons_per_core": 40.0,
    "synaptic_memory_bits_per_core": 40_000.0,
    "input_axons_per_core": 400.0,
    "output_axons_per_core": 400.0,
}


def chip(**limits: float) -> Profile:
    """A small made-up chip: Loihi 1 with other limits."""
    profile = load_profile("loihi1-davies2018").assuming({**CHIP, **limits})
    capacity = profile.capacity.model_copy(update={"synapses_per_chip": None})
    return profile.model_copy(update={"capacity": capacity})


def wide(width: int, levels: int = 1, depth: int = 3) -> IntegerNetwork:
    return student(np.random.default_rng(0), width=width, depth=depth, levels=levels)


# --- by brute force -----------------------------------------------------------------------------------------------


@settings(max_examples=10, deadline=None)
@given(networks(), st.data())
def test_what_a_run_of_places_reads_equals_brute_force(case, data):
    net, extent, _ = case
    net = expand_net(net)
    if net is None:
        return
    shapes = layer_shapes(net, extent)
    for name, node in net.nodes.items():
        if not isinstance(node, IntegerLif | IntegerReadout) or any(
            isinstance(net.nodes[source], IntegerConv) and net.nodes[source].groups > 1 for source in net.sources(name)
        ):
            continue
        places = shapes[name][1] * shapes[name][2]
        first = data.draw(st.integers(0, places - 1))
        last = data.draw(st.integers(first + 1, places))
        for link in links_into(net, name, shapes):
            if link.node is None:
                continue
            top, found = link.reached(first, last)
            marked = {(top + row, column) for row, column in zip(*np.nonzero(found), strict=True)}
            wanted = set()
            for place in np.ndindex(link.shape):
                for (_, row, column), _weight in targets_of(link.node, place, link.shape):
                    if first <= row * shapes[name][2] + column < last:
                        wanted.add(place[1:])
            assert marked == wanted


def expand_net(net: IntegerNetwork) -> IntegerNetwork | None:
    try:
        return expand_levels(net)
    except UserError:  # several levels behind groups
        return None


def brute_pairs(net: IntegerNetwork, plan: Plan, extent: tuple[int, int], layer: str) -> int:
    """(neuron, other chip) pairs of one layer, neuron by neuron."""
    shapes = layer_shapes(net, extent)
    chip_of: dict[tuple[str, int], int] = {}
    for part in plan.parts:
        chip_of |= {(part.layer, neuron): part.chip for neuron in range(part.first, part.last)}

    def number(name: str, place: tuple[int, int, int]) -> int:
        channels, _, columns = shapes[name]
        return (place[1] * columns + place[2]) * channels + place[0]

    pairs = set()
    for conv in net.targets(layer):
        node = net.nodes[conv]
        for receiver in net.targets(conv):
            for place in np.ndindex(shapes[layer]):
                own = chip_of[layer, number(layer, place)]
                for neuron, _ in targets_of(node, place, shapes[layer]):
                    other = chip_of[receiver, number(receiver, neuron)]
                    if other != own:
                        pairs.add((place, other))
    return len(pairs)


@pytest.mark.parametrize("width", [3, 4])
def test_the_traffic_between_chips_equals_brute_force(width):
    net, extent = expand_levels(wide(width, levels=2, depth=2)), (6, 5)
    profile = chip(cores_per_chip=4, neurons_per_core=23)
    placed = placement(net, profile, extent)
    plans = plan_chips(net, placed, profile, extent, rates={"lif0": 0.5, "lif1": 0.25})
    assert {plan.strategy for plan in plans} == {"layers in a row", "whole layers", "bands of rows"}
    for plan in plans:
        assert plan.chips > 1
        for crossing in plan.crossings:
            assert crossing.pairs == brute_pairs(net, plan, extent, crossing.layer)
            rate = {"lif0": 0.5, "lif1": 0.25}.get(crossing.layer, 0.0)
            assert crossing.spikes == pytest.approx(crossing.pairs * rate)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_spike_that_two_layers_of_a_chip_hear_crosses_once(groups):
    """A sum edge: lif0 drives lif1 and lif2, which lie on the same chips."""
    rng, (height, width) = np.random.default_rng(3), (6, 5)
    net = expand_levels(wide(4, levels=2, depth=3))
    over = IntegerConv("over", 2 * rng.integers(1, 5, net.nodes["conv2"].weight.shape), padding=(1, 1))
    nodes = dict(list(net.nodes.items())[:3]) | {"over": over} | dict(list(net.nodes.items())[3:])
    net = IntegerNetwork(nodes, (*net.edges, ("lif0", "over"), ("over", "lif2")), net.host)
    profile = chip(cores_per_chip=4.0 * groups, neurons_per_core=23)
    placed = placement(net, profile, (height, width))
    plans = plan_chips(net, placed, profile, (height, width))
    assert any(plan.chips > 1 for plan in plans)
    for plan in plans:
        for crossing in plan.crossings:
            assert crossing.pairs == brute_pairs(net, plan, (height, width), crossing.layer), plan.strategy


def test_a_run_reads_more_the_longer_it_is_and_the_longest_is_found():
    net = expand_levels(wide(4))
    shapes = layer_shapes(net, (8, 9))
    links = links_into(net, "lif1", shapes)
    read = [inputs_of_run(links, length, 72) for length in range(1, 73)]
    assert read == sorted(read) and read[0] == 9 * 4 and read[-1] == 72 * 4
    for limit in (35, 36, 100, 287, 288):
        longest = longest_run(links, 72, limit)
        assert longest == sum(have <= limit for have in read)


# --- properties ---------------------------------------------------------------------------------------------------


@settings(max_examples=12, deadline=None)
@given(
    st.integers(1, 10),
    st.integers(1, 3),
    st.integers(4, 12),
    st.fixed_dictionaries(
        {
            "neurons_per_core": st.integers(10, 200).map(float),
            "synaptic_memory_bits_per_core": st.integers(2_000, 90_000).map(float),
            "input_axons_per_core": st.integers(100, 2_000).map(float),
            "output_axons_per_core": st.integers(50, 900).map(float),
        }
    ),
)
def test_more_of_anything_never_needs_fewer_cores(width, levels, side, limits):
    profile = chip(**limits)
    base = placement(wide(width, levels), profile, (side, side))
    for more in (
        placement(wide(width + 1, levels), profile, (side, side)),
        placement(wide(width, levels + 1), profile, (side, side)),
        placement(wide(width, levels), profile, (side + 1, side)),
        placement(wide(width, levels, depth=4), profile, (side, side)),
    ):
        assert base.cores is not None and more.cores is not None and base.chips is not None and more.chips is not None
        assert more.cores[0] >= base.cores[0] and more.cores[1] >= base.cores[1]
        assert more.chips[0] >= base.chips[0] and more.chips[1] >= base.chips[1]


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 8), st.integers(1, 3), st.integers(4, 14), st.integers(2, 9))
def test_the_parts_add_up_to_the_whole(width, levels, side, cores):
    net = wide(width, levels)
    profile = chip(cores_per_chip=float(cores))
    placed = placement(net, profile, (side, side + 1))
    assert placed.neurons == sum(layer.neurons for layer in placed.layers)
    assert placed.synapses == sum(layer.synapses for layer in placed.layers)
    assert placed.cores == tuple(sum(layer.cores[end] for layer in placed.layers) for end in (0, 1))
    plans = plan_chips(net, placed, profile, (side, side + 1))
    assert plans
    for plan in plans:
        assert {part.chip for part in plan.parts} == set(range(plan.chips))
        used = plan.as_dict()["cores_used"]
        assert max(used) <= cores
        if plan.strategy != "bands of rows":  # bands round up, chip by chip
            assert sum(used) == placed.cores[0]
        for layer in placed.layers:
            mine = sorted((part.first, part.last) for part in plan.parts if part.layer == layer.name)
            assert mine[0][0] == 0 and mine[-1][1] == layer.neurons
            assert all(end == start for (_, end), (start, _) in pairwise(mine))
            each = neurons_a_core(layer, layer.cores[0])
            assert all(part.last - part.first <= part.cores * each for part in plan.parts if part.layer == layer.name)
        assert plan.chips == 1 or plan.pairs > 0
        assert plan.chips > 1 or plan.pairs == 0


# --- limits, delays, assumptions ----------------------------------------------------------------------------------


def uses(placed: Placement) -> dict[str, tuple[tuple[int, int], str]]:
    return {use.name: (use.have, use.status) for use in placed.limits}


def test_limits_by_hand():
    """4 channels on 6x5: 120 neurons a layer, 30 places; 3x3 kernels over 4 channels are 36 synapses."""
    placed = placement(wide(4, depth=2), chip(neurons_per_core=40), (6, 5))
    found = uses(placed)
    assert [layer.cores for layer in placed.layers] == [(3, 3), (3, 3), (1, 1)]
    assert found["neurons_per_core"] == ((40, 40), "fits")
    assert found["fan_in"] == ((36, 36), "unknown")
    assert found["cores_per_chip"] == ((7, 7), "over")
    # the readout's one core listens to all 120 neurons of lif1; a core of lif1 holds two rows and reads four of lif0
    assert placed.layers[-1].input_axons == 120
    assert placed.layers[1].input_axons == 4 * 5 * 4
    assert placed.layers[0].output_axons == 3 * 80 // 3  # three cores of lif1 read 80 neurons each, for three cores
    assert placed.layers[0].shared_bits == 9 * 4 * 9 and placed.layers[0].state_bits == 120 * 48
    assert placed.layers[-1].state_bits == 30 * 24
    assert placed.pipeline_steps == 3
    assert placed.tightest == "cores per chip: have 7, limit 6"


def test_the_tightest_limit_is_what_one_chip_runs_out_of():
    """Cores are filled with neurons: that the fullest is full says nothing. 7 cores of 20, 280 neurons of 1000."""
    placed = placement(wide(4, depth=2), chip(neurons_per_core=40, cores_per_chip=20), (6, 5))
    assert uses(placed)["neurons_per_core"] == ((40, 40), "fits")
    assert placed.tightest == "cores per chip: have 7, limit 20"
    many = chip(neurons_per_core=40, cores_per_chip=20, neurons_per_chip=300)
    assert placement(wide(4, depth=2), many, (6, 5)).tightest == "neurons per chip: have 270, limit 300"
    deaf = chip(neurons_per_core=40, cores_per_chip=20, input_axons_per_core=3)
    assert placement(wide(4, depth=2), deaf, (6, 5)).tightest.startswith("input axons per core")


def test_what_fits_with_weights_shared_alone_is_not_said_to_fit():
    net = wide(4, depth=2)
    placed = placement(net, chip().assuming({"synapses_per_chip": 1000.0}), (6, 5))
    assert placed.synapses > 1000 > sum(layer.weights for layer in placed.layers)
    assert uses(placed)["synapses_per_chip"][1] == "shared" and placed.chips[0] < placed.chips[1]


def test_axons_ask_for_cores_where_they_are_few():
    roomy, tight = (placement(wide(4), chip(input_axons_per_core=axons), (8, 8)) for axons in (400.0, 100.0))
    assert roomy.layers[1].cores < tight.layers[1].cores
    assert tight.layers[1].bound_by == "input axons per core"
    assert all(layer.input_axons <= 100 for layer in tight.layers)


def test_one_place_that_listens_to_more_than_a_core_can_is_refused():
    findings = fit_findings(wide(4), chip(input_axons_per_core=30), (8, 8))
    (found,) = [finding for finding in findings if "more neurons than a core has axons" in finding.rule]
    assert found.severity == "error" and found.have == "36" and found.limit == "30"


def skipping(layers: int) -> IntegerNetwork:
    """A chain with an edge from the first layer into the last."""
    nodes = [IntegerInput("input", 2)]
    for layer in range(layers):
        nodes.append(IntegerConv(f"conv{layer}", np.ones((2, 2, 1, 1), np.int64)))
        nodes.append(IntegerLif(f"lif{layer}", 5, np.zeros(2, np.int64)))
    nodes += [IntegerConv("last", np.ones((2, 2, 1, 1), np.int64)), IntegerReadout("output", np.zeros(2, np.int64))]
    return chain(nodes, steps=1, edges=(("conv1", f"lif{layers - 1}"),))


def test_a_sum_edge_waits_and_must_not_wait_too_long():
    net = skipping(5)
    placed = placement(net, load_profile("loihi2"), (4, 4))
    assert {layer.name: layer.delay for layer in placed.layers if layer.delay} == {"lif4": 3}
    assert not [found for found in fit_findings(net, load_profile("loihi2"), (4, 4)) if "wait" in found.rule]
    long = fit_findings(skipping(70), load_profile("loihi2"), (4, 4))
    (found,) = [finding for finding in long if "wait" in finding.rule]
    assert found.have == "68 steps" and found.limit == "62"


def test_a_limit_can_be_set_and_is_marked():
    profile = load_profile("loihi2").assuming({"fan_in": 30, "cores_per_chip": 64})
    placed = placement(wide(4), profile, (8, 8))
    found = {use.name: use for use in placed.limits}
    assert found["fan_in"].status == "broken" and found["fan_in"].trust == "assumed"
    assert found["cores_per_chip"].limit == 64 and found["cores_per_chip"].trust == "assumed"
    assert found["neurons_per_core"].trust == "second-hand"
    assert placed.assumed == ("fan_in", "cores_per_chip") and "fan_in" not in placed.unknown
    findings = fit_findings(wide(4), profile, (8, 8))
    assert any("too many synapses" in finding.rule for finding in findings)
    assert any("stand in no document: fan_in, cores_per_chip" in finding.rule for finding in findings)
    assert load_profile("loihi2").capacity.fan_in is None  # the shipped profile stays as it is


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ({"fanin": 3}, "fan_in"),
        ({"fan_in": 0}, "positive"),
        ({"fan_in": 1.5}, "whole"),
        ({"fan_in": float("nan")}, "whole"),
    ],
)
def test_a_limit_that_is_none_is_refused(limits, words):
    with pytest.raises(UserError, match=words):
        load_profile("loihi2").assuming(limits)


# --- advice -------------------------------------------------------------------------------------------------------


def test_the_largest_tile_fits_and_the_next_one_does_not():
    net = wide(4, levels=2)
    profile = chip(neurons_per_core=50, cores_per_chip=20)
    for end in (0, 1):
        side = largest_tile(net, profile, 2, end)
        assert side is not None
        assert placement(net, profile, (side, side)).chips[end] <= 2
        assert placement(net, profile, (side + 1, side + 1)).chips[end] > 2


@pytest.mark.parametrize(
    ("size", "tile", "halo", "count"),
    [
        ((64, 64), 64, 8, 1),
        ((65, 64), 64, 8, 2),
        ((100, 100), 40, 8, 16),
        ((100, 30), 40, 8, 4),
        ((100, 100), 16, 8, None),
    ],
)
def test_tiles_that_overlap_by_the_halo(size, tile, halo, count):
    """100 pixels in tiles of 40 with 8 of halo: 32 + 24 + 24 + 20."""
    assert tiles_for(size, tile, halo) == count


def test_fewer_channels_and_fewer_levels_keep_the_rest():
    net = wide(6, levels=3)
    assert [len(node.bias) for node in narrowed(net, 4 / 6).lifs()] == [4, 4, 4]
    assert narrowed(net, 4 / 6).nodes["conv1"].weight.shape == (4, 4, 3, 3)
    assert narrowed(net, 4 / 6).nodes["conv3"].weight.shape == (1, 4, 3, 3)
    assert [len(node.levels) for node in with_levels(net, 2).lifs()] == [2, 2, 2]


def test_advice_says_what_to_change_and_what_it_says_holds():
    net = wide(8, levels=3)
    profile = chip(neurons_per_core=100, cores_per_chip=20, input_axons_per_core=4000, output_axons_per_core=4000)
    said = advice(net, profile, (10, 10), halo=4, target_size=(10, 10))
    assert said is not None and not said["target"]["fits"] and said["plan"]["chips"] > 1
    channels, tiles = said["changes"][0], said["changes"][-1]
    assert "one chip, with weights shared, at 10x10" in channels
    width = int(channels.split("T stays; ")[1].split(" channels")[0])
    assert placement(narrowed(net, width / 8), profile, (10, 10)).chips[0] == 1
    assert placement(narrowed(net, (width + 1) / 8), profile, (10, 10)).chips[0] > 1
    assert "tile" in tiles
    enough = advice(net, profile, (10, 10), halo=4, chips=said["target"]["chips"][0])
    assert enough is not None and enough["target"]["fits"] and enough["changes"] == []
    assert any("second-hand" in line or "was set" in line for line in said["assumptions"])


def test_a_technology_gives_no_advice():
    assert advice(wide(3), load_profile("cmos45-int8"), (8, 8), halo=4) is None


def test_pixel_unshuffle_counts_in_pixels():
    net = wide(4)
    first = IntegerConv("conv0", np.ones((4, 4, 3, 3), np.int64), padding=(1, 1))
    nodes = {**net.nodes, "input": IntegerInput("input", 4), "conv0": first}
    shuffled = IntegerNetwork(nodes, net.edges, HostSide(channels=1, unshuffle=2, steps=1))
    profile = chip(neurons_per_core=50, cores_per_chip=20)
    side, plain = largest_tile(shuffled, profile, 1), largest_tile(net, profile, 1)
    assert side is not None and plain is not None and side % 2 == 0 and side > plain


def test_the_example_of_the_documentation():
    """docs/placement.md, figure by figure."""
    file = untrained_file(StudentSpec(width=8, depth=2, levels=2, steps=1), {"name": "hand"})
    net = quantize(portable_graph(file.spec, file.tensors, (64, 64), file.quantized))
    loihi2 = load_profile("loihi2")
    placed = placement(net, loihi2, (64, 64))
    first, second, last = placed.layers
    assert [layer.neurons for layer in placed.layers] == [16_384, 16_384, 4_096]
    assert [layer.fan_in for layer in placed.layers] == [36, 144, 144]
    assert [layer.cores for layer in placed.layers] == [(2, 2), (2, 2), (1, 1)]
    assert (second.synapses, second.shared_bits, second.expanded_bits) == (2_262_016, 18_432, 18_096_128)
    assert (first.state_bits, last.state_bits) == (786_432, 98_304)
    assert [layer.input_axons for layer in placed.layers] == [2_176, 8_704, 16_384]
    assert [layer.output_axons for layer in placed.layers] == [8_704, 8_192, 0]
    assert (placed.neurons, placed.synapses, placed.chips) == (36_864, 3_393_024, (1, 1))
    assert halo_of(net) == 6
    assert largest_tile(net, loihi2, 1) == 338
    large = placement(net, loihi2, (512, 512))
    assert large.cores == (288, 288) and large.chips == (3, 3)
    best = plan_chips(net, large, loihi2, (512, 512))[0]
    assert (best.strategy, best.chips, best.pairs) == ("bands of rows", 3, 32_768)
