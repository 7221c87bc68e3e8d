"""Timing calls that take turns."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping

Calls = Mapping[str, Callable[[], object]]

PAUSE = 0.03
"""Seconds before a call: the threads of the one before, which spin for a while, would take cores from it."""

SHORT = 0.2
"""Seconds: a call that takes less is made once more before it is timed, since the pause has left the processor at rest,
with cold caches and a low clock, which would be much of such a call."""


def interleaved(calls: Calls, rounds: int, budget: float, reference: str) -> dict[str, dict[str, float]]:
    """Times calls in turns, after one of each that is not timed, and short ones when they have just run.

    Args:
        calls: What to time.
        rounds: How often.
        budget: Seconds after which, from the third round on, no new one starts.
        reference: The call that the others are compared with.

    Returns:
        For every call ``wall_ms`` (median), ``wall_min_ms``, ``cpu_ms`` (of the calling thread, median), ``rounds``,
        and ``ratio``, ``cpu_ratio``: the median of how many times longer it took than the reference in the same round.
    """
    wall: dict[str, list[float]] = {name: [] for name in calls}
    busy: dict[str, list[float]] = {name: [] for name in calls}
    took: dict[str, float] = {}
    for name, call in calls.items():
        start = time.perf_counter()
        call()
        took[name] = time.perf_counter() - start
    begin = time.perf_counter()
    for turn in range(rounds):
        if turn >= 3 and time.perf_counter() - begin > budget:
            break
        for name, call in calls.items():
            time.sleep(PAUSE)
            if took[name] < SHORT:
                call()
            start, worked = time.perf_counter(), time.thread_time()
            call()
            busy[name].append(1e3 * (time.thread_time() - worked))
            wall[name].append(1e3 * (time.perf_counter() - start))

    def ratio(times: dict[str, list[float]], name: str) -> float:
        return statistics.median(one / other for one, other in zip(times[name], times[reference], strict=True))

    return {
        name: {
            "wall_ms": statistics.median(wall[name]),
            "wall_min_ms": min(wall[name]),
            "cpu_ms": statistics.median(busy[name]),
            "rounds": len(wall[name]),
            "ratio": ratio(wall, name),
            "cpu_ratio": ratio(busy, name),
        }
        for name in calls
    }
