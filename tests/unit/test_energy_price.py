"""Prices, withheld totals, baselines, verdicts, and the silicon that prices must agree with."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from neurodeploy.energy.baselines import Teacher, baselines, qnn_bits
from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.lemaire import access_price
from neurodeploy.energy.parameters import parameter_table
from neurodeploy.energy.price import baseline_pj, chips_needed, price, static_energy
from neurodeploy.energy.results import Counts, ImageCounts, spread
from neurodeploy.energy.tally import LayerCounts
from neurodeploy.energy.verdict import verdict
from neurodeploy.errors import UserError
from neurodeploy.hardware.profile import Profile, load_profile
from neurodeploy.hardware.tables import Clock
from neurodeploy.quantize.network import IntegerConv, IntegerLif
from neurodeploy.simulate.reference import run
from tests.energy_nets import student


def made(steps: int = 1, **figures: int) -> Counts:
    """Counts of one image with one layer, as given."""
    layer = LayerCounts(name="lif0", kind="spiking", shape=(1, 1, 1), populations=1, **figures)
    net = student(np.random.default_rng(0), steps=steps)
    return Counts(net=net, images=(ImageCounts("made", (1, 1), (layer,)),))


def counted(net=None, images: int = 1) -> Counts:
    """Counts of real runs."""
    net = net or student(np.random.default_rng(1))
    counter = OperationCounter(net)
    for place in range(images):
        run(net, np.random.default_rng(place).integers(0, 256, (1, 9, 8)), observer=counter)
    return counter.counts()


# --- silicon: published totals that the profiles' prices must meet, and popular constants that must not ------------


def _watts(profile: Profile, synaptic_events: int, per_event_pj: float | None = None) -> float:
    """Power of a chip that does so many synaptic events in one second."""
    priced = price(made(sop=synaptic_events), profile, step_seconds=1.0)
    dynamic = synaptic_events * per_event_pj if per_event_pj is not None else priced.energy_of("sop")
    return (dynamic + (priced.static.picojoules or 0.0)) * 1e-12


@pytest.mark.parametrize(("mhz", "rate", "published"), [(75.0, 37_500_000, 477e-6), (1.3, 650_000, 35e-6)])
def test_odin_meets_its_silicon(mhz, rate, published):
    profile = load_profile("odin")
    clock = profile.time.clock.model_copy(update={"value": mhz})
    profile = profile.model_copy(update={"time": profile.time.model_copy(update={"clock": clock})})
    assert isinstance(profile.time.clock, Clock)
    assert _watts(profile, rate) == pytest.approx(published, rel=0.005)
    assert price(made(sop=rate), profile).total_pj is not None  # neurons inside, no network on chip
    if mhz == 75.0:
        assert abs(_watts(profile, rate, 12.7) / published - 1) > 0.3  # the all-in headline is no constant


EVENTS_PER_HZ = 1_048_576 * 128


@pytest.mark.parametrize(
    ("hertz", "published", "tolerance"),
    [(11.58, 68e-3, 0.01), (20.07, 71e-3, 0.01), (95.93, 94e-3, 0.01), (20.0, 72e-3, 0.021), (20.0, 65e-3, 0.09)],
)
def test_truenorth_meets_its_silicon(hertz, published, tolerance):
    assert _watts(load_profile("truenorth-marginal"), round(EVENTS_PER_HZ * hertz)) == pytest.approx(
        published, rel=tolerance
    )


@pytest.mark.parametrize(("hertz", "published", "error"), [(11.58, 68e-3, -0.41), (95.93, 94e-3, 2.56)])
def test_truenorths_26_pj_is_no_constant(hertz, published, error):
    profile = load_profile("truenorth-26pj")
    found = _watts(profile, round(EVENTS_PER_HZ * hertz)) / published - 1
    assert found == pytest.approx(error, abs=0.01)
    assert abs(found) > 0.2


@pytest.mark.parametrize(("sop", "error"), [(51_200_000, 0.089), (57_600_000, 0.202)])
def test_loihi1_stays_within_its_stated_error_of_a_measured_query(sop, error):
    profile = load_profile("loihi1-davies2018")
    priced = price(made(sop=sop, neuron_updates=4_608_000, neuron_updates_idle=4_608_000), profile, chips=1)
    measured = next(anchor for anchor in profile.anchor if anchor.source == "frady2020")
    assert priced.total_pj / (measured.energy * 1e9) - 1 == pytest.approx(error, abs=0.001)
    assert priced.interval_pj == (priced.total_pj, None)  # the synaptic operation is a minimum


# --- withheld ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["loihi2", "speck", "xylo-audio2", "akida1000"])
def test_chips_without_published_prices_give_no_total(name):
    answer = price(counted(), load_profile(name)).as_dict()
    assert answer["total_pj"] is None
    assert answer["terms"] == []
    assert answer["label"].startswith("withheld")
    assert not answer["ok"]
    assert {line["term"] for line in answer["not_priced"]} >= {"sop", "neuron_active", "hop"}
    assert all(line["count"] > 0 and line["why"] for line in answer["not_priced"])


def test_loihi2_prints_measured_tasks_instead():
    answer = price(counted(), load_profile("loihi2")).as_dict()
    assert len(answer["anchors"]) >= 8
    assert any("16.05 of 16.2 W" in anchor.get("beside", "") for anchor in answer["anchors"])


def test_one_unpriced_operation_withholds_the_total_and_shows_the_lower_part():
    counts = made(sop=1000, spikes=10)
    profile = load_profile("loihi1-davies2018")
    priced = price(counts, profile)
    assert priced.total_pj is None
    assert [charge.term for charge in priced.not_priced] == ["hop"]
    assert priced.partial_pj == pytest.approx(1000 * 23.6 + 10 * 1.7)
    assert not priced.ok
    assert price(counts, profile, allow_partial=True).ok
    assert price(counts, profile, allow_partial=True).total_pj is None
    known = price(counts, profile, hops=4.0)
    assert known.total_pj == pytest.approx(1000 * 23.6 + 10 * 1.7 + 40 * 3.5)
    assert known.ok


def test_binary_chips_refuse_analog_input():
    priced = price(made(mac=5), load_profile("loihi1-davies2018"))
    assert priced.total_pj is None
    assert "carry no values" in priced.not_priced[0].why


def test_operations_without_a_count_withhold_nothing():
    assert price(made(sop=3), load_profile("loihi1-davies2018")).total_pj == pytest.approx(3 * 23.6)


def test_estimates_are_off_unless_asked_for():
    values = load_profile("loihi1-davies2018").model_dump(by_alias=True, exclude_none=True)
    values["energy"]["sop"] |= {"kind": "estimated", "rationale": "as an example"}
    profile = Profile.model_validate(values)
    assert price(made(sop=3), profile).total_pj is None
    assert price(made(sop=3), profile, allow_estimates=True).total_pj == pytest.approx(3 * 23.6)


def test_more_chips_than_one_need_prices_that_nobody_has():
    counts = made(sop=1, spikes=1, neurons=300_000, neuron_updates=0)
    profile = load_profile("loihi1-davies2018")
    assert chips_needed(counts, profile) == 3
    priced = price(counts, profile, hops=1.0)
    assert [charge.term for charge in priced.not_priced] == ["between_chips"]
    assert priced.static.power_w == pytest.approx(3 * 0.104)
    assert price(counts, profile, hops=1.0, chips=1).total_pj is not None


def test_static_energy_stands_apart():
    counts = made(steps=4, sop=10)
    priced = price(counts, load_profile("loihi1-davies2018"))
    assert priced.total_pj == pytest.approx(236.0)
    assert priced.static.picojoules == pytest.approx(0.104 * 4e-3 * 1e12)
    assert price(counts, load_profile("loihi1-davies2018"), step_seconds=1e-5).static.time_s == pytest.approx(4e-5)
    board = static_energy(load_profile("loihi2"), steps=1, chips=17)
    assert board.power_w == pytest.approx(32.1)
    assert board.picojoules is None


@pytest.mark.parametrize(
    "wrong",
    [{"hops": -1.0}, {"hops": float("nan")}, {"step_seconds": float("inf")}, {"step_seconds": 0.0}, {"chips": 0}],
)
def test_assumptions_must_be_positive(wrong):
    with pytest.raises(UserError, match="must be positive"):
        price(made(sop=1), load_profile("loihi1-davies2018"), **wrong)


# --- arithmetic only -----------------------------------------------------------------------------------------------


def test_arithmetic_charges_analog_input_as_macs_at_every_step():
    counts = counted(student(np.random.default_rng(2), steps=3))
    priced = price(counts, load_profile("cmos45-int8"))
    assert counts.total("mac") == 3 * counts.total("mac_once") > 0
    assert priced.energy_of("mac_int8") == pytest.approx(0.23 * counts.total("mac"))
    assert priced.energy_of("sop") == pytest.approx(0.03 * counts.total("sop"))
    updates, spiking = counts.total("neuron_updates"), sum(layer.neuron_updates for layer in counts.layers[:-1])
    assert priced.energy_of("add") == pytest.approx(0.1 * (updates + counts.total("bias_additions")))
    assert priced.energy_of("compare") == pytest.approx(0.1 * spiking)
    assert priced.energy_of("mul") == pytest.approx(3.1 * spiking)  # the membrane leaks, the current is forgotten
    assert priced.total_pj == pytest.approx(priced.partial_pj)


def test_several_images_give_mean_and_spread():
    counts = counted(images=3)
    priced = price(counts, load_profile("cmos45-fp32"))
    answer = priced.as_dict()
    assert len(answer["per_image_pj"]) == 3
    assert answer["total_pj"] == pytest.approx(sum(answer["per_image_pj"]) / 3)
    assert answer["spread_pj"]["worst"] == max(answer["per_image_pj"])


def test_lemaire_adds_memory_and_it_dominates():
    counts = counted(student(np.random.default_rng(4), width=8, depth=3))
    plain, whole = (price(counts, load_profile(name)) for name in ("cmos45-int8", "cmos45-int32-lemaire"))
    assert whole.total_pj > 5 * plain.total_pj
    assert whole.energy_of("sram") > 0.5 * whole.total_pj
    assert whole.energy_of("address_add") >= 0.1 * counts.total("sop")


def test_memory_price_follows_the_line_and_is_not_extrapolated():
    table = load_profile("cmos45-int32-lemaire").energy.sram
    assert access_price(table, 4096).value == pytest.approx(5.0)
    assert access_price(table, 8192).value == pytest.approx(10.0)
    assert access_price(table, 20480).value == pytest.approx(15.0)
    largest = access_price(table, 1 << 22)
    assert (largest.value, largest.bound) == (100.0, "lower")


# --- baselines and verdict -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("steps", "levels", "bits"), [(1, 1, 1), (4, 1, 3), (1, 4, 3), (1, 15, 4), (3, 1, 2), (7, 1, 3)]
)
def test_bits_of_a_matched_network(steps, levels, bits):
    assert qnn_bits(steps, levels) == bits


def test_baselines_count_one_pass_of_one_population():
    one, four = counted(student(np.random.default_rng(6))), counted(student(np.random.default_rng(6), levels=4))
    plain = {base.key: base for base in baselines(one)}
    levelled = {base.key: base for base in baselines(four, Teacher("t", 5e6, 10))}
    assert plain["ann_dense"].mac == levelled["ann_dense"].mac
    convs = [node for node in one.net.nodes.values() if isinstance(node, IntegerConv)]
    assert plain["ann_dense"].mac == sum(
        (3 * 9 - 2) * (3 * 8 - 2) * node.weight.shape[0] * node.weight.shape[1] for node in convs
    )
    assert plain["ann_dense"].mac_padded == sum(9 * 8 * node.weight.size for node in convs)
    assert 0 < plain["ann_sparse"].mac < plain["ann_dense"].mac
    assert levelled["qnn"].bits == 3
    assert levelled["teacher"].mac == 5e6


def test_baselines_are_priced_alike_or_not_at_all():
    counts = counted()
    dense, sparse, int8, qnn = baselines(counts)
    priced = price(counts, load_profile("cmos45-int8"))
    neurons = sum(layer.activations for layer in counts.layers)
    hidden = sum(layer.activations for layer in counts.layers if layer.kind == "spiking")
    expected = dense.mac * 0.23 + 0.1 * neurons + 0.1 * hidden
    assert baseline_pj(priced, dense) == pytest.approx(expected) == baseline_pj(priced, int8)
    assert baseline_pj(priced, sparse) < expected
    assert baseline_pj(priced, qnn) == pytest.approx(expected)  # a ceiling: narrower products cost less
    assert priced.as_dict((qnn,))["baselines"]["qnn"]["at_most"]
    assert baseline_pj(price(counts, load_profile("cmos45-fp32")), qnn) is None
    assert baseline_pj(price(counts, load_profile("cmos45-fp32")), int8) is None
    assert baseline_pj(price(counts, load_profile("loihi2")), dense) is None


def _verdict(counts: Counts, teacher: Teacher | None = None) -> dict:
    return verdict(counts, baselines(counts, teacher), [price(counts, load_profile("cmos45-int8"))])


@pytest.mark.parametrize(
    ("sop", "expected", "words"),
    [(140, "below every threshold", "stands well"), (690, "depends", "It depends"), (1730, "loses", "The SNN loses")],
)
def test_verdict_follows_the_published_thresholds(sop, expected, words):
    found = _verdict(made(sop=sop, dense_mac=1000, spikes=5, neuron_updates=100))
    assert found["class"] == expected
    assert words in found["sentence"]
    assert found["sps"] == pytest.approx(sop / 1000)


def test_analog_input_counts_in_the_verdict():
    """Few spikes behind much analog input are not few operations."""
    found = _verdict(made(sop=100, mac=800, dense_mac=1000, spikes=5, neuron_updates=100))
    assert found["class"] == "depends"
    assert "0.10 synaptic operations and 0.80 multiply-accumulates for every" in found["sentence"]
    assert found["sps"] == pytest.approx(0.1)
    found = _verdict(made(sop=100, mac=10, dense_mac=1000, spikes=5, neuron_updates=100))
    assert found["class"] == "below every threshold"
    assert "0.10 synaptic operations for every" in found["sentence"]


def test_verdict_says_so_when_the_network_costs_more():
    found = _verdict(made(sop=9000, mac=2000, dense_mac=1000, spikes=50, neuron_updates=100))
    line = next(line for line in found["against"] if line["baseline"] == "ann_int8")
    assert line["ratio"] > 1
    assert not line["snn_wins"]
    assert line["break_even_rate"] is None
    assert "times as much as" in found["sentence"]
    assert "no spike rate could change that" in line["words"]


def test_break_even_rate_is_where_both_cost_the_same():
    counts = made(sop=9000, dense_mac=1000, spikes=50, neuron_updates=100)
    line = next(line for line in _verdict(counts)["against"] if line["baseline"] == "ann_dense")
    rate = line["break_even_rate"]
    scaled = round(9000 * rate / 0.5)
    again = replace(counts.images[0].layers[0], sop=scaled)
    at_rate = Counts(counts.net, (replace(counts.images[0], layers=(again,)),))
    assert price(at_rate, load_profile("cmos45-int8")).total_pj == pytest.approx(line["baseline_pj"], rel=1e-3)


@pytest.mark.parametrize("levels", [1, 3])
def test_with_memory_a_network_breaks_even_where_its_counts_say(levels):
    """Everything that a spike causes grows with the rate, its accesses to memory among it; the rest does not."""
    counts = counted(student(np.random.default_rng(1), levels=levels), images=2)
    priced = price(counts, load_profile("cmos45-lemaire"))
    line = next(
        line for line in verdict(counts, baselines(counts), [priced])["against"] if line["baseline"] == "ann_dense"
    )
    fixed, grown = line["fixed_pj"], priced.total_pj - line["fixed_pj"]
    for share in (0, 2, 3):
        images = tuple(
            replace(image, layers=tuple(replace(row, sop=row.sop * share, spikes=row.spikes * share)
                                        for row in image.layers))
            for image in counts.images
        )  # fmt: skip
        again = price(Counts(counts.net, images), load_profile("cmos45-lemaire"))
        assert again.total_pj == pytest.approx(fixed + share * grown)


def test_an_ann_with_memory_by_hand():
    """One 3x3 convolution of 1 into 2 channels, then the output: every access counted on paper."""
    counts = counted(student(np.random.default_rng(4), width=2, depth=1))
    priced = price(counts, load_profile("cmos45-lemaire"))
    dense, sparse, int8, qnn = baselines(counts)
    places, taps = 9 * 8, (3 * 9 - 2) * (3 * 8 - 2)

    def access(words: int) -> float:  # below 8 kB on the line through 0; half of a 64-bit access
        return 10.0 * words * 4 / 8192 / 2

    arithmetic = 3.2 * (taps * 2 + taps * 2) + 0.1 * (2 * places + places) + 0.1 * 2 * places
    first = taps * 2 * (access(places) + access(2 * 9 + 2 + 1)) + 2 * places * (access(21) + access(2 * places))
    last = taps * 2 * (access(2 * places) + access(2 * 9 + 1)) + places * (access(19) + access(places))
    addresses = 0.1 * (places + 2 * places + 2 * places + places)
    expected = arithmetic + first + last + addresses
    assert baseline_pj(priced, dense) == pytest.approx(expected)
    assert 0 < baseline_pj(priced, sparse) < expected
    assert baseline_pj(priced, int8) is None and baseline_pj(priced, qnn) is None
    assert not priced.as_dict((dense,))["baselines"]["ann_dense"]["at_least"]


def test_a_network_without_a_spike_has_a_verdict():
    found = _verdict(made(sop=0, mac=300, dense_mac=1000, spikes=0, neuron_updates=10))
    assert found["spike_rate"] == 0 and found["sps"] == 0
    silent = counted(silenced(student(np.random.default_rng(1), levels=2)))
    assert silent.total("spikes") == 0
    told = _verdict(silent)
    assert told["movement"]["ratio"] == 0 and "costs nothing beside" in told["sentence"]
    assert json.loads(json.dumps(told, allow_nan=False)) is not None


def test_an_interval_of_counts_does_not_go_below_zero():
    found = spread([1.0, 1.0, 100.0])
    assert found["ci95_low"] == 0.0 and found["ci95_high"] > 100
    assert spread([-1.0, 1.0, 100.0])["ci95_low"] < 0


def silenced(net):
    """The same network with thresholds that nothing reaches."""
    nodes = {
        name: replace(node, vth=1 << 16) if isinstance(node, IntegerLif) else node for name, node in net.nodes.items()
    }
    return replace(net, nodes=nodes)


def test_analog_operations_and_the_teacher_are_named():
    found = _verdict(made(sop=100, mac=300, dense_mac=1000, spikes=1, neuron_updates=10), Teacher("big", 10_000))
    assert found["analog_mac_share"] == pytest.approx(0.75)
    assert found["operations_per_mac"] == pytest.approx(0.4)
    assert found["sps_teacher"] == pytest.approx(0.01)
    assert "300 multiply-accumulates" in found["sentence"]
    assert "teacher big" in found["sentence"]


def test_parameters_are_listed_tensor_by_tensor():
    net = student(np.random.default_rng(0), width=4, depth=2, levels=3)
    rows = {row["name"]: row for row in parameter_table(net)}
    assert rows["conv0.weight"]["shape"] == [4, 1, 3, 3]
    assert rows["lif0.threshold"]["count"] == 3
    assert rows["lif0.bias"]["count"] == 4
    assert rows["output.bias"]["count"] == 1
    assert rows["conv1.weight"]["bits"] <= 4  # even values in -12..12 are stored halved
    counts = counted(net)
    assert sum(row["count"] for row in rows.values()) == counts.total("parameters")


# --- memory and movement -------------------------------------------------------------------------------------------


def test_movement_charges_hops_and_withholds_what_is_not_at_hand():
    counts = made(sop=100, spikes=10, neuron_updates=50)
    priced = price(counts, load_profile("cmos22-yan"), hops=0.5)
    assert priced.energy_of("hop_bit") == pytest.approx(10 * 0.5 * 3.0)
    assert priced.energy_of("compare") == pytest.approx(50 * 0.05448)
    missing = {charge.term: charge.mean for charge in priced.not_priced}
    assert missing == {"weight_bit_read": 100 * 8, "state_bit_read": 50 * 2 * 24, "state_bit_write": 50 * 2 * 24}


def _with_memory(includes) -> Profile:
    values = load_profile("loihi1-davies2018").model_dump(by_alias=True, exclude_none=True)
    bit = {"value": 0.1, "unit": "pJ", "kind": "measured", "bound": "exact", "source": "davies2018"}
    values["energy"] |= {"weight_bit_read": bit, "state_bit_read": bit, "state_bit_write": bit}
    values["energy"]["sop"]["includes"] = includes
    return Profile.model_validate(values)


@pytest.mark.parametrize(
    ("includes", "weights", "state"),
    [([], 80.0, 480.0), (["weight_fetch"], 0.0, 480.0), (["state_rw"], 80.0, 0.0), ("unknown", 0.0, 0.0)],
)
def test_memory_is_charged_once_and_never_on_a_guess(includes, weights, state):
    """What a synaptic operation holds already, or may hold, is not charged again."""
    counts = made(sop=100, neuron_updates=50, neuron_updates_idle=50)
    priced = price(counts, _with_memory(includes))
    assert priced.energy_of("weight_bit_read") == pytest.approx(weights)
    found = priced.energy_of("state_bit_read") + priced.energy_of("state_bit_write")
    assert found == pytest.approx(state)
    assert priced.total_pj == pytest.approx(100 * 23.6 + 50 * 52 + weights + state)


def test_movement_by_hand():
    """10 spikes of 3 pJ against 40 activations of 2 bits (T = 2) at 0.25 pJ a bit."""
    counts = made(steps=2, spikes=10, activations=40, sop=100, dense_mac=100)
    found = _verdict(counts)["movement"]
    assert (found["snn_pj_per_hop"], found["qnn_pj_per_hop"]) == (30.0, 20.0)
    assert found["ratio"] == pytest.approx(1.5)
    assert "1.50 times as much as" in found["words"] and found["words"] in _verdict(counts)["sentences"]


def test_the_verdict_tells_its_range_over_the_images():
    found = _verdict(counted(images=3))
    each = found["sps_per_image"]
    assert len(each) == 3 and f"({min(each):.2f} to {max(each):.2f} over the images)" in found["sentence"]
    assert found["sps_spread"]["best"] <= found["sps_spread"]["mean"] <= found["sps_spread"]["worst"]


def test_every_image_tells_its_layers_step_by_step():
    counts = counted(student(np.random.default_rng(1), steps=3), images=2)
    answer = counts.as_dict()
    for place, layer in enumerate(answer["layers"]):
        each = [image["layers"][place] for image in answer["per_image"]]
        assert [row["name"] for row in each] == [layer["name"]] * 2
        assert sum(row["sop"] for row in each) == layer["sop"]
        for key in ("sop", "spikes"):
            assert [sum(step) for step in zip(*(row["per_step"][key] for row in each), strict=True)] == layer[
                "per_step"
            ][key]
            assert all(sum(row["per_step"][key]) == row[key] for row in each)
