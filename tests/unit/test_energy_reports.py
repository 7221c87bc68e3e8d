"""Conditions, tables for papers, NeuroBench's keys, tornado, arithmetic alone, activity, hashes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from neurodeploy.energy.baselines import Teacher
from neurodeploy.energy.count import OperationCounter
from neurodeploy.energy.op_only import op_only, op_only_of_ann
from neurodeploy.energy.price import price
from neurodeploy.errors import UserError
from neurodeploy.hardware.profile import load_profile
from neurodeploy.images.datasets import Sample
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.report.activity import ActivityProbe
from neurodeploy.report.charts import chip_maps, heat_map, histogram
from neurodeploy.report.checks import NAMES, parse_checks
from neurodeploy.report.latex import escaped, latex_table
from neurodeploy.report.markdown import energy_markdown
from neurodeploy.report.neurobench import neurobench
from neurodeploy.report.reproduce import DataHash, network_sha256
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from tests.energy_nets import student
from tests.report_samples import sample_energy


@pytest.fixture(scope="module")
def report():
    return sample_energy()


def counted(net, images: int = 1):
    counter = OperationCounter(net)
    for place in range(images):
        run(net, np.random.default_rng(place).integers(0, 256, (1, 9, 8)), observer=counter)
    return counter.counts()


# --- conditions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "ok"),
    [
        ("psnr_db>29", True),
        ("psnr_db > 29.5", False),
        ("psnr_db>=29.5", True),
        ("ssim<=0.8", True),
        ("psnr_db==29.5", True),
        ("psnr_db != 29.5", False),
        ("quality.images==2", True),
        ("counts.layers.0.sop==0", True),
        ("prices.cmos45-int8.total_pj<1e30", True),
        ("prices.loihi2.total_pj<1e30", False),
    ],
)
def test_conditions(report, text, ok):
    (check,) = parse_checks([text])
    answer = check.of(report)
    assert answer["ok"] is ok
    assert answer["check"] == text
    if answer["value"] is None:
        assert "withheld" in answer["why"]


def test_every_short_name_is_a_place_in_the_report(report):
    for name in NAMES:
        (check,) = parse_checks([f"{name}>-1"])
        assert check.of(report)["ok"], name


def test_a_condition_on_what_was_not_measured_fails():
    (check,) = parse_checks(["psnr_db>0"])
    answer = check.of(sample_energy(quality=None))
    assert not answer["ok"] and answer["value"] is None and answer["why"]


@pytest.mark.parametrize("text", ["psnr_db", "psnr_db=29", "29<psnr_db", "psnr_db>", "psnr_db>..", "", "psnr_db>1e999"])
def test_what_is_no_condition_is_refused(text):
    with pytest.raises(UserError, match="of the form"):
        parse_checks([text])


def test_unknown_figures_get_the_nearest_name(report):
    with pytest.raises(UserError, match="psnr_db"):
        parse_checks(["psnr>29"])
    with pytest.raises(UserError, match="no place"):
        parse_checks(["prices.loihi.total_pj<1"])[0].of(report)
    with pytest.raises(UserError, match="not a number"):
        parse_checks(["verdict.class<1"])[0].of(report)


# --- tables for others --------------------------------------------------------------------------------------------


def test_the_latex_table_is_balanced_and_escaped(report):
    evil = {**report, "model": r"a_b & 50% \x{y}^2 #1 $z$ ~", "data": "50% of a_b (c). d"}
    text = latex_table([evil])
    body = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {line.count("&") - line.count(r"\&") for line in body} == {7}
    assert r"a\_b \& 50\%" in text and "50% of" not in text.split(r"\caption", 1)[1]
    assert text.count("{") - text.count(r"\{") == text.count("}") - text.count(r"\}")
    assert text.index(r"\begin{tabular}") < text.index(r"\end{tabular}")
    assert "29.50" in text and "teacher big, dense" in text
    alone = report["op_only"]["fp32"]["student_pj"] * 1e-6
    assert f"{alone:.3g}" in text


def test_special_characters_of_latex():
    assert escaped("\\{}") == r"\textbackslash{}\{\}"


def test_markdown_holds_placement_quality_and_conditions(report):
    text = energy_markdown({**report, "checks": [{"check": "psnr_db>29", "ok": True, "value": 29.5}]})
    assert "PSNR 29.50 dB" in text and "holds: `psnr_db>29`" in text
    assert "loihi2, 12x10 pixels a run" in text
    assert "arithmetic is" in text


@pytest.mark.parametrize("levels", [1, 3])
def test_neurobenchs_figures_are_those_of_the_expanded_network(levels):
    """Levels folded or written out as channels, NeuroBench would see the same operations."""
    net = student(np.random.default_rng(4), levels=levels)
    folded, expanded = neurobench(counted(net, 2)), neurobench(counted(expand_levels(net), 2))
    for key in ("SynapticOperations", "MembraneUpdates", "ActivationSparsity", "NeuronOperations"):
        assert folded[key] == pytest.approx(expanded[key])
    weights = [node.weight for node in net.nodes.values() if hasattr(node, "weight")]
    zeros = sum(int((weight == 0).sum()) for weight in weights) / sum(weight.size for weight in weights)
    assert folded["ConnectionSparsity"] == pytest.approx(zeros)


# --- arithmetic alone, and the tornado ----------------------------------------------------------------------------


def test_arithmetic_alone_by_hand():
    counts = counted(student(np.random.default_rng(1), steps=2), 2)
    mac, sop, dense = counts.mean("mac"), counts.mean("sop"), counts.mean("dense_mac")
    found = op_only(counts, Teacher("big", 1e6))
    assert found["fp32"]["student_pj"] == pytest.approx(4.6 * mac + 0.9 * sop)
    assert found["fp32"]["teacher_over_student"] == pytest.approx(4.6e6 / (4.6 * mac + 0.9 * sop))
    assert found["int8"]["teacher_over_student"] == pytest.approx(0.23e6 / (0.23 * mac + 0.03 * sop))
    assert found["int8"]["same_shape_ann_pj"] == pytest.approx(0.23 * dense)
    assert op_only(counts, None)["fp32"]["teacher_over_student"] is None
    assert op_only_of_ann(10) == (pytest.approx(46.0), pytest.approx(2.3))


def test_the_tornado_moves_one_constant_at_a_time():
    counts = counted(student(np.random.default_rng(2)))
    priced = price(counts, load_profile("loihi1-davies2018"), hops=2.0)
    rows = priced.as_dict()["tornado"]
    assert [row["high_pj"] - row["low_pj"] for row in rows] == sorted(
        (row["high_pj"] - row["low_pj"] for row in rows), reverse=True
    )
    by_term = {row["term"]: row for row in rows}
    hops = 2.0 * counts.mean("spikes")
    assert by_term["hop"]["quoted"]
    assert by_term["hop"]["low_pj"] == pytest.approx(priced.partial_pj - hops * 0.5)
    assert by_term["hop"]["high_pj"] == pytest.approx(priced.partial_pj + hops * 0.5)
    assert not by_term["sop"]["quoted"]
    assert by_term["sop"]["high_pj"] == pytest.approx(priced.partial_pj + 0.5 * 23.6 * counts.mean("sop"))
    assert all(row["low_pj"] <= row["base_pj"] <= row["high_pj"] for row in rows)


# --- activity -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("levels", "steps"), [(1, 4), (3, 1)])
def test_activity_is_that_of_the_run(levels, steps):
    net = student(np.random.default_rng(0), levels=levels, steps=steps)
    codes = np.random.default_rng(5).integers(0, 80, (1, 12, 10))
    probe, trace = ActivityProbe(net), Trace(steps=steps)
    run(net, codes, observer=probe)
    run(net, codes, observer=trace)
    for row in probe.as_dict():
        fired, node = trace.layers[row["name"]].fired, net.nodes[row["name"]]
        assert row["rate"] == pytest.approx(fired.mean())
        raster = fired.mean(axis=(3, 4)).reshape(steps * levels, -1).T  # (C, T * D)
        assert np.allclose(row["raster"], raster, atol=1e-4)
        assert np.allclose(row["map"], fired.mean(axis=(0, 1, 2)), atol=1e-4)
        membrane = row["membrane"]
        assert sum(membrane["counts"]) == fired[:, 0].size  # the first population, every step
        # what lies above each threshold is what spiked: exact where a threshold is the edge of a bin
        edges, counts = np.array(membrane["edges"]), np.array(membrane["counts"])
        for place, threshold in enumerate(membrane["thresholds"]):
            assert threshold == node.vth - node.levels[place] + node.levels[0]
            if steps == 1:
                above = counts[edges[:-1] > threshold].sum()
                over = counts[edges[1:] > threshold].sum()
                assert above <= fired[:, place].sum() <= over


def test_the_first_populations_membrane_before_reset_is_found_again():
    """With a leak the membrane of the step before matters: rebuilt from u and v, it says exactly who spiked."""
    net = student(np.random.default_rng(7), steps=5)
    codes = np.random.default_rng(1).integers(0, 80, (1, 9, 9))
    probe, trace = ActivityProbe(net), Trace(steps=5)
    run(net, codes, observer=probe)
    run(net, codes, observer=trace)
    for name, kept in probe.layers.items():
        fired, top = trace.layers[name].fired, kept.edges[-1]
        vth = net.nodes[name].vth
        # thresholds lie on the edge of a bin: BINS / (2 * REACH) bins to a threshold
        assert np.isclose(kept.edges, vth).any() and top == 3 * vth
        first = int(np.argmin(np.abs(kept.edges - vth)))
        # v == vth does not spike and falls into the bin above: at most as many as lie on the edge
        assert kept.bins[first:].sum() >= fired.sum() >= kept.bins[first + 1 :].sum()


def test_drawings_hold_their_values():
    assert heat_map([[0.0, 0.5], [1.0, 0.25]]).startswith("data:image/png;base64,")
    assert heat_map([[0.0]]).startswith("data:image/png;base64,")
    drawn = histogram({"edges": [-2.0, 0.0, 2.0], "counts": [4, 9], "thresholds": [1, 2]}, "lif0")
    assert drawn.count("<rect") == 2 and drawn.count("<line") == 2 and "9 neurons and steps" in drawn
    plan = sample_energy()["placements"]["loihi2"]["advice"]["plan"]
    (chip,) = chip_maps(plan, 128)
    assert chip["used"] == sum(part["cores"] for part in plan["parts"])
    assert str(chip["svg"]).count("h8v8h-8z") == 128


# --- hashes -------------------------------------------------------------------------------------------------------


def test_hashes_tell_networks_and_data_apart():
    net, same, other = (student(np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert network_sha256(net) == network_sha256(same) != network_sha256(other)
    nodes = {**net.nodes, "lif0": replace(net.nodes["lif0"], vth=net.nodes["lif0"].vth + 1)}
    assert network_sha256(replace(net, nodes=nodes)) != network_sha256(net)
    hashes = []
    for value in (0.5, 0.5, 0.25):
        data = DataHash()
        data.add(Sample("a", np.full((1, 4, 4), value, np.float32), None, 0.0))
        hashes.append(data.sha256)
    assert hashes[0] == hashes[1] != hashes[2]
