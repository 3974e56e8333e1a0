"""`Pace`: which runs are taken to be short."""

from __future__ import annotations

import pytest

from kirana.models.pace import LONG_S, SHORT_S, Pace


def test_a_run_that_was_never_measured_is_not_short() -> None:
    assert not Pace().is_short(1)


@pytest.mark.parametrize(("seconds", "short"), [(SHORT_S, True), (SHORT_S * 1.01, False)])
def test_a_size_that_was_measured_is_expected_to_take_as_long_again(
    seconds: float, short: bool
) -> None:
    pace = Pace()
    pace.add(100, seconds)
    assert pace.is_short(100) is short


def test_a_smaller_input_is_expected_to_take_as_long_as_the_next_larger_one_that_was_measured() -> (
    None
):
    pace = Pace()
    pace.add(1_000, SHORT_S / 2)
    pace.add(100_000, SHORT_S * 2)
    assert pace.is_short(10)
    assert not pace.is_short(10_000)


def test_a_larger_input_than_those_measured_is_not_short() -> None:
    pace = Pace()
    pace.add(100, SHORT_S / 100)
    assert not pace.is_short(100_000)


def test_one_long_run_is_enough_to_leave_the_loop_and_several_short_ones_lead_back() -> None:
    pace = Pace()
    pace.add(100, SHORT_S / 2)
    pace.add(100, LONG_S * 2)
    assert not pace.is_short(100)
    pace.add(100, SHORT_S / 10)
    assert not pace.is_short(100)
    for _ in range(10):
        pace.add(100, SHORT_S / 10)
    assert pace.is_short(100)


def test_one_run_that_is_a_little_slower_changes_nothing() -> None:
    pace = Pace()
    pace.add(100, SHORT_S / 10)
    pace.add(100, SHORT_S * 2)
    assert pace.is_short(100)
