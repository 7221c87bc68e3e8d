"""Measuring an ANN on this machine: with a counter of our own, the profile that comes out is read back and prices."""

from __future__ import annotations

import time

import pytest

from neurodeploy.energy.op_only import op_only_of_ann
from neurodeploy.errors import UserError
from neurodeploy.hardware.profile import load_profile
from neurodeploy.report import host
from neurodeploy.report.host import measure_host
from neurodeploy.zoo import resolve
from tests.report_samples import sample_energy


class Watts:
    """A counter that draws 10 W, and far more while a thread of this process computes, however busy the machine is."""

    device, boundary = 'A "machine" \\ of one', "everything"

    def read(self) -> float:
        return 10 * time.perf_counter() + 3000 * time.process_time()


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "SIDE", 24)
    monkeypatch.setattr(host, "WIDTH", 4)
    real = host.measure
    monkeypatch.setattr(host, "measure", lambda *words, **more: real(*words, **more, at_least=0.02, idle_windows=2))


def test_a_measured_profile_is_read_back_and_prices_baselines(tmp_path):
    path = tmp_path / "here.toml"
    found = measure_host("cpu", path, batches=(1, 2), repeats=3, meter=Watts())
    assert [row["batch"] for row in found["batches"]] == [1, 2]
    macs = 9 * 4 * (1 + 7 * 4) * 24 * 24  # with the taps on the padding
    assert 0.8 * macs < found["macs"] < macs
    profile = load_profile(path)
    mac = profile.energy.mac
    assert profile.model == "host" and mac is not None and mac.kind == "measured"
    assert mac.value == pytest.approx(found["batches"][0]["pj_per_mac"], rel=1e-4)
    assert mac.low <= mac.value <= mac.high
    assert profile.sources["here"].verified == "primary"
    report = sample_energy(profiles=(str(path),))
    (entry,) = report["prices"].values()
    dense = report["baselines"]["ann_dense"]["mac"]
    assert entry["baselines"]["ann_dense"]["energy_pj"] == pytest.approx(dense * mac.value, rel=1e-4)
    assert entry["total_pj"] is None and not entry["ok"]


def test_a_teacher_can_be_measured_and_nothing_is_overwritten(tmp_path):
    path = tmp_path / "here.toml"
    found = measure_host("cpu", path, teacher=resolve("ffdnet-gray"), batches=(1,), repeats=2, meter=Watts())
    assert found["network"].startswith("ffdnet-gray")
    assert op_only_of_ann(found["macs"])[0] > 0
    with pytest.raises(UserError, match="exists already"):
        measure_host("cpu", path, batches=(1,), repeats=2, meter=Watts())


def test_batch_1_is_the_price(tmp_path):
    with pytest.raises(UserError, match="batch 1"):
        measure_host("cpu", tmp_path / "x.toml", batches=(4,), meter=Watts())
