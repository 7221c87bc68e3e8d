"""How long a step takes, over a time long enough that a busy moment of the machine does not upset the schedule."""

from __future__ import annotations

from collections import deque

SHARE = 1 / 3
"""Share of the run so far, in time and in steps, that the pace is taken over."""
SHORTEST = 20.0
"""Seconds that it is taken over at least."""
APART = 0.25
"""Seconds between two marks."""
WARM_UP_STEPS, TIMED_STEPS = 5, 20
"""Steps that are not timed, and those that the first estimate is made of."""


class Pace:
    """Marks of (time, step) since the start of the sitting.

    A window that grows with the run follows a machine that is slower for good, and bears one that is busy for a minute:
    a plan that shrank with every such minute would end the float stage early and for good.

    Args:
        first: The step that the sitting starts with.
    """

    def __init__(self, first: int) -> None:
        self.first = first
        self._marks: deque[tuple[float, int]] = deque()
        self._started: float | None = None

    def mark(self, now: float, step: int) -> None:
        """Notes that ``step`` has ended at ``now``, in seconds of a clock that only goes forward."""
        if step < self.first + WARM_UP_STEPS:
            return
        if self._started is None:
            self._started = now
        if not self._marks or now - self._marks[-1][0] >= APART or step == self.first + WARM_UP_STEPS + TIMED_STEPS:
            self._marks.append((now, step))
        window = max(SHORTEST, SHARE * (now - self._started))
        steps = SHARE * (step - self.first)
        while len(self._marks) > 2 and now - self._marks[1][0] >= window and step - self._marks[1][1] >= steps:
            self._marks.popleft()

    @property
    def seconds_a_step(self) -> float | None:
        """Mean time of a step, or None before enough steps were timed."""
        if len(self._marks) < 2:
            return None
        (then, earlier), (now, step) = self._marks[0], self._marks[-1]
        return None if step < self.first + WARM_UP_STEPS + TIMED_STEPS else (now - then) / (step - earlier)
