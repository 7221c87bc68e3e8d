"""Recurrent networks on the command line: what the verbs print of one, and the two ways in which one is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from neurodeploy.cli import main
from tests.unit.test_graph_cycles import by_hand, frames, nested, recurrent

SAID = ("--dt", "1e-4", "--steps", "30")


def answer(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["--json", "-q", *words]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    nir.write("net.nir", recurrent(tau=1e-4, threshold=0.7 + 2.0**-9))
    np.save("x.npy", frames().astype(np.int64).reshape(30, 3, 1, 1))
    return "net.nir"


def test_every_verb_takes_a_recurrent_network(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert answer(capsys, "inspect", file)["facts"]["feedback"] == "w_rec -> lif"
    checked = answer(capsys, "check", file, "--target", "loihi2", "--size", "1x1", *SAID)
    assert checked["ok"] and checked["placement"]["synapses"] == 5 * 3 + 5 * 5 + 2 * 5
    ran = answer(capsys, "simulate", file, "x.npy", "--out", "ran", *SAID)
    assert (ran["backend"], ran["T"]) == ("reference", 30)
    want = by_hand(recurrent(tau=1e-4, threshold=0.7 + 2.0**-9), frames(), first_step_bias=True)
    with np.load("ran/x.npz") as kept:
        unit = 2.0**-8
        np.testing.assert_allclose(kept["output"].reshape(-1) * unit, want.sum(axis=0), rtol=0, atol=1e-9)
    spikes = {layer["name"]: layer["spikes"] for layer in ran["images"][0]["layers"]}
    words = ("energy-report", file, "--input", "x.npy", "--allow-partial", *SAID)
    report = answer(capsys, *words, "--html", "energy.html")
    page = Path("energy.html").read_text(encoding="utf-8")
    assert "recurrent: what feedback reaches is computed in each of the 30 time steps" in page
    assert main([*words, "--html", "energy.html"]) == 2, "nothing is overwritten"
    capsys.readouterr()
    (row,) = [row for row in report["counts"]["layers"] if row["name"] == "lif"]
    assert row["spikes"] == spikes["lif"] > 0
    assert row["per_step"]["sop"] == [0, *(5 * count for count in row["per_step"]["spikes"][:-1])]
    assert row["ann_passes"] == 30
    answer(capsys, "export", file, "--target", "nir", "--size", "1x1", "--out", "bundle", *SAID)
    assert answer(capsys, "verify", "bundle")["ok"] is True


def test_a_nested_graph_with_a_bias_asks_for_its_meaning(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    del file
    nir.write("nested.nir", nested(bias=0.25))
    words = ("simulate", "nested.nir", "x.npy", "--out", "ran", *SAID)
    assert main([*words]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "rec.w_rec" in said[0] and "--first-step-bias" in said[0]
    assert answer(capsys, *words, "--first-step-bias")["ok"] is True


def test_a_cycle_without_a_neuron_ends_with_exit_code_2(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    del file
    graph = recurrent()
    graph.nodes["again"] = nir.Linear(np.eye(5, dtype=np.float32))
    graph.edges = [*graph.edges, ("lif", "again"), ("again", "again"), ("again", "lif")]
    nir.write("loop.nir", graph)
    for words in (("inspect", "loop.nir"), ("check", "loop.nir", "--target", "loihi2", *SAID)):
        assert main([*words]) == 2
        assert "again: the edge from again closes a cycle without a neuron" in capsys.readouterr().err
