"""Integer levels as binary digits: the same integers as populations, and few spikes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.graph.spec import StudentSpec
from neurodeploy.hardware.fit import fit_findings
from neurodeploy.hardware.profile import load_profile
from neurodeploy.quantize.bounds import WEIGHT_EXPONENT_MAX, range_findings, weight_exponent
from neurodeploy.quantize.bursts import in_bursts, most_spikes
from neurodeploy.quantize.digits import LEAST_LEVELS, as_trained, digits_of, in_digits
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import IntArray, IntegerConv, IntegerLif, IntegerNetwork
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.kernel.refuse import shift_of
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.restore import restore
from neurodeploy.targets.lava import form_findings
from neurodeploy.targets.lava_program import read_program
from neurodeploy.zoo import resolve
from tests.burst_nets import burstable
from tests.in_time import answer, counted, small_student
from tests.random_nets import chain, even_weights, random_student, student_network

Drawn = tuple[IntegerNetwork, IntArray]


def digits_in(level: int, digits: tuple[int, ...]) -> dict[int, int]:
    """By hand: how often each digit is in a level."""
    found = {}
    for digit in digits:
        found[digit], level = divmod(level, digit)
    return found


@given(levels=st.integers(1, 120))
def test_digits_are_powers_of_two_and_few(levels: int) -> None:
    digits = digits_of(levels)
    assert digits == tuple(sorted((1 << place for place in range(len(digits))), reverse=True))
    spikes = [sum(digits_in(level, digits).values()) for level in range(levels + 1)]
    assert levels // digits[0] <= 3 or levels < LEAST_LEVELS
    assert all(spent <= max(level, 1) for level, spent in enumerate(spikes))


@settings(max_examples=150, deadline=None)
@given(drawn=burstable(most=12))
def test_every_level_is_sent_as_its_digits(drawn: Drawn) -> None:
    net, codes = drawn
    made = in_digits(net).net
    levels, sent = Trace(1), Trace(made.host.steps)
    np.testing.assert_array_equal(reference.run(made, codes, observer=sent), reference.run(net, codes, observer=levels))
    longest = most_spikes(made)
    for name, layer in levels.layers.items():
        level = layer.fired[0].sum(axis=0)
        np.testing.assert_array_equal(sent.layers[name].fired[:, 0].sum(axis=0), level)
        digits = digits_of(len(layer.fired[0]))
        last = int(np.flatnonzero(sent.layers[name].fired.any(axis=(1, 2, 3, 4)))[-1]) if level.any() else 0
        for digit in digits if len(digits) > 1 else ():
            fired = sent.layers[f"{name}_{digit}"].fired[:, 0]
            expected = np.vectorize(lambda k, digit=digit, digits=digits: digits_in(int(k), digits)[digit])(level)
            np.testing.assert_array_equal(fired.sum(axis=0), expected)
            assert longest[f"{name}_{digit}"] == (len(layer.fired[0]) // digit if digit == digits[0] else 1)
            # the smaller digits leave in the last step of the burst, all of them at once
            assert digit == digits[0] or not fired[np.arange(len(fired)) != last].any()


@pytest.mark.skipif(kernel.missing() is not None, reason="the kernel was not compiled")
@settings(max_examples=60, deadline=None)
@given(drawn=burstable(most=12))
def test_the_kernel_sends_the_same(drawn: Drawn) -> None:
    net, codes = drawn
    made = in_digits(net).net
    if kernel.declines(made, codes) is None:
        np.testing.assert_array_equal(kernel.run(made, codes), reference.run(net, codes))


@settings(max_examples=60, deadline=None)
@given(drawn=burstable(most=12), seed=st.integers(0, 99))
def test_bounded_membranes_hold_any_digits(drawn: Drawn, seed: int) -> None:
    """Where nothing is noticed, no membrane spikes before it is released, whatever the codes are."""
    net, codes = drawn
    made = in_digits(net)
    if made.findings:
        return
    worst = np.random.default_rng(seed).choice([net.host.input_min, net.host.input_max], codes.shape)
    np.testing.assert_array_equal(reference.run(made.net, worst), reference.run(net, worst))


def met(node: IntegerConv, spikes: IntArray) -> int:
    """By brute force: synapses in bounds that spikes (C, h, w) arrive at."""
    height, width = spikes.shape[1:]
    fan_out = node.weight.shape[0] // node.groups
    total = 0
    for row, column in np.ndindex(height, width):
        taps = 0
        for down, right in np.ndindex(*node.weight.shape[2:]):
            places = (
                row + node.padding[0] - down * node.dilation[0],
                column + node.padding[1] - right * node.dilation[1],
            )
            taps += 0 <= places[0] < height and 0 <= places[1] < width
        total += int(spikes[:, row, column].sum()) * taps * fan_out
    return total


@settings(max_examples=40, deadline=None)
@given(drawn=burstable(most=12))
def test_operations_are_those_of_the_digits_and_the_network_is_the_one_that_was_trained(drawn: Drawn) -> None:
    net, codes = drawn
    made = in_digits(net).net
    before, after = counted(net, codes, "auto"), counted(made, codes, "reference")
    rows = {row.name: row for row in after.layers}
    for old in before.layers:
        new = rows[old.name]
        keys = ("dense_mac", "dense_mac_padded", "ann_mac_nonzero", "activations", "activations_nonzero", "mac_once")
        assert [getattr(new, key) for key in keys] == [getattr(old, key) for key in keys]
        if new.kind == "spiking":
            assert (new.spikes, new.populations) == (old.spikes, 1)
    for name in rows.keys() - {old.name for old in before.layers}:
        assert isinstance(made.nodes[name], IntegerLif)
        row = rows[name]
        assert (row.dense_mac, row.ann_mac_nonzero, row.activations, row.activations_nonzero, row.parameters) == (
            0,
        ) * 5
    seen = Trace(made.host.steps)
    reference.run(made, codes, observer=seen)
    for name, row in rows.items():
        links = [made.nodes[link] for link in made.sources(name)]
        by_hand = sum(
            met(link, seen.layers[source].fired[:, 0].sum(axis=0))
            for link in links
            if isinstance(link, IntegerConv)
            for source in made.sources(link.name)
            if source in seen.layers
        )
        assert (row.sop, sum(row.per_step["sop"])) == (by_hand, by_hand)
    if kernel.missing() is None and kernel.declines(made, codes) is None:
        assert counted(made, codes, "kernel").as_dict() == after.as_dict()


@settings(max_examples=40, deadline=None)
@given(drawn=burstable(most=12))
def test_what_is_left_without_digits_is_the_network(drawn: Drawn) -> None:
    net, _ = drawn
    bare = as_trained(in_digits(net).net)
    assert sorted(bare.edges) == sorted(net.edges) and list(bare.nodes) == list(net.nodes)
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv):
            np.testing.assert_array_equal(bare.nodes[name].weight, node.weight)  # type: ignore[union-attr]
    assert as_trained(net) is net


def test_few_levels_go_as_bursts() -> None:
    rng = np.random.default_rng(0)
    net = chain([even_weights(rng, 3, 4, 3, 3), even_weights(rng, 4, 3, 3, 3)], levels=(40, 0, -40))
    made, bursts = in_digits(net).net, in_bursts(net).net
    assert list(made.nodes) == list(bursts.nodes) and made.host == bursts.host


def test_pictures_are_the_same_in_tiles_too() -> None:
    student = random_student(StudentSpec(width=4, depth=2, levels=6, noise_map=True), 8)
    net = quantize(student_network(student, (40, 32)))
    image = np.random.default_rng(1).normal(0.5, 0.2, (1, 37, 30))
    made = in_digits(net).net
    for tile in (None, 16):
        np.testing.assert_allclose(restore(made, image, tile=tile), restore(net, image), rtol=0, atol=1e-12)


@given(st.lists(st.integers(-128, 127), min_size=1), st.integers(0, 9))
def test_an_exponent_is_the_least_that_brings_weights_into_8_bits(halves: list[int], shift: int) -> None:
    weight = np.asarray(halves, np.int64).reshape(-1, 1, 1, 1) * 2 << shift
    found = weight_exponent(weight)
    fits = [e for e in range(8) if not np.any(weight % (2 << e)) and np.all(abs(weight + (1 << e)) <= 255 << e)]
    assert found == min(fits, default=None) or (found is None and not fits)
    kept = shift_of(weight)
    if found is not None:
        assert kept is not None
        np.testing.assert_array_equal((weight >> kept).astype(np.int8).astype(np.int64) << kept, weight)


def test_weights_that_no_exponent_fits_are_out_of_range() -> None:
    rng = np.random.default_rng(0)
    for weight, fits in ((np.full((2, 4, 1, 1), 508), True), (np.full((2, 4, 1, 1), 510), False)):
        net = chain([weight, even_weights(rng, 4, 2, 1, 1)])
        placed = fit_findings(net, load_profile("loihi2"), (8, 8))
        for found in (range_findings(net), placed):
            assert any("weights are out of range" in finding.rule for finding in found) is not fits
    assert weight_exponent(np.full((1, 1, 1, 1), 254 << WEIGHT_EXPONENT_MAX)) == WEIGHT_EXPONENT_MAX
    assert weight_exponent(np.full((1, 1, 1, 1), 254 << WEIGHT_EXPONENT_MAX + 1)) is None


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return small_student(tmp_path)


def test_verbs_take_digits(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, bundle = answer(capsys, "export", student, "--target", "lava", "--code", "digits", "--out", tmp_path / "b")
    assert code == 0 and bundle["manifest"]["steps"] == 7  # type: ignore[index]
    facts = answer(capsys, "inspect", tmp_path / "b")[1]["facts"]
    assert facts["levels"] == "as digits"  # type: ignore[index]
    assert facts["parameters"] < facts["parameters repeated"]  # type: ignore[index, operator]
    made, net = read_program(tmp_path / "b"), resolve(str(student), code="digits").integer()
    assert [(lif.digit_of, lif.digit) for lif in made.lifs()] == [(lif.digit_of, lif.digit) for lif in net.lifs()]
    asked = ("--data", "builtin", "--degradation", "gaussian:25", "--limit", "1", "--allow-partial")
    first, second = (
        answer(capsys, "energy-report", *model, *asked)[1]
        for model in ((student, "--code", "digits"), (tmp_path / "b",))
    )
    assert first["counts"]["layers"] == second["counts"]["layers"]  # type: ignore[index]
    assert first["parameters"]["total"] == second["parameters"]["total"]  # type: ignore[index]
    bursts = answer(capsys, "energy-report", student, "--code", "bursts", *asked)[1]
    assert bursts["parameters"]["total"] == first["parameters"]["total"]  # type: ignore[index]


def test_exponents_are_said_and_netx_refuses_them(student: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = {}
    for how in ("populations", "digits"):
        checked = answer(capsys, "check", student, "--target", "loihi2", "--code", how)[1]
        findings: list[dict[str, str]] = checked["findings"]  # type: ignore[assignment]
        said[how] = [(one["severity"], one["have"]) for one in findings if "power of two" in one["rule"]]
    assert said == {"populations": [], "digits": [("warning", "times up to 2")]}
    rng = np.random.default_rng(0)
    wide = chain([np.full((2, 4, 1, 1), 508), even_weights(rng, 4, 2, 1, 1)])
    assert any("need an exponent" in finding.rule for finding in form_findings(wide, "netx"))
    assert not form_findings(wide, "program")
