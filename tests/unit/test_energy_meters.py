"""Energy counters: made-up powercap folders and cards, and what is said where there are none."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import pytest

from neurodeploy.energy.meters import Nvml, Rapl, measure
from neurodeploy.energy.results import spread
from neurodeploy.errors import UserError


def zone(root: Path, name: str, microjoules: int, most: int = 10_000_000, called: str = "package-0") -> Path:
    folder = root / name
    folder.mkdir(parents=True)
    (folder / "name").write_text(f"{called}\n")
    (folder / "max_energy_range_uj").write_text(f"{most}\n")
    (folder / "energy_uj").write_text(f"{microjoules}\n")
    return folder / "energy_uj"


def test_packages_add_up_and_their_parts_are_not_counted_again(tmp_path):
    zone(tmp_path, "intel-rapl:0", 1_000_000)
    zone(tmp_path, "intel-rapl:1", 2_500_000)
    zone(tmp_path, "intel-rapl:0:0", 900_000)  # the cores of package 0: inside it
    assert Rapl(tmp_path).read() == pytest.approx(3.5)
    assert "package-0, package-0" in Rapl(tmp_path).device


def test_memory_is_added_and_what_lies_inside_a_package_or_around_it_is_not(tmp_path):
    for package, microjoules in ((0, 1_000_000), (1, 2_000_000)):
        zone(tmp_path, f"intel-rapl:{package}", microjoules, called=f"package-{package}")
        zone(tmp_path, f"intel-rapl:{package}:0", 700_000, called="core")
        zone(tmp_path, f"intel-rapl:{package}:1", 100_000, called="uncore")
        zone(tmp_path, f"intel-rapl:{package}:2", 250_000, called="dram")
    zone(tmp_path, "intel-rapl:2", 9_000_000, called="psys")  # the platform: both packages, and more
    zone(tmp_path, "intel-rapl-mmio:0", 1_000_000)  # the first package by another way
    meter = Rapl(tmp_path)
    assert meter.read() == pytest.approx(1 + 2 + 2 * 0.25)
    assert "package-0, package-1, dram, dram" in meter.device
    assert "and their memory" in meter.boundary and "without memory modules" not in meter.boundary


def test_packages_without_a_counter_of_memory_say_so(tmp_path):
    zone(tmp_path, "intel-rapl:0", 1)
    assert "without memory modules" in Rapl(tmp_path).boundary


def test_the_platform_is_read_where_there_is_no_package(tmp_path):
    zone(tmp_path, "intel-rapl:0", 4_000_000, called="psys")
    meter = Rapl(tmp_path)
    assert meter.read() == pytest.approx(4.0) and "the platform" in meter.boundary


def test_each_counter_wraps_round_by_itself(tmp_path):
    one = zone(tmp_path, "intel-rapl:0", 9_000_000, most=10_000_000, called="package-0")
    other = zone(tmp_path, "intel-rapl:1", 5_000_000, most=6_000_000, called="package-1")
    memory = zone(tmp_path, "intel-rapl:0:0", 2_000_000, most=3_000_000, called="dram")
    meter = Rapl(tmp_path)
    before = meter.read()
    one.write_text("500000\n")  # 1.5 J more, wrapped
    other.write_text("5250000\n")  # 0.25 J more
    memory.write_text("0\n")  # 1 J more, wrapped
    assert meter.read() - before == pytest.approx(1.5 + 0.25 + 1.0)


def test_a_wrap_of_unknown_height_is_refused_not_guessed(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", 9_000_000)
    (file.parent / "max_energy_range_uj").unlink()
    meter = Rapl(tmp_path)
    file.write_text("1\n")
    with pytest.raises(UserError, match="wrapped round"):
        meter.read()


@pytest.mark.parametrize("text", ["", "busy", "-1", "nan", "1 2"])
def test_a_counter_that_holds_no_number_is_said_so(tmp_path, text):
    file = zone(tmp_path, "intel-rapl:0", 1)
    file.write_text(text)
    with pytest.raises(UserError, match="holds no number"):
        Rapl(tmp_path)


def test_a_counter_that_fails_while_it_is_read_is_said_so(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", 1)
    meter = Rapl(tmp_path)
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="cannot be read") as refused:
        meter.read()
    assert str(file) in str(refused.value)


def test_a_counter_that_wraps_round_goes_on(tmp_path):
    file = zone(tmp_path, "intel-rapl:0", 9_000_000)
    meter = Rapl(tmp_path)
    before = meter.read()
    file.write_text("500000\n")
    assert meter.read() - before == pytest.approx(1.5)
    file.write_text("400000\n")
    assert meter.read() - before == pytest.approx(11.4)


def test_no_counters_are_said_so(tmp_path):
    with pytest.raises(UserError, match="no energy counters") as refused:
        Rapl(tmp_path)
    assert "bare metal" in str(refused.value)


def test_counters_that_may_not_be_read_are_said_so(tmp_path, monkeypatch):
    file = zone(tmp_path, "intel-rapl:0", 1)
    monkeypatch.setattr("neurodeploy.energy.meters.os.access", lambda *_: False)
    with pytest.raises(UserError, match="may not be read") as refused:
        Rapl(tmp_path)
    assert f"chmod a+r {file}" in str(refused.value)


class Card:
    """NVML as far as it is used."""

    def __init__(self, *, start: int = 0, handle: int = 0, energy: int = 0) -> None:
        self.codes = {"start": start, "handle": handle, "energy": energy}
        self.millijoules = 5_000

    def nvmlInit_v2(self) -> int:  # noqa: N802
        return self.codes["start"]

    def nvmlDeviceGetHandleByIndex_v2(self, index: int, card: Any) -> int:  # noqa: N802
        return self.codes["handle"]

    def nvmlDeviceGetName(self, card: Any, name: Any, size: int) -> int:  # noqa: N802
        name.value = b"A Card"
        return 0

    def nvmlDeviceGetTotalEnergyConsumption(self, card: Any, found: Any) -> int:  # noqa: N802
        ctypes.cast(found, ctypes.POINTER(ctypes.c_ulonglong))[0] = self.millijoules
        return self.codes["energy"]


def test_a_card_is_read_in_joules():
    card = Card()
    meter = Nvml(library=card)
    assert meter.device == "A Card" and meter.read() == pytest.approx(5.0)


@pytest.mark.parametrize(
    ("codes", "words"),
    [({"start": 9}, "does not answer"), ({"handle": 2}, "no such card"), ({"energy": 3}, "no energy counter")],
)
def test_cards_that_cannot_be_read_are_said_so(codes, words):
    with pytest.raises(UserError, match=words):
        Nvml(library=Card(**codes))


def test_no_driver_is_said_so(monkeypatch):
    def absent(name: str) -> None:
        raise OSError(name)

    monkeypatch.setattr("neurodeploy.energy.meters.ctypes.CDLL", absent)
    with pytest.raises(UserError, match="no Nvidia driver") as refused:
        Nvml()
    assert "--measure cpu" in str(refused.value)


class Bench:
    """A machine with a clock and a counter of its own: ``idle`` W always, ``work`` J more for each repetition."""

    device, boundary = "a bench", "everything"

    def __init__(self, idle: float, work: list[float], seconds: float = 0.1) -> None:
        self.idle, self.work, self.seconds = idle, work, seconds
        self.now = self.joules = 0.0
        self.calls = 0

    def read(self) -> float:
        return self.joules

    def clock(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.joules += self.idle * seconds

    def run(self) -> None:
        self.sleep(self.seconds)
        self.joules += self.work[self.calls % len(self.work)]
        self.calls += 1


def test_idle_is_subtracted_and_told():
    bench = Bench(idle=3.0, work=[2.0])
    found = measure(bench, bench.run, repeats=4, sleep=bench.sleep, clock=bench.clock)
    assert found.joules["mean"] == pytest.approx(2.0)
    assert found.total_joules["mean"] == pytest.approx(2.0 + 3.0 * 0.1)
    assert found.idle_watts["mean"] == pytest.approx(3.0)
    assert found.seconds == pytest.approx(0.1)
    assert found.joules["ci95_low"] == pytest.approx(2.0) == found.joules["ci95_high"]


def test_what_varies_has_an_interval():
    bench = Bench(idle=1.0, work=[1.0, 3.0], seconds=1.0)
    found = measure(bench, bench.run, repeats=6, at_least=0.5, sleep=bench.sleep, clock=bench.clock)
    assert found.joules["ci95_low"] < found.joules["mean"] < found.joules["ci95_high"]
    assert found.joules["worst"] == pytest.approx(3.0)


def test_a_counter_that_stands_still_and_a_busy_machine_are_refused():
    still = Bench(idle=0.0, work=[0.0])
    with pytest.raises(UserError, match="does not move"):
        measure(still, still.run, repeats=2, sleep=still.sleep, clock=still.clock)
    busy = Bench(idle=5.0, work=[-0.1])
    with pytest.raises(UserError, match="no more than idle"):
        measure(busy, busy.run, repeats=2, sleep=busy.sleep, clock=busy.clock)
    with pytest.raises(UserError, match="two measurements"):
        measure(busy, busy.run, repeats=1)


def test_the_interval_holds_what_is_uncertain_of_idle():
    """Work that is always the same on a machine whose idle power drifts: the interval is that of idle alone."""
    bench = Bench(idle=3.0, work=[2.0])
    windows: list[float] = []

    def rest(seconds: float) -> None:
        bench.idle = 3.0 + 0.1 * len(windows)
        bench.sleep(seconds)
        windows.append(bench.idle)
        bench.idle = 3.0

    found = measure(bench, bench.run, repeats=4, sleep=rest, clock=bench.clock)
    assert windows == pytest.approx([3.0, 3.1, 3.2, 3.3, 3.4])
    deviation = (sum((watts - 3.2) ** 2 for watts in windows) / 4) ** 0.5
    half = 2.776 * deviation / 5**0.5 * 0.1  # a repetition lasts 0.1 s
    assert found.joules["mean"] == pytest.approx(2.3 - 3.2 * 0.1)
    assert found.joules["ci95_high"] - found.joules["mean"] == pytest.approx(half)
    assert found.joules["mean"] - found.joules["ci95_low"] == pytest.approx(half)


def test_idle_is_measured_before_and_after():
    bench = Bench(idle=1.0, work=[1.0])
    order: list[str] = []

    def rest(seconds: float) -> None:
        order.append("idle")
        bench.sleep(seconds)

    def work() -> None:
        order.append("work")
        bench.run()

    measure(bench, work, repeats=2, sleep=rest, clock=bench.clock)
    first, last = order.index("idle"), len(order) - 1 - order[::-1].index("idle")
    between = order[first : last + 1]
    assert between[:3] == ["idle"] * 3 and between[-2:] == ["idle"] * 2 and "work" in between
    assert order[last + 1 :] == []


@pytest.mark.parametrize(("freedom", "point"), [(1, 12.706), (30, 2.042), (31, 2.0395), (60, 2.0003), (200, 1.9719)])
def test_the_points_of_students_t(freedom, point):
    """Printed tables."""
    values = [-1.0, 1.0] * (freedom + 1)
    values = values[: freedom + 1]
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / freedom) ** 0.5
    half = spread(values)["ci95_high"] - mean
    assert half / (deviation / len(values) ** 0.5) == pytest.approx(point, abs=2e-4)
