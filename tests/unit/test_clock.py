"""Times as whole numbers: those that can't be meant in milliseconds, and what to send instead."""

from __future__ import annotations

import numpy as np
import pytest

from kirana.clock import FIRST_MICROSECONDS, LAST_SECONDS, first_of_another_unit, unit_problem

NOW_MS = 1_700_000_000_000
FITTING = [0, LAST_SECONDS + 1, NOW_MS, FIRST_MICROSECONDS]
OTHERS = {
    1: ("seconds", 1_000),
    NOW_MS // 1_000: ("seconds", NOW_MS),
    LAST_SECONDS: ("seconds", 10**14),
    FIRST_MICROSECONDS + 1: ("microseconds", 10**11),
    NOW_MS * 1_000: ("microseconds", NOW_MS),
    10**17: ("microseconds", 10**14),
    10**17 + 1: ("nanoseconds", 10**11),
    NOW_MS * 1_000_000: ("nanoseconds", NOW_MS),
    2**63 - 1: ("nanoseconds", 9_223_372_036_854),
}


def test_the_bounds_are_those_of_the_documents() -> None:
    assert (LAST_SECONDS, FIRST_MICROSECONDS) == (10**11, 10**14)


@pytest.mark.parametrize("time_ms", FITTING)
def test_milliseconds_pass_and_so_does_a_time_that_is_not_known(time_ms: int) -> None:
    assert unit_problem(time_ms) is None


@pytest.mark.parametrize(("sent", "unit", "meant"), [(at, *told) for at, told in OTHERS.items()])
def test_another_unit_is_named_with_the_milliseconds_to_send(
    sent: int, unit: str, meant: int
) -> None:
    assert unit_problem(sent) == f"{sent} looks like {unit}: send milliseconds, {meant}"


@pytest.mark.parametrize("time_ms", [-1, -NOW_MS, -(10**18)])
def test_a_time_before_1970_is_of_no_other_unit(time_ms: int) -> None:
    assert unit_problem(time_ms) is None


@pytest.mark.parametrize("times", [[], FITTING, [-1, *FITTING]])
def test_of_times_in_milliseconds_none_is_of_another_unit(times: list[int]) -> None:
    assert first_of_another_unit(np.array(times, dtype=np.int64)) is None


@pytest.mark.parametrize("sent", OTHERS)
@pytest.mark.parametrize("before", [[], FITTING])
def test_the_first_time_of_another_unit_is_found(sent: int, before: list[int]) -> None:
    times = np.array([*before, sent, NOW_MS, 1], dtype=np.int64)
    assert first_of_another_unit(times) == len(before)
