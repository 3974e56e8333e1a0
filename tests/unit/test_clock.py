"""Detection of times that are not in milliseconds, and the value to send instead."""

from __future__ import annotations

import numpy as np
import pytest

from kirana.clock import LAST_MILLISECONDS, LAST_SECONDS, first_wrong_unit, unit_problem

NOW_MS = 1_700_000_000_000
MILLISECONDS = [0, LAST_SECONDS + 1, NOW_MS, LAST_MILLISECONDS]
OTHER_UNITS = {
    1: ("seconds", 1_000),
    NOW_MS // 1_000: ("seconds", NOW_MS),
    LAST_SECONDS: ("seconds", 10**14),
    LAST_MILLISECONDS + 1: ("microseconds", 10**11),
    NOW_MS * 1_000: ("microseconds", NOW_MS),
    10**17: ("microseconds", 10**14),
    10**17 + 1: ("nanoseconds", 10**11),
    NOW_MS * 1_000_000: ("nanoseconds", NOW_MS),
    2**63 - 1: ("nanoseconds", 9_223_372_036_854),
}


def test_the_bounds_have_their_documented_values() -> None:
    assert (LAST_SECONDS, LAST_MILLISECONDS) == (10**11, 10**14)


@pytest.mark.parametrize("time_ms", MILLISECONDS)
def test_milliseconds_and_0_for_an_unknown_time_are_accepted(time_ms: int) -> None:
    assert unit_problem(time_ms) is None


@pytest.mark.parametrize(
    ("time", "unit", "time_ms"), [(time, *expected) for time, expected in OTHER_UNITS.items()]
)
def test_the_problem_names_the_unit_and_the_milliseconds_to_send(
    time: int, unit: str, time_ms: int
) -> None:
    assert unit_problem(time) == f"{time} looks like {unit}: send milliseconds, {time_ms}"


@pytest.mark.parametrize("time_ms", [-1, -NOW_MS, -(10**18)])
def test_a_time_before_1970_is_accepted(time_ms: int) -> None:
    assert unit_problem(time_ms) is None


@pytest.mark.parametrize("times", [[], MILLISECONDS, [-1, *MILLISECONDS]])
def test_times_in_milliseconds_are_accepted(times: list[int]) -> None:
    assert first_wrong_unit(np.array(times, dtype=np.int64)) is None


@pytest.mark.parametrize("time", OTHER_UNITS)
@pytest.mark.parametrize("earlier_times", [[], MILLISECONDS])
def test_the_first_time_in_another_unit_is_found(time: int, earlier_times: list[int]) -> None:
    times = np.array([*earlier_times, time, NOW_MS, 1], dtype=np.int64)
    assert first_wrong_unit(times) == len(earlier_times)
