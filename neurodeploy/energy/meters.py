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
from math import hypot
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
    """One domain of power: its file, and how often its counter has wrapped round."""

    path: Path
    name: str
    most: float
    last: float = 0.0
    wraps: int = 0

    def joules(self) -> float:
        now = self._now()
        if now < self.last:
            if self.most <= 0:
                raise UserError(
                    "the energy counter wrapped round, and does not say where",
                    node=str(self.path),
                    have="no max_energy_range_uj",
                    instead="measure again, with fewer --repeats",
                )
            self.wraps += 1
        self.last = now
        return now + self.wraps * self.most

    def _now(self) -> float:
        """Joules as the file says them."""
        try:
            text = self.path.read_text()
        except OSError as error:
            raise UserError(
                f"the energy counter cannot be read: {error.strerror or error}",
                node=str(self.path),
                instead=f"sudo chmod a+r {self.path}, or run as root; containers may hide it even so",
            ) from error
        if not text.strip().isdecimal():
            raise UserError("the energy counter holds no number", node=str(self.path), have=text.strip()[:40] or "none")
        return float(text) * 1e-6


class Rapl:
    """The packages' counters of an Intel or AMD processor, added up, and their memory's where they are counted.

    Domains nest, and some overlap. A package holds its cores and its graphics; memory modules (``dram``) lie below a
    package's folder and outside of its figure; the platform (``psys``) holds the packages. Packages and memory are
    added; the platform is read where there is no package; nothing else is.

    Raises:
        UserError: This kernel or this machine has no such counters, or they may not be read.
    """

    def __init__(self, root: Path = POWERCAP) -> None:
        zones = [_zone(folder) for folder in sorted(root.glob("intel-rapl:*"))]
        top = [zone for zone in zones if zone.path.parent.name.count(":") == 1]
        packages = [zone for zone in top if zone.name != "psys"]
        memory = [zone for zone in zones if zone.name == "dram" and zone not in top] if packages else []
        self._zones = [*packages, *memory] or top[:1]
        if not self._zones:
            raise UserError(
                "this machine shows no energy counters of its processor",
                node=str(root),
                have="no intel-rapl zone",
                instead="measure on bare metal: virtual machines and containers hide them",
            )
        held = "the platform" if not packages else "processor packages" + (" and their memory" if memory else "")
        left = "" if not packages else "disks, fans" if memory else "memory modules, disks, fans"
        self.boundary = f"{held} (RAPL)" + (f": without {left} and the power supply" if left else "")
        for zone in self._zones:
            if not os.access(zone.path, os.R_OK):
                raise UserError(
                    "the energy counter may not be read",
                    node=str(zone.path),
                    instead=f"sudo chmod a+r {zone.path}, or run as root",
                )
        self.read()

    @property
    def device(self) -> str:
        """Name of the processor and its domains."""
        return f"{_processor()} ({', '.join(zone.name for zone in self._zones)})"

    def read(self) -> float:
        """Joules of all domains."""
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
        joules: ``spread`` of the repetitions: mean, 95 % interval, 95th percentile, worst; idle subtracted. The
            interval holds what is uncertain of the idle power, too.
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
    """Measures a piece of work, with idle before and after it.

    Args:
        meter: The counter.
        work: One repetition of what is measured; run once before, to warm up.
        repeats: Measurements, for the confidence interval; at least 2.
        at_least: Seconds of a measurement: short work runs several times in one, since counters tick slowly.
        idle_windows: Measurements of the idle power, ``at_least`` seconds each; half of them after the work, so that a
            machine that warms up shows in their spread.
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
    before = -(-idle_windows // 2)
    idle = [_window(meter, lambda: sleep(at_least), clock) for _ in range(before)]
    runs = [_window(meter, lambda: [work() for _ in range(many)], clock) for _ in range(repeats)]
    idle += [_window(meter, lambda: sleep(at_least), clock) for _ in range(idle_windows - before)]
    watts = [joules / seconds for joules, seconds in idle]
    resting = sum(watts) / len(watts)
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
    seconds = sum(seconds for _, seconds in runs) / (len(runs) * many)
    return Measured(
        joules=_less_idle(spread(active), spread(watts), seconds),
        total_joules=spread([joules / many for joules, _ in runs]),
        seconds=seconds,
        idle_watts=spread(watts),
        repeats=repeats,
    )


def _less_idle(
    active: dict[str, float | None], watts: dict[str, float | None], seconds: float
) -> dict[str, float | None]:
    """The spread of a difference: the half-widths of both intervals, added as squares."""
    halves = [_half(active), _half(watts) * seconds]
    mean, half = active["mean"] or 0.0, hypot(*halves)
    return {**active, "ci95_low": mean - half, "ci95_high": mean + half}


def _half(found: dict[str, float | None]) -> float:
    mean, high = found["mean"], found["ci95_high"]
    return 0.0 if mean is None or high is None else high - mean


def _window(meter: Meter, run: Callable[[], object], clock: Callable[[], float]) -> tuple[float, float]:
    before, started = meter.read(), clock()
    run()
    return meter.read() - before, clock() - started


def _zone(folder: Path) -> _Zone:
    most = _text(folder / "max_energy_range_uj")
    return _Zone(
        path=folder / "energy_uj",
        name=_text(folder / "name") or folder.name,
        most=float(most) * 1e-6 if most.isdecimal() else 0.0,
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
