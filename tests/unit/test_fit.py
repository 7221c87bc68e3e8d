"""Placement and fit: counted by hand, unknown where the profile does not know."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from neurodeploy.errors import Finding, UserError
from neurodeploy.hardware.fit import fit_findings
from neurodeploy.hardware.placement import placement
from neurodeploy.hardware.profile import Profile, load_profile
from neurodeploy.hardware.shapes import layer_shapes
from neurodeploy.quantize.network import IntegerConv, IntegerLif, IntegerNetwork, IntegerReadout
from neurodeploy.targets.ops import OPERATIONS, SIZE, chain

SAMPLES = {operation.title: operation for operation in OPERATIONS}

PROFILE = """
schema = 1
id = "toy"
name = "Toy"
caveat = "made up for a test"
[arithmetic]
payload = ["binary", "graded"]
{arithmetic}
[capacity]
unknown = [{unknown}]
{capacity}
[unpublished]
terms = ["sop", "mac", "neuron_active", "neuron_idle", "spike", "hop"]
[sources]
test = {{ ref = "this test", verified = "primary", seen = "2026-11" }}
"""

LIMITS = (
    "cores_per_chip",
    "neurons_per_core",
    "neurons_per_chip",
    "synapses_per_chip",
    "synaptic_memory_bits_per_core",
    "fan_in",
    "input_axons_per_core",
    "output_axons_per_core",
    "chips_per_board",
)


def limit(key: str, value: float, unit: str) -> str:
    return f'{key} = {{ value = {value}, unit = "{unit}", kind = "stated", bound = "exact", source = "test" }}'


def toy(tmp_path: Path, *arithmetic: str, **capacity: int) -> Profile:
    units = {"cores_per_chip": "core", "synaptic_memory_bits_per_core": "bit", "chips_per_board": "chip"}
    units |= {"synapses_per_chip": "synapse", "fan_in": "synapse"}
    lines = [limit(key, value, units.get(key, "neuron")) for key, value in capacity.items()]
    unknown = ", ".join(f'"{key}"' for key in LIMITS if key not in capacity)
    text = PROFILE.format(arithmetic="\n".join(arithmetic), unknown=unknown, capacity="\n".join(lines))
    (tmp_path / "toy.toml").write_text(text)
    return load_profile(tmp_path / "toy.toml")


def plain() -> IntegerNetwork:
    return SAMPLES["convolution and LIF, one step"].build()


def rules(findings: list[Finding], severity: str) -> list[tuple[str, str]]:
    return [(found.node, found.rule) for found in findings if found.severity == severity]


def test_shapes_follow_stride_padding_and_dilation() -> None:
    assert layer_shapes(plain(), (7, 12))["conv0"] == (4, 4, 6)
    assert layer_shapes(SAMPLES["stride"].build(), (8, 12))["output"] == (4, 2, 3)
    dense = layer_shapes(SAMPLES["dense layer behind a flatten"].build(), SIZE)
    assert dense["flatten1"] == (96, 1, 1) and dense["output"] == (6, 1, 1)


def test_what_does_not_go_through_is_refused() -> None:
    wrong = chain(IntegerConv("conv0", np.zeros((4, 3, 1, 1), np.int64)))
    with pytest.raises(UserError, match="another number of channels"):
        layer_shapes(wrong, SIZE)
    with pytest.raises(UserError, match="too small"):
        layer_shapes(chain(IntegerConv("conv0", np.zeros((4, 4, 9, 9), np.int64))), SIZE)
    strided = replace(SAMPLES["sum edge"].build())
    nodes = {**strided.nodes, "conv1": replace(strided.nodes["conv1"], stride=(2, 2))}  # type: ignore[type-var]
    with pytest.raises(UserError, match="differ in shape"):
        layer_shapes(replace(strided, nodes=nodes), SIZE)


def test_neurons_synapses_and_cores_by_hand(tmp_path: Path) -> None:
    """A 3x3 kernel with padding 1 on 4x6: 10 x 16 taps in bounds, 4 x 4 channel pairs; 96 neurons a layer."""
    placed = placement(plain(), toy(tmp_path, neurons_per_core=50, cores_per_chip=3), SIZE)
    assert [layer.name for layer in placed.layers] == ["lif0", "output"]
    first = placed.layers[0]
    assert (first.neurons, first.fan_in, first.synapses, first.weights) == (96, 36, 4 * 4 * 10 * 16, 144)
    assert first.cores == (2, 2) and first.bound_by == "neurons per core"
    assert placed.neurons == 192 and placed.cores == (4, 4) and placed.chips == (2, 2)
    assert placed.tightest == "cores per chip: have 4, limit 3"
    assert placed.as_dict()["estimate"]


def test_populations_are_neurons_and_repeat_the_fan_in(tmp_path: Path) -> None:
    placed = placement(SAMPLES["integer levels (4 populations)"].build(), toy(tmp_path, neurons_per_core=100), SIZE)
    assert [layer.neurons for layer in placed.layers] == [4 * 96, 96]
    assert [layer.fan_in for layer in placed.layers] == [36, 4 * 36]
    assert placed.cores == (4 + 1, 4 + 1)


def test_synaptic_memory_gives_a_range(tmp_path: Path) -> None:
    """144 weights of 8 bits are 1152 bits; all 2560 synapses are 20480 bits."""
    chip = toy(tmp_path, limit("weight_bits", 8, "bit"), neurons_per_core=96, synaptic_memory_bits_per_core=2048)
    placed = placement(plain(), chip, SIZE)
    assert placed.layers[0].cores == (1, 10) and placed.layers[0].bound_by == "synaptic memory per core"
    assert placed.cores == (2, 20) and placed.chips is None


def test_sum_edges_add_their_fan_in(tmp_path: Path) -> None:
    placed = placement(SAMPLES["sum edge"].build(), toy(tmp_path), SIZE)
    assert {layer.name: layer.fan_in for layer in placed.layers} == {"lif0": 36, "lif1": 72, "output": 36}


def test_what_no_profile_knows_is_unknown_and_said(tmp_path: Path) -> None:
    chip = toy(tmp_path)
    placed = placement(plain(), chip, SIZE)
    assert placed.cores is None and placed.chips is None and placed.layers[0].bound_by == "unknown"
    assert "unknown" in placed.tightest and set(placed.unknown) == set(LIMITS)
    findings = fit_findings(plain(), chip, SIZE)
    assert rules(findings, "error") == rules(findings, "warning") == []
    (note,) = findings
    assert all(key in note.rule for key in LIMITS)


def test_loihi1_refuses_graded_input_and_nothing_else_of_a_small_net() -> None:
    findings = fit_findings(plain(), load_profile("loihi1-davies2018"), SIZE)
    assert rules(findings, "error") == [
        ("input", "the input is graded (integer codes), but a spike of this chip carries none")
    ]
    assert rules(fit_findings(plain(), load_profile("loihi2"), SIZE), "error") == []


def test_a_technology_is_no_chip() -> None:
    findings = fit_findings(plain(), load_profile("cmos45-int8"), SIZE)
    assert [("is a technology" in rule) for _, rule in rules(findings, "note")] == [True]


def test_every_register_is_looked_at(tmp_path: Path) -> None:
    chip = toy(
        tmp_path,
        limit("weight_min", -8, "value"),
        limit("weight_max", 8, "value"),
        limit("weight_step", 2, "value"),
        limit("vth_bits", 7, "bit"),
        limit("decay_bits", 10, "bit"),
        limit("bias_bits", 6, "bit"),
        limit("payload_bits", 8, "bit"),
        limit("groups_max", 1, "value"),
        fan_in=20,
    )
    net = SAMPLES["groups"].build()
    conv = net.nodes["conv0"]
    assert isinstance(conv, IntegerConv)
    net = replace(net, nodes={**net.nodes, "conv0": replace(conv, weight=conv.weight + 1)})
    findings = fit_findings(net, chip, SIZE)
    assert set(rules(findings, "error")) == {
        ("input", "the input codes are wider than a spike's payload"),
        ("conv0", "weights are out of range"),
        ("conv0", "weights are not multiples of 2"),
        ("conv0", "too many groups"),
        ("conv1", "weights are out of range"),
        ("lif0", "the threshold mantissa is out of range"),
        ("lif0", "v_decay is out of range"),
        ("lif0", "i_decay is out of range"),
        ("output", "a neuron has too many synapses"),
    }
    (bias,) = [found for found in findings if found.severity == "warning"]
    assert bias.node == "lif0" and "nominal mantissa" in bias.rule


def test_biases_fit_by_mantissa_and_exponent(tmp_path: Path) -> None:
    """13 bits with an exponent up to 7: 4095 fits, and 8190 = 4095 * 2 too, but not 4097."""
    chip = toy(tmp_path, limit("bias_bits", 13, "bit"), limit("bias_exponent_bits", 3, "bit"))

    def warned(bias: int) -> bool:
        lif = IntegerLif("lif0", 10, np.array([bias, 0, 0, 0]))
        net = chain(IntegerConv("conv0", np.full((4, 4, 1, 1), 2)), lif, IntegerConv("conv1", np.full((4, 4, 1, 1), 2)))
        return bool(rules(fit_findings(net, chip, SIZE), "warning"))

    assert [warned(bias) for bias in (4095, -4096, 8190, -8192)] == [False] * 4
    assert [warned(bias) for bias in (4097, -4097, 8192)] == [True] * 3


def test_weights_of_a_profile_that_gives_only_a_width(tmp_path: Path) -> None:
    wide = toy(tmp_path, limit("weight_bits", 5, "bit"))
    assert rules(fit_findings(plain(), wide, SIZE), "error") == []
    narrow = toy(tmp_path, limit("weight_bits", 4, "bit"))
    assert ("conv0", "weights need more bits") in rules(fit_findings(plain(), narrow, SIZE), "error")


def test_more_chips_than_a_board_has_is_an_error(tmp_path: Path) -> None:
    few = fit_findings(plain(), toy(tmp_path, neurons_per_chip=100, chips_per_board=2), SIZE)
    assert rules(few, "error") == [] and len(rules(few, "warning")) == 1
    none = fit_findings(plain(), toy(tmp_path, neurons_per_chip=100, chips_per_board=1), SIZE)
    (error,) = [found for found in none if found.severity == "error"]
    assert "takes 2 chips by estimate" in error.rule and error.limit == "1 chips a board"
    unknown = fit_findings(plain(), toy(tmp_path, neurons_per_chip=100), SIZE)
    assert [found.limit for found in unknown if found.severity == "warning"] == ["one chip; chips a board unknown"]


def test_a_readout_is_neurons_as_well() -> None:
    net = chain(IntegerConv("conv0", np.full((4, 4, 1, 1), 2)))
    assert isinstance(net.nodes["output"], IntegerReadout)
    placed = placement(net, load_profile("loihi2"), SIZE)
    assert [layer.name for layer in placed.layers] == ["output"] and placed.neurons == 96
