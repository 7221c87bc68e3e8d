"""The energy report: its keys, its tables, its Markdown, its exit."""

from __future__ import annotations

import json

import pytest

from neurodeploy.report import numbers
from neurodeploy.report.energy import energy_tables, energy_words
from neurodeploy.report.markdown import energy_markdown
from tests.report_samples import sample_energy


@pytest.fixture(scope="module")
def report():
    return sample_energy()


def test_the_promised_keys_are_there(report):
    assert report["schema_version"] == 1
    layer = report["counts"]["layers"][1]
    assert layer.keys() >= {"name", "sop", "mac", "spikes", "neuron_updates", "rate", "in_bounds_fanout"}
    assert report["counts"]["total"].keys() >= {"sop", "mac", "spikes", "neuron_updates", "parameters"}
    assert report["baselines"].keys() == {"ann_dense", "ann_sparse", "ann_int8", "qnn", "teacher"}
    assert report["prices"].keys() >= {"loihi2", "cmos45-int8"}
    assert report["verdict"]["class"] in ("loses", "depends", "below every threshold")
    assert report["not_priced"][0].keys() == {"profile", "term", "label", "count", "why", "instead"}
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_counts_add_up(report):
    counts = report["counts"]
    for key in ("sop", "mac", "spikes", "neuron_updates"):
        assert counts["total"][key] == sum(layer[key] for layer in counts["layers"])
        assert counts["total"][key] == sum(image[key] for image in counts["per_image"])
    parameters = report["parameters"]
    assert parameters["total"] == sum(row["count"] for row in parameters["tensors"]) == counts["total"]["parameters"]


def test_prices_add_up(report):
    for price in report["prices"].values():
        assert price["partial_pj"] == pytest.approx(sum(term["energy_pj"] for term in price["terms"]))
        withheld = any(line["count"] for line in price["not_priced"])
        assert (price["total_pj"] is None) == withheld
        for term in price["terms"]:
            assert term["price"]["source"] in price["sources"]


def test_a_withheld_total_is_not_ok_unless_a_part_was_asked_for(report):
    assert not report["ok"]
    assert sample_energy(allow_partial=True)["ok"]
    assert sample_energy(profiles=("cmos45-int8",))["ok"]
    assert sample_energy(allow_partial=True)["prices"]["loihi2"]["total_pj"] is None


def test_the_formula_holds_the_numbers(report):
    price = report["prices"]["cmos45-int8"]
    sop = report["counts"]["mean_per_image"]["sop"]
    assert f"{numbers.count(sop)} × 0.03 pJ" in price["formula"]
    assert price["formula"].endswith(numbers.energy(price["total_pj"]))
    assert report["prices"]["loihi1-davies2018"]["formula"].startswith("E ≥")
    assert report["prices"]["loihi2"]["formula"] == ""


def test_tables_show_layers_prices_baselines_and_what_is_missing(report):
    layers, prices, baselines, missing = energy_tables(report)
    assert [row["name"] for row in layers.rows] == ["lif0", "lif1", "lif2", "output"]
    assert {row["profile"]: row["energy"] for row in prices.rows}["loihi2"] == "withheld"
    assert "AT cmos45-int8" in [heading for _, heading in baselines.columns]
    assert "AT loihi2" not in [heading for _, heading in baselines.columns]
    assert {row["profile"] for row in missing.rows} >= {"loihi2", "loihi1-davies2018"}
    for table in (layers, prices, baselines, missing):
        for row in table.rows:
            assert row.keys() >= {key for key, _ in table.columns}


def test_lower_bounds_are_marked(report):
    assert energy_words(report["prices"]["spinnaker2"]).startswith("withheld (≥")
    row = energy_tables(report)[2].rows[0]
    assert row["spinnaker2"].startswith("≥ ")  # its MAC is a peak figure turned round


def test_markdown_says_what_the_json_says(report):
    text = energy_markdown(report)
    assert text.startswith("# Operations and energy of toy\n")
    assert report["verdict"]["sentences"][0] in text
    assert numbers.energy(report["prices"]["cmos45-int8"]["total_pj"]) in text
    assert "16.05 of 16.2 W" in text
    assert "\n\n\n" not in text
    for line in text.splitlines():
        if line.startswith("|"):
            assert line.endswith("|")


@pytest.mark.parametrize(
    ("picojoules", "text"),
    [
        (0.45, "0.45 pJ"), (999.4, "999 pJ"), (999.7, "1.00 nJ"), (12_345.0, "12.3 nJ"), (5e12, "5.00 J"),
        (3e16, "30,000 J"), (0.0, "0 pJ"), (None, "–"),
    ],
)  # fmt: skip
def test_energies_have_three_digits_and_a_unit(picojoules, text):
    assert numbers.energy(picojoules) == text


def test_counts_shares_and_sizes():
    headlines = [numbers.short(value) for value in (27_021_188_565, 1_500_000, 999_600, 12)]
    assert headlines == ["27.0 G", "1.50 M", "1.00 M", "12"]
    assert numbers.count(1_234_567) == "1,234,567"
    assert numbers.count(12.25) == "12.2"
    assert numbers.percent(0.0571) == "5.71 %"
    assert numbers.percent(None) == "–"
    assert numbers.ratio(2.3456) == "2.35×"
    assert numbers.size(999) == "999 B"
    assert numbers.size(1_240_113) == "1.24 MB"
    assert numbers.decimals(29.0449) == "29.04"
