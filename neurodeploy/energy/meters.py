"""Energy counters of this machine: the processor's (RAPL, by the kernel's powercap files) and a card's (NVML).

A counter gives joules since some moment; two readings make a measurement. What cannot be read is refused with the
reason and the way out, never guessed.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from neurodeploy.energy.results import spread
from neurodeploy.errors import UserError

POWERCAP = Path("/sys/class/powercap")


class Meter(Protocol):
    """A counter of energy."""

    @property
    def device(self) -> str:
        """What is measured, in words."""

    @property
    def boundary(self) -> str:
        """What the figure holds."""

    def read(self) -> float:
        """Joules since some moment; never falls."""


@dataclass
class _Zone:
    """One package of processors: its file, and how often its counter has wrapped round."""

    path: Path
    name: str
    most: float
    last: float = 0.0
    wraps: int = 0

    def joules(self) -> float:
        now = float(self.path.read_text()) * 1e-6
        if now < self.last:
            self.wraps += 1
        self.last = now
        return now + self.wraps * self.most


class Rapl:
    """The packages' counters of an Intel or AMD processor, added up.

    Raises:
        UserError: This kernel or this machine has no such counters, or they may not be read.
    """

    boundary = "processor packages (RAPL): without memory modules, disks, fans and the power supply"

    def __init__(self, root: Path = POWERCAP) -> None:
        self._zones = [_zone(folder) for folder in sorted(root.glob("intel-rapl:*")) if folder.name.count(":") == 1]
        if not self._zones:
            raise UserError(
                "this machine shows no energy counters of its processor",
                node=str(root),
                have="no intel-rapl zone",
                instead="measure on bare metal: virtual machines and containers hide them",
            )
        for zone in self._zones:
            if not os.access(zone.path, os.R_OK):
                raise UserError(
                    "the energy counter may not be read",
                    node=str(zone.path),
                    instead=f"sudo chmod a+r {zone.path}, or run as root",
                )

    @property
    def device(self) -> str:
        """Name of the processor and its packages."""
        return f"{_processor()} ({', '.join(zone.name for zone in self._zones)})"

    def read(self) -> float:
        """Joules of all packages."""
        return sum(zone.joules() for zone in self._zones)


class Nvml:
    """A card's own counter of energy (Nvidia, from Volta on).

    Raises:
        UserError: There is no Nvidia driver or card, or the card has no counter.
    """

    boundary = "the whole card (NVML): without the processor, disks and the power supply"

    def __init__(self, index: int = 0, library: Any = None) -> None:
        self._nvml = _nvml() if library is None else library
        if self._nvml.nvmlInit_v2() != 0:
            raise UserError("the Nvidia driver does not answer", node="NVML", instead="look at what nvidia-smi says")
        self._card = ctypes.c_void_p()
        if self._nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(self._card)) != 0:
            raise UserError("there is no such card", node=f"cuda:{index}")
        name = ctypes.create_string_buffer(96)
        self._nvml.nvmlDeviceGetName(self._card, name, 96)
        self._name = name.value.decode(errors="replace")
        self.read()

    @property
    def device(self) -> str:
        """Name of the card."""
        return self._name

    def read(self) -> float:
        """Joules of the card."""
        found = ctypes.c_ulonglong()
        code = self._nvml.nvmlDeviceGetTotalEnergyConsumption(self._card, ctypes.byref(found))
        if code != 0:
            raise UserError(
                "the card has no energy counter that may be read",
                node=self._name,
                have=f"NVML code {code}",
                instead="a card from Volta on, outside of a shared partition",
            )
        return found.value * 1e-3


@dataclass(frozen=True)
class Measured:
    """Energy of one repetition with the idle power taken away, and that idle power.

    Attributes:
        joules: ``spread`` of the repetitions: mean, 95 % interval, 95th percentile, worst; idle subtracted.
        total_joules: The same with idle.
        seconds: Mean time of a repetition.
        idle_watts: Power while nothing ran; ``spread`` of several windows.
    """

    joules: dict[str, float | None]
    total_joules: dict[str, float | None]
    seconds: float
    idle_watts: dict[str, float | None]
    repeats: int


def measure(
    meter: Meter,
    work: Callable[[], object],
    *,
    repeats: int = 10,
    at_least: float = 0.5,
    idle_windows: int = 5,
    sleep: Callable[[float], object] = time.sleep,
    clock: Callable[[], float] = time.perf_counter,
) -> Measured:
    """Measures a piece of work, with idle before it.

    Args:
        meter: The counter.
        work: One repetition of what is measured; run once before, to warm up.
        repeats: Measurements, for the confidence interval; at least 2.
        at_least: Seconds of a measurement: short work runs several times in one, since counters tick slowly.
        idle_windows: Measurements of the idle power, ``at_least`` seconds each.
        sleep: Waits; replaced in tests.
        clock: Seconds; replaced in tests.

    Raises:
        UserError: The counter did not move, or the work draws no more than idle.
    """
    if repeats < 2:
        raise UserError("a confidence interval needs two measurements", node="--repeats", have=str(repeats))
    work()
    started = clock()
    work()
    once = max(clock() - started, 1e-6)
    many = max(1, round(at_least / once + 0.5))
    idle = [_window(meter, lambda: sleep(at_least), clock) for _ in range(idle_windows)]
    watts = [joules / seconds for joules, seconds in idle]
    resting = sum(watts) / len(watts)
    runs = [_window(meter, lambda: [work() for _ in range(many)], clock) for _ in range(repeats)]
    if all(joules <= 0 for joules, _ in runs):
        raise UserError("the energy counter does not move", node=meter.device, instead="measure on another machine")
    active = [(joules - resting * seconds) / many for joules, seconds in runs]
    if sum(active) <= 0:
        raise UserError(
            "the work draws no more than idle: something else is running",
            node=meter.device,
            have=f"{resting:.3g} W idle",
            instead="measure on a quiet machine",
        )
    return Measured(
        joules=spread(active),
        total_joules=spread([joules / many for joules, _ in runs]),
        seconds=sum(seconds for _, seconds in runs) / (len(runs) * many),
        idle_watts=spread(watts),
        repeats=repeats,
    )


def _window(meter: Meter, run: Callable[[], object], clock: Callable[[], float]) -> tuple[float, float]:
    before, started = meter.read(), clock()
    run()
    return meter.read() - before, clock() - started


def _zone(folder: Path) -> _Zone:
    most = folder / "max_energy_range_uj"
    return _Zone(
        path=folder / "energy_uj",
        name=_text(folder / "name") or folder.name,
        most=float(_text(most) or 0.0) * 1e-6,
    )


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _processor(path: Path = Path("/proc/cpuinfo")) -> str:
    lines = [line.partition(":")[2].strip() for line in _text(path).splitlines() if line.startswith("model name")]
    return lines[0] if lines else "processor"


def _nvml(names: Sequence[str] = ("libnvidia-ml.so.1", "libnvidia-ml.so", "nvml.dll")) -> Any:
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise UserError(
        "no Nvidia driver is installed here: a card's energy cannot be read",
        node="NVML",
        instead="measure on a machine with an Nvidia card, or measure the processor with --measure cpu",
    )
