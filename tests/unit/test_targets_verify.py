"""Verifying: the first place where a reader departs is named, and nothing that did not run counts as equal."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from neurodeploy.errors import UserError
from neurodeploy.targets import verify as verifying
from neurodeploy.targets.bundle import Bundle, read_bundle, sha256
from neurodeploy.targets.export import export
from neurodeploy.targets.manifest import MANIFEST, PROOF
from neurodeploy.targets.ops import OPERATIONS
from neurodeploy.targets.proof import npz_bytes, read_npz
from neurodeploy.targets.readers import READERS, Reader, ReaderRun, Refused, installed
from neurodeploy.targets.verify import first_difference, verify

SAMPLES = {operation.title: operation for operation in OPERATIONS}
OURS = ("reference", "float")


@pytest.fixture(autouse=True)
def only_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """These tests run without the frameworks of others, installed or not."""
    monkeypatch.setenv("NEURODEPLOY_LAVA", "/nowhere")
    monkeypatch.setattr(verifying, "READERS", {name: READERS[name] for name in (*OURS, "lava")})


def rows(answer: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["name"]: row for row in answer["readers"]}


@pytest.mark.parametrize("title", ["LIF with leak", "sum edge", "integer levels (4 populations)"])
def test_our_own_readers_agree_with_the_proof(tmp_path: Path, title: str) -> None:
    export(SAMPLES[title].sample(), "loihi2", tmp_path / "b")
    answer = verify(tmp_path / "b")
    assert set(answer) == {"schema_version", "bundle", "target", "ok", "readers"} and answer["ok"] is True
    for name in OURS:
        row = rows(answer)[name]
        assert row["equal"] is True and row["steps"] >= 1 and row["neurons"] >= 96 and row["skipped_reason"] == ""
    assert rows(answer)["lava"]["equal"] is None
    assert (
        "lava" in rows(answer)["lava"]["skipped_reason"].lower()
        or "network.net" in rows(answer)["lava"]["skipped_reason"]
    )


def tampered(folder: Path, change: Callable[[dict[str, Any]], None]) -> None:
    """Changes the proof and makes the manifest say that it is whole."""
    arrays = {name: array.copy() for name, array in read_npz(folder / PROOF).items()}
    change(arrays)
    (folder / PROOF).write_bytes(npz_bytes(arrays))
    values = json.loads((folder / MANIFEST).read_text())
    for entry in values["files"]:
        if entry["path"] == PROOF:
            entry.update(sha256=sha256(folder / PROOF), size=(folder / PROOF).stat().st_size)
    (folder / MANIFEST).write_text(json.dumps(values))


def _flip_spike(layer: str, step: int, neuron: tuple[int, int, int]) -> Callable[[dict[str, Any]], None]:
    """Flips one spike of (T, 4, 4, 6)."""

    def change(arrays: dict[str, Any]) -> None:
        place = int(np.ravel_multi_index((step, *neuron), (4, 4, 4, 6)))
        arrays[f"spikes/{layer}"][place // 8] ^= 128 >> (place % 8)

    return change


def test_the_first_difference_is_named_by_layer_step_and_neuron(tmp_path: Path) -> None:
    folder = export(SAMPLES["LIF with leak"].sample(), "lava", tmp_path / "b").path
    tampered(folder, _flip_spike("lif0", 3, (0, 0, 0)))
    tampered(folder, _flip_spike("lif1", 2, (3, 1, 5)))
    answer = verify(folder)
    row = rows(answer)["reference"]
    assert answer["ok"] is False and row["equal"] is False
    found = row["first_difference"]
    assert (found["file"], found["layer"], found["step"], found["neuron"]) == ("network.net", "lif1", 2, [3, 1, 5])
    assert {found["have"], found["want"]} == {0, 1}


@pytest.mark.parametrize("key", ["readout", "restored"])
def test_a_changed_output_is_found(tmp_path: Path, key: str) -> None:
    folder = export(SAMPLES["sum edge"].sample(), "nir", tmp_path / "b").path

    def change(arrays: dict[str, Any]) -> None:
        arrays[key][0, 1, 2] += 1

    tampered(folder, change)
    found = rows(verify(folder))["reference"]["first_difference"]
    assert (found["layer"], found["step"]) == ("output" if key == "readout" else "restored", None)
    assert found["neuron"] == [0, 1, 2]
    assert rows(verify(folder))["float"]["equal"] is (key == "restored")


def test_floats_are_compared_with_floats_where_the_chip_truncates(tmp_path: Path) -> None:
    """A changed integer spike does not concern the float reader, a changed float one does not concern the integers."""
    folder = export(SAMPLES["LIF with leak"].sample(), "nir", tmp_path / "b").path
    tampered(folder, _flip_spike("lif0", 0, (0, 0, 0)))
    assert [rows(verify(folder))[name]["equal"] for name in OURS] == [False, True]
    tampered(folder, _flip_spike("lif0", 0, (0, 0, 0)))

    def change(arrays: dict[str, Any]) -> None:
        arrays["float_spikes/lif1"][-1] ^= 1

    tampered(folder, change)
    assert [rows(verify(folder))[name]["equal"] for name in OURS] == [True, False]
    assert rows(verify(folder))["float"]["first_difference"]["neuron"] == [3, 3, 5]


def test_a_missing_layer_of_the_proof_is_refused(tmp_path: Path) -> None:
    folder = export(SAMPLES["LIF with leak"].sample(), "lava", tmp_path / "b").path
    tampered(folder, lambda arrays: arrays.pop("spikes/lif1"))
    with pytest.raises(UserError, match="no spikes of this layer"):
        verify(folder)


def test_unknown_missing_and_refusing_readers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(SAMPLES["sum edge"].sample(), "nir", tmp_path / "b").path
    with pytest.raises(UserError, match=r"no reader is called 'refrence'.*did you mean 'reference'"):
        verify(folder, against=["refrence"])
    absent = Reader(installed("a-package-that-nobody-has"), READERS["float"].run, "pip install it")
    monkeypatch.setitem(verifying.READERS, "absent", absent)
    row = rows(verify(folder))["absent"]
    assert row["version"] is None and row["equal"] is None and "not installed: pip install it" in row["skipped_reason"]
    with pytest.raises(UserError, match="absent cannot run: not installed"):
        verify(folder, against=["absent"])
    with pytest.raises(UserError, match="lava cannot run: not installed"):
        verify(folder, against=["lava"])
    monkeypatch.setitem(verifying.READERS, "lava", Reader(lambda: "0.10.0", READERS["lava"].run))
    with pytest.raises(UserError, match=r"lava cannot run: the bundle has neither network\.net nor program\.py"):
        verify(folder, against=["lava"])


def _refusing(_bundle: Bundle) -> list[ReaderRun]:
    raise Refused("it does not like it")


def test_nothing_that_was_skipped_counts_as_equal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = export(SAMPLES["sum edge"].sample(), "nir", tmp_path / "b").path
    monkeypatch.setattr(verifying, "READERS", {name: Reader(lambda: "1", _refusing) for name in OURS})
    answer = verify(folder)
    assert answer["ok"] is False
    assert [row["skipped_reason"] for row in answer["readers"]] == ["it does not like it"] * 2


def test_a_reader_that_is_known_to_go_wrong_is_skipped_unless_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(SAMPLES["sum edge"].sample(), "nir", tmp_path / "b").path

    def wrong(bundle: Bundle) -> list[ReaderRun]:
        (run,) = READERS["float"].run(bundle)
        return [ReaderRun(run.file, {**run.spikes, "lif1": ~run.spikes["lif1"]}, run.output, note="it sums too early")]

    monkeypatch.setitem(verifying.READERS, "hasty", Reader(lambda: "1", wrong))
    answer = verify(folder)
    assert answer["ok"] is True and "it sums too early" in rows(answer)["hasty"]["skipped_reason"]
    answer = verify(folder, against=["hasty"])
    row = rows(answer)["hasty"]
    assert answer["ok"] is False and row["equal"] is False and row["note"] == "it sums too early"
    assert row["first_difference"]["layer"] == "lif1" and [r["name"] for r in answer["readers"]] == [*OURS, "hasty"]


def test_a_reader_that_takes_minutes_runs_only_when_it_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = export(SAMPLES["LIF with leak"].sample(), "lava", tmp_path / "b").path
    assert 0 < READERS["lava"].minutes(read_bundle(folder)) < 0.1
    slow = Reader(lambda: "1", READERS["reference"].run, minutes=lambda bundle: 4.2)
    monkeypatch.setitem(verifying.READERS, "slow", slow)
    assert "about 4 minutes" in rows(verify(folder))["slow"]["skipped_reason"]
    assert rows(verify(folder, against=["slow"]))["slow"]["equal"] is True


def test_differences_come_in_time_then_in_layer_order() -> None:
    want = {name: np.zeros((2, 1, 2, 2), bool) for name in ("first", "second")}

    def have(**places: tuple[int, ...]) -> dict[str, Any]:
        changed = {name: spikes.copy() for name, spikes in want.items()}
        for name, place in places.items():
            changed[name][place] = True
        return changed

    assert first_difference(want, have()) is None
    found = first_difference(want, have(first=(1, 0, 0, 0), second=(0, 0, 1, 1)))
    assert found == {"layer": "second", "step": 0, "neuron": [0, 1, 1], "have": 1, "want": 0}
    found = first_difference(want, have(first=(1, 0, 1, 0), second=(1, 0, 0, 0)))
    assert found is not None and found["layer"] == "first"
    found = first_difference(want, {"first": want["first"]})
    assert found is not None and found["layer"] == "second" and found["have"] == "nothing"
    found = first_difference(want, {**want, "first": np.zeros((1, 1, 2, 2), bool)})
    assert found is not None and "shape" in found["have"]
