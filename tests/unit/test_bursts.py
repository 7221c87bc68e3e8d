"""Integer levels in time: the same integers as populations, at a D-th of the operations."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neurodeploy.cli import main
from neurodeploy.errors import Finding, FindingsError, InternalError
from neurodeploy.graph.spec import HostSide, StudentSpec
from neurodeploy.quantize.bursts import Coded, in_bursts, most_spikes, without_ticks
from neurodeploy.quantize.digits import in_digits
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import IntArray, IntegerConv, IntegerLif, IntegerNetwork, IntegerNode
from neurodeploy.report.deployable import deployable
from neurodeploy.report.evaluate import open_dataset
from neurodeploy.report.score import score_student
from neurodeploy.simulate import kernel, reference
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.restore import restore
from neurodeploy.targets.check import check
from neurodeploy.targets.lava_program import read_program
from neurodeploy.zoo import resolve
from tests.burst_nets import burstable
from tests.in_time import answer, counted, small_student
from tests.random_nets import chain, even_weights, random_student, student_network

Drawn = tuple[IntegerNetwork, IntArray]


def levels_and_bursts(net: IntegerNetwork, codes: IntArray) -> tuple[IntegerNetwork, Trace, Trace]:
    made = in_bursts(net).net
    levels, bursts = Trace(1), Trace(made.host.steps)
    np.testing.assert_array_equal(
        reference.run(made, codes, observer=bursts), reference.run(net, codes, observer=levels)
    )
    return made, levels, bursts


@settings(max_examples=150, deadline=None)
@given(drawn=burstable())
def test_every_neuron_sends_its_level_as_a_burst(drawn: Drawn) -> None:
    net, codes = drawn
    made, levels, bursts = levels_and_bursts(net, codes)
    longest = most_spikes(made)
    for name, layer in levels.layers.items():
        level = layer.fired[0].sum(axis=0)
        fired = bursts.layers[name].fired[:, 0]
        np.testing.assert_array_equal(fired.sum(axis=0), level)
        assert longest[name] == len(layer.fired[0])
        # one burst, at the end of the steps that the layer has
        started = np.diff(fired.astype(int), axis=0, prepend=0) > 0
        assert started.sum(axis=0).max(initial=0) <= 1
        last = len(fired) - 1 - np.argmax(fired[::-1], axis=0)
        assert len(np.unique(last[level > 0])) <= 1


@pytest.mark.skipif(kernel.missing() is not None, reason="the kernel was not compiled")
@settings(max_examples=60, deadline=None)
@given(drawn=burstable())
def test_the_kernel_sends_the_same(drawn: Drawn) -> None:
    net, codes = drawn
    made = in_bursts(net).net
    if kernel.declines(made, codes) is None:
        np.testing.assert_array_equal(kernel.run(made, codes), reference.run(net, codes))


@settings(max_examples=60, deadline=None)
@given(drawn=burstable(), seed=st.integers(0, 99))
def test_bounded_membranes_hold_any_spikes(drawn: Drawn, seed: int) -> None:
    """Where nothing is noticed, no membrane spikes before it is released, whatever the codes are."""
    net, codes = drawn
    made = in_bursts(net)
    if made.findings:
        return
    worst = np.random.default_rng(seed).choice([net.host.input_min, net.host.input_max], codes.shape)
    levels_and_bursts(net, worst)


@settings(max_examples=40, deadline=None)
@given(drawn=burstable())
def test_a_dth_of_the_operations_and_what_the_ticks_cost(drawn: Drawn) -> None:
    net, codes = drawn
    made = in_bursts(net).net
    before, after = counted(net, codes, "auto"), counted(made, codes, "reference")
    places = codes.shape[1] * codes.shape[2]
    for old, new in zip(before.layers, after.layers, strict=True):
        assert (new.sop * old.populations, new.spikes) == (old.sop, old.spikes)
        assert new.sop_nonzero * old.populations == old.sop_nonzero
        assert (new.neurons * old.populations, new.populations) == (old.neurons, 1)
        for key in ("dense_mac", "ann_mac_nonzero", "activations", "activations_nonzero", "mac_once"):
            assert getattr(new, key) == getattr(old, key), key
        # by hand: what every tick meets
        ticks = 0
        for link in made.sources(new.name):
            node = made.nodes[link]
            if isinstance(node, IntegerConv) and link.startswith("ticks_"):
                for channel, sent in enumerate(made.host.ticks, start=net.input.channels):
                    ticks += len(sent) * int(np.count_nonzero(node.weight[:, channel])) * places
        assert new.mac == old.mac // old.populations + ticks
        assert sum(new.per_step["mac"]) == new.mac
        assert new.neuron_updates == new.neurons * made.host.steps == new.neuron_updates_active
    if kernel.declines(made, codes) is None:
        assert counted(made, codes, "kernel").as_dict() == after.as_dict()


def test_what_is_left_without_ticks_is_the_network() -> None:
    student = random_student(StudentSpec(width=4, depth=3, levels=3, edges=((1, 2),)), 5)
    net = quantize(student_network(student, (12, 12)))
    bare = without_ticks(in_bursts(net).net)
    assert bare.edges == net.edges and list(bare.nodes) == list(net.nodes)
    for name, node in net.nodes.items():
        if isinstance(node, IntegerConv):
            np.testing.assert_array_equal(bare.nodes[name].weight, node.weight)  # type: ignore[union-attr]
    assert without_ticks(net) is net
    assert most_spikes(net) == dict.fromkeys(("lif0", "lif1", "lif2"), 1)


def test_pictures_are_the_same_in_tiles_too() -> None:
    student = random_student(StudentSpec(width=4, depth=2, levels=4, noise_map=True), 8)
    net = quantize(student_network(student, (40, 32)))
    image = np.random.default_rng(1).normal(0.5, 0.2, (1, 37, 30))
    made = in_bursts(net).net
    for tile in (None, 16):
        np.testing.assert_allclose(restore(made, image, tile=tile), restore(net, image), rtol=0, atol=1e-12)


def refused(net: IntegerNetwork) -> str:
    with pytest.raises(FindingsError) as error:
        in_bursts(net)
    return "; ".join(str(finding) for finding in error.value.findings)


def test_what_cannot_be_sent_in_bursts_is_refused_by_name() -> None:
    rng = np.random.default_rng(0)
    weights = [even_weights(rng, 3, 4, 3, 3), even_weights(rng, 4, 3, 3, 3)]
    net = chain(weights, levels=(40, 0, -40))
    nodes: dict[str, IntegerNode] = dict(net.nodes)
    assert "T = 1" in refused(replace(net, host=HostSide(steps=2)))
    strided = {**nodes, "conv0": replace(net.nodes["conv0"], stride=(2, 2))}  # type: ignore[call-arg]
    assert "conv0: ticks reach the places of the input" in refused(replace(net, nodes=strided))
    close = {**nodes, "lif0": replace(net.nodes["lif0"], levels=(1, 0, -40))}  # type: ignore[call-arg]
    assert "lif0: two levels share a threshold" in refused(replace(net, nodes=close))
    large = {**nodes, "output": replace(net.nodes["output"], bias=np.full(4, 1 << 20))}  # type: ignore[call-arg]
    assert "output: biases are too large" in refused(replace(net, nodes=large))
    counting = replace(net, edges=(*net.edges[:2], ("lif0", "output")), nodes={**nodes, "output": net.nodes["output"]})
    assert "output: is fed by something else" in refused(counting)
    assert "T = 1" in refused(in_bursts(net).net), "it is in bursts already"


def test_levels_one_apart_are_refused_where_odd_biases_would_join_them() -> None:
    rng = np.random.default_rng(0)
    net = chain([even_weights(rng, 2, 4, 1, 1), even_weights(rng, 4, 2, 1, 1)])
    lif = net.nodes["lif0"]
    assert isinstance(lif, IntegerLif)
    made = replace(lif, vth=100, levels=(0, -2), bias=np.array([0, 2]))
    codes = rng.integers(-9, 9, (4, 3, 3))
    levels_and_bursts(replace(net, nodes={**net.nodes, "lif0": made}), codes)
    apart = replace(made, vth=101, levels=(1, -1), bias=np.array([0, 1]))  # 100 and 102, and one channel in between
    levels_and_bursts(replace(net, nodes={**net.nodes, "lif0": apart}), codes)


def test_a_membrane_that_some_input_could_drive_too_far_is_noticed() -> None:
    wide = [np.full((8, 4, 1, 1), 2), np.full((8, 8, 9, 9), 254), np.full((4, 8, 1, 1), 2)]
    made = in_bursts(chain([np.asarray(one) for one in wide], levels=(40, 0, -40)))
    assert [finding.node for finding in made.findings] == ["lif1"]
    assert made.findings[0].severity == "warning" and "beyond what holds it" in made.findings[0].rule
    # it is held half-way between the end of its register and its threshold, not where the worst inputs would balance
    holds = [value for channel in made.net.host.ticks for step, value in channel if step == 0 and value < -100]
    assert holds == [-(((1 << 17) - 1) // 2 // 254)]


def test_ticks_are_checked_and_stand_in_descriptions_only_where_there_are_any() -> None:
    host = HostSide(steps=3, ticks=(((0, 5), (2, -7)), ()))
    codes = np.arange(16).reshape(4, 2, 2)
    frames = host.frames(codes)
    assert frames.shape == (3, 6, 2, 2)
    np.testing.assert_array_equal(frames[0, :4], codes)
    assert (frames[0, 4] == 5).all() and (frames[2, 4] == -7).all() and not frames[1].any() and not frames[2, :4].any()
    assert HostSide.model_validate_json(host.model_dump_json()) == host
    assert "ticks" not in HostSide().model_dump() and "noise_map" not in host.model_dump()
    for ticks in ([[[3, 1]]], [[[-1, 1]]], [[[0, 1 << 15]]]):
        with pytest.raises(ValueError, match="ticks"):
            HostSide.model_validate({"steps": 3, "ticks": ticks})


@pytest.fixture
def student(tmp_path: Path) -> Path:
    return small_student(tmp_path)


def test_verbs_take_bursts(student: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, bundle = answer(capsys, "export", student, "--target", "lava", "--code", "bursts", "--out", tmp_path / "b")
    assert code == 0 and bundle["manifest"]["steps"] == 7  # type: ignore[index]
    assert bundle["manifest"]["model"]["parameters"] == resolve(str(student)).parameters - 2 * 3  # type: ignore[index]
    assert answer(capsys, "inspect", tmp_path / "b")[1]["facts"]["levels"] == "in bursts"  # type: ignore[index]
    made = read_program(tmp_path / "b")
    assert made.host.ticks and all(len(lif.levels) == 1 for lif in made.lifs())
    asked = ("--data", "builtin", "--degradation", "gaussian:25", "--limit", "1", "--allow-partial")
    plain, *results = (
        answer(capsys, "energy-report", model, *code, *asked)[1]
        for model, code in ((student, ()), (student, ("--code", "bursts")), (tmp_path / "b", ()))
    )
    sops = [[row["sop"] for row in one["counts"]["layers"]] for one in (plain, *results)]  # type: ignore[index]
    assert sops[0][1] == 4 * sops[1][1] and sops[0][2] == sops[1][2] and sops[1] == sops[2]
    for code in ("populations", "bursts"):
        assert main(["-q", "energy-report", str(student), "--code", code, *asked]) == 0
        assert ("1/4 of the synaptic operations: --code bursts" in capsys.readouterr().out) == (code == "populations")
    parameters = [one["counts"]["total"]["parameters"] for one in results]  # type: ignore[index]
    assert parameters[0] == parameters[1]


@pytest.mark.parametrize("target", ["nir", "onnx", "speck", "spinnaker2"])
def test_targets_without_ticks_say_so(student: Path, target: str, capsys: pytest.CaptureFixture[str]) -> None:
    code, checked = answer(capsys, "check", student, "--target", target, "--code", "bursts")
    assert code == 1
    findings = checked["findings"]
    assert any("ticks beside the codes" in finding["rule"] for finding in findings)  # type: ignore[union-attr, attr-defined]


def test_targets_of_others_are_given_ticks_only_if_they_take_them(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SimpleNamespace(name="other", profile=None, option_values={}, check=lambda _job: [])
    monkeypatch.setattr("neurodeploy.targets.check.get_target", lambda _name: other)
    model = deployable(resolve(str(student), code="bursts"))
    assert ["ticks" in found.rule for found in check(model, "other").findings] == [True]
    other.takes_ticks = True
    assert check(model, "other").ok


def test_a_score_has_no_figures_for_bursts_that_restore_another_picture(
    student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = resolve(str(student))
    images = open_dataset(model, data="builtin", degradation="gaussian:25")
    assert score_student(model, images, limit=1, stages=False)["digits"]["T"] == 7
    made = in_digits(model.integer())
    readout = replace(made.net.readout, bias=made.net.readout.bias + 1)
    other = replace(made.net, nodes={**made.net.nodes, readout.name: readout})
    monkeypatch.setattr("neurodeploy.report.score.in_digits", lambda _net: Coded(other, (Finding("lif1", "far"),), {}))
    assert score_student(model, images, limit=1, stages=False)["digits"] is None
    monkeypatch.setattr("neurodeploy.report.score.in_digits", lambda _net: Coded(other, (), {}))
    with pytest.raises(InternalError, match="another picture"):
        score_student(model, images, limit=1, stages=False)
