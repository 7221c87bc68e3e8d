"""Inputs that are no pictures: arrays for networks of other programs, in simulate and in the energy report."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from neurodeploy.cli import main
from neurodeploy.errors import UserError
from neurodeploy.graph.nir_file import write_nir
from neurodeploy.report.arrays import are_arrays, read_codes
from neurodeploy.simulate.floating import run_float
from neurodeploy.simulate.reference import run
from neurodeploy.targets.export import export
from neurodeploy.targets.ops import OPERATIONS
from neurodeploy.zoo import resolve

DENSE = next(operation for operation in OPERATIONS if operation.title == "dense layer behind a flatten")


@pytest.fixture
def net(tmp_path: Path) -> Path:
    """A netx file of a classifier that says nothing of its surroundings: 4 channels of 4x6 in, 6 values out."""
    folder = export(DENSE.sample(), "lava", tmp_path / "b").path
    with h5py.File(folder / "network.net", "r+") as file:
        del file["neurodeploy"]
    return folder / "network.net"


def answer(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> dict[str, Any]:
    assert main(["--json", "-q", *words]) == code
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_a_netx_classifier_runs_on_arrays(
    tmp_path: Path, net: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    frames = np.random.RandomState(0).randint(0, 40, (3, 4, 4, 6)).astype(np.int16)
    np.save("sequence.npy", frames)
    np.save("still.npy", frames[0])
    said = answer(capsys, "simulate", str(net), "sequence.npy", "still.npy", "--steps", "3", "--out", "ran")
    assert said["T"] == 3 and [row["output"] for row in said["images"]] == ["ran/sequence.npz", "ran/still.npz"]
    assert all(layer["spikes"] > 0 for row in said["images"] for layer in row["layers"])
    model = resolve(str(net), steps=3, arrays=True).integer()
    for name, codes in (("sequence", frames), ("still", frames[0])):
        with np.load(f"ran/{name}.npz") as made:
            totals = made["output"]
        assert totals.shape == (6, 1, 1) and np.unique(totals).size > 1
        # one step after another, each from rest: nothing is remembered with v_decay 4096
        single = resolve(str(net), steps=1, arrays=True).integer()
        shown = codes if codes.ndim == 4 else [codes] * 3
        np.testing.assert_array_equal(totals, sum(run(single, frame.astype(np.int64)) for frame in shown))
    assert model.host.steps == 3
    report = answer(
        capsys, "energy-report", str(net), "--steps", "3", "--input", "still.npy", "--profile", "cmos45-int8",
    )  # fmt: skip
    assert report["data"] == "still.npy" and report["counts"]["total"]["sop"] > 0
    assert answer(capsys, "energy-report", str(net), "--input", "still.npy", code=2)["error"]["message"]
    assert answer(capsys, "simulate", str(net), "still.npy", "--steps", "3", "--out", "ran", code=2)["error"]


def test_a_nir_classifier_runs_on_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A matrix, neurons and spikes counted: the integers are the float graph's, because nothing leaks."""
    import nir

    monkeypatch.chdir(tmp_path)
    rng = np.random.RandomState(0)
    full = np.ones(5, np.float32)
    nodes = {
        "input": nir.Input(input_type={"input": np.array((7,))}),
        "fc": nir.Affine(weight=(rng.randint(-9, 10, (5, 7)) / 8).astype(np.float32), bias=full / 4),
        "if": nir.IF(r=full, v_threshold=full * 1.0625, v_reset=full * 0),
        "output": nir.Output(output_type={"output": np.array((5,))}),
    }
    graph = nir.NIRGraph(nodes, [("input", "fc"), ("fc", "if"), ("if", "output")], type_check=False)
    write_nir("mine.nir", graph)
    frames = rng.randint(0, 2, (80, 7)).astype(np.uint8)
    np.save("x.npy", frames)
    answer(capsys, "simulate", "mine.nir", "x.npy", "--steps", "80", "--dt", "1", "--out", "ran")
    with np.load("ran/x.npz") as made:
        np.testing.assert_array_equal(made["output"][:, 0, 0], run_float(graph, frames, 80, 1.0).sum(axis=0))
        assert made["output"].sum() > 20
        np.testing.assert_allclose(made["mean"] * 80, made["output"])
    said = answer(capsys, "check", "mine.nir", "--target", "nir", "--steps", "80", "--dt", "1", code=1)
    assert "if" in {finding["node"] for finding in said["findings"] if finding["severity"] == "error"}


def test_what_is_no_array_is_refused(tmp_path: Path, net: Path) -> None:
    model = resolve(str(net), steps=2, arrays=True).integer()
    path = tmp_path / "x.npy"
    np.save(path, np.zeros((4, 4, 6), np.float32))
    assert read_codes(path, model).shape == (4, 4, 6)
    for values, words in (
        (np.full((4, 4, 6), 0.5), "else than whole numbers"),
        (np.full((4, 4, 6), np.nan), "else than whole numbers"),
        (np.full((4, 4, 6), 1j), "else than whole numbers"),
        (np.full((4, 4, 6), 1 << 23), "beyond the chip's registers"),
        (np.zeros((3, 4, 6), int), "do not fit the network's input"),
        (np.zeros((5, 4, 4, 6), int), "another length than the run"),
        (np.zeros((0, 4, 6), int), "do not fit"),
        (np.array([{}]), "holds objects"),
    ):
        np.save(path, values, allow_pickle=True)
        with pytest.raises(UserError, match=rf"x\.npy: .*{words}"):
            read_codes(path, model)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(UserError, match=r"x\.npy: cannot be read as an array"):
        read_codes(path, model)
    with pytest.raises(UserError, match="do not go together"):
        are_arrays(["a.npy", "b.png"])
    with pytest.raises(UserError, match=r"y\.npy: no such file"):
        read_codes(tmp_path / "y.npy", model)
