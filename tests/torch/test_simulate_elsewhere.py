"""Pictures restored in norse and in Lava (a stand-in for it here), and compared with the integers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from neurodeploy.errors import FindingsError, UserError
from neurodeploy.graph.spec import StudentSpec
from neurodeploy.images.io import write_image
from neurodeploy.model.base import Facts
from neurodeploy.model.integer import IntegerModel
from neurodeploy.quantize.levels import expand_levels
from neurodeploy.quantize.lower import quantize
from neurodeploy.quantize.network import IntegerNetwork
from neurodeploy.report import elsewhere
from neurodeploy.report.pictures import How, simulate
from neurodeploy.simulate.observe import Trace
from neurodeploy.simulate.reference import run
from neurodeploy.simulate.restore import restore
from neurodeploy.targets.lava_run import LavaJob, LavaRun
from neurodeploy.targets.ops import OPERATIONS
from tests.random_nets import random_student, student_network

SAMPLES = {operation.title: operation for operation in OPERATIONS}


def student(**more: Any) -> IntegerNetwork:
    spec = StudentSpec(**{"width": 4, "depth": 2, "levels": 2, **more})
    return quantize(student_network(random_student(spec, 3), (24, 32)))


def model(net: IntegerNetwork) -> IntegerModel:
    return IntegerModel(net=net, facts=Facts("model"))


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    write_image(tmp_path / "noisy.png", np.random.default_rng(0).random((1, 21, 30), np.float32))
    return tmp_path / "noisy.png"


def test_norse_restores_what_the_integers_restore(tmp_path: Path, picture: Path) -> None:
    net = student()
    here = simulate(model(net), [picture], tmp_path / "here")
    there = simulate(model(net), [picture], tmp_path / "there", how=How(backend="norse"))
    (row,) = there["images"]
    assert there["backend"] == "norse" and there["ok"]
    assert row["comparison"]["equal"] and row["comparison"]["promised"] and row["comparison"]["differing_spikes"] == 0
    assert [layer["spikes"] for layer in row["layers"]] == [layer["spikes"] for layer in here["images"][0]["layers"]]
    with Image.open(tmp_path / "here" / "noisy.png") as one, Image.open(tmp_path / "there" / "noisy.png") as other:
        assert np.abs(np.asarray(one, int) - np.asarray(other, int)).max() <= 1


def test_a_difference_that_was_not_promised_away_is_told_and_no_finding(tmp_path: Path, picture: Path) -> None:
    net = student(levels=1, steps=8, decay=0.25)
    data = simulate(model(net), [picture], tmp_path / "out", how=How(backend="norse"))
    assert data["images"][0]["comparison"]["promised"] is False and data["ok"]


def stand_in(change: int) -> Any:
    def run_jobs(jobs: Sequence[LavaJob], python: Path) -> list[LavaRun]:
        del python
        found = []
        for job in jobs:
            net, spikes = expand_levels(job.network), {}
            trace = Trace(net.host.steps)
            output = run(net, job.codes[0], observer=trace)
            spikes = {name: layer.fired[None, :, 0].copy() for name, layer in trace.layers.items()}
            next(iter(spikes.values()))[0, 0, 0, 0, :change] ^= True
            found.append(LavaRun(spikes, {}, {}, output[None]))
        return found

    return run_jobs


@pytest.mark.parametrize("change", [0, 2])
def test_lava_restores_and_every_spike_is_compared(
    tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch, change: int
) -> None:
    net = student(levels=1, steps=3, decay=0.25)
    monkeypatch.setattr(elsewhere, "interpreter", lambda: Path("python"))
    monkeypatch.setattr(elsewhere, "run_jobs", stand_in(change))
    data = simulate(model(net), [picture], tmp_path / "out", how=How(backend="lava"))
    comparison = data["images"][0]["comparison"]
    assert comparison["promised"] and comparison["differing_spikes"] == change
    assert data["ok"] == comparison["equal"] == (change == 0)
    want = restore(net, np.asarray(Image.open(picture), np.float32)[None] / np.float32(255))
    np.testing.assert_array_equal(
        np.asarray(Image.open(tmp_path / "out" / "noisy.png")), np.rint(np.clip(want[0], 0, 1) * 255)
    )


def test_what_they_cannot_do_is_one_line(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NEURODEPLOY_LAVA", str(tmp_path / "nothing"))
    with pytest.raises(UserError, match="doctor --install-lava"):
        simulate(model(student()), [picture], tmp_path / "out", how=How(backend="lava"))
    monkeypatch.setattr(elsewhere, "installed", lambda package: lambda: None)
    with pytest.raises(UserError, match=r"interop") as caught:
        simulate(model(student()), [picture], tmp_path / "out", how=How(backend="norse"))
    assert "norse is not installed" in str(caught.value)
    monkeypatch.undo()
    with pytest.raises(FindingsError, match="no portable graph"):
        simulate(model(SAMPLES["groups"].build()), [picture], tmp_path / "out", how=How(backend="norse"))
    monkeypatch.setitem(elsewhere.LARGEST, "norse", 100)
    with pytest.raises(UserError, match="too large for the simulator norse"):
        simulate(model(student()), [picture], tmp_path / "out", how=How(backend="norse"))
    with pytest.raises(UserError, match="--resume"):
        simulate(model(student()), [picture], tmp_path / "out", how=How(backend="norse"), resume=True)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["noisy.png"]
