"""The comparison of two checkouts: which way a ratio points, and when a key is slower."""

from __future__ import annotations

import pytest

from bench.against import Comparison, ratio_of

Sides = list[tuple[float, float]]


def rounds(unit: str, sides: Sides) -> list[tuple[dict[str, float | str], dict[str, float | str]]]:
    return [({"value": new, "unit": unit}, {"value": old, "unit": unit}) for new, old in sides]


def slower(unit: str, sides: Sides) -> bool:
    return Comparison("old", {"key": ratio_of(rounds(unit, sides))}, [], []).slower == ["key"]


@pytest.mark.parametrize(("unit", "wanted"), [("/s", 2.0), ("us", 0.5), ("bytes", 0.5)])
def test_a_ratio_above_one_is_better_than_before(unit: str, wanted: float) -> None:
    found = ratio_of(rounds(unit, [(200.0, 100.0)] * 9))
    assert (found.value, found.low, found.high) == (wanted, wanted, wanted)
    assert (found.a, found.b) == (200.0, 100.0)


def test_the_interval_is_of_the_median() -> None:
    found = ratio_of(rounds("/s", [(at, 10.0) for at in range(6, 15)]))
    assert found.value == 1.0
    assert 0.6 < found.low < 1.0 < found.high < 1.4


def test_a_key_is_slower_if_median_and_interval_say_so() -> None:
    assert slower("/s", [(90.0, 100.0)] * 9)
    assert slower("us", [(100.0, 90.0)] * 9)
    assert not slower("/s", [(96.0, 100.0)] * 9)
    assert not slower("/s", [(110.0, 100.0)] * 9)
    # half of the rounds say the opposite
    assert not slower("/s", [(80.0, 100.0), (120.0, 100.0)] * 5)
