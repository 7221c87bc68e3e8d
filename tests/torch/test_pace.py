"""The pace that a schedule is fitted with: steady, and deaf to a busy minute."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from neurodeploy.distill.pace import TIMED_STEPS, WARM_UP_STEPS, Pace


def after(durations: Iterable[float], first: int = 0) -> Pace:
    pace, now = Pace(first), 100.0
    for step, seconds in enumerate(durations, start=first):
        now += seconds
        pace.mark(now, step)
    return pace


def test_it_is_unknown_before_enough_steps() -> None:
    assert after([0.1] * (WARM_UP_STEPS + TIMED_STEPS)).seconds_a_step is None
    assert after([0.1] * (WARM_UP_STEPS + TIMED_STEPS + 1)).seconds_a_step == pytest.approx(0.1)


def test_slow_first_steps_are_not_counted() -> None:
    assert after([9.0] * WARM_UP_STEPS + [0.02] * 100, first=700).seconds_a_step == pytest.approx(0.02, rel=0.01)


def test_a_busy_minute_late_in_a_run_changes_little() -> None:
    pace = after([0.1] * 9000 + [60.0] + [0.1] * 10)
    assert pace.seconds_a_step == pytest.approx(0.1, rel=0.25)


def test_a_stop_longer_than_the_window_does_not_end_the_run() -> None:
    pace = after([0.1] * 900 + [120.0] + [0.1] * 5)
    assert pace.seconds_a_step == pytest.approx(0.1, rel=5.0)


def test_a_machine_that_is_slower_for_good_is_followed() -> None:
    assert after([0.1] * 600 + [0.4] * 600).seconds_a_step == pytest.approx(0.4, rel=0.01)
