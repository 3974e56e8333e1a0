"""The comparison of two checkouts: the direction of ratios, and when a key counts as slower."""

from __future__ import annotations

import pytest

from bench.against import Comparison, ratio_of

Sides = list[tuple[float, float]]


def rounds(unit: str, sides: Sides) -> list[tuple[dict[str, float | str], dict[str, float | str]]]:
    """Return measurements of one key from pairs of a new and an old value."""
    return [({"value": new, "unit": unit}, {"value": old, "unit": unit}) for new, old in sides]


def slower(unit: str, sides: Sides) -> bool:
    """Return whether the comparison reports a key with these values as slower."""
    return Comparison("old", {"key": ratio_of(rounds(unit, sides))}, [], []).slower == ["key"]


@pytest.mark.parametrize(("unit", "expected"), [("/s", 2.0), ("us", 0.5), ("bytes", 0.5)])
def test_a_ratio_above_one_is_an_improvement(unit: str, expected: float) -> None:
    ratio = ratio_of(rounds(unit, [(200.0, 100.0)] * 9))
    assert (ratio.value, ratio.low, ratio.high) == (expected, expected, expected)
    assert (ratio.a, ratio.b) == (200.0, 100.0)


def test_the_interval_contains_the_median() -> None:
    ratio = ratio_of(rounds("/s", [(new, 10.0) for new in range(6, 15)]))
    assert ratio.value == 1.0
    assert 0.6 < ratio.low < 1.0 < ratio.high < 1.4


def test_a_key_is_slower_only_if_its_median_and_its_interval_are_below_the_limits() -> None:
    assert slower("/s", [(90.0, 100.0)] * 9)
    assert slower("us", [(100.0, 90.0)] * 9)
    assert not slower("/s", [(96.0, 100.0)] * 9)
    assert not slower("/s", [(110.0, 100.0)] * 9)
    # Half of the rounds are faster.
    assert not slower("/s", [(80.0, 100.0), (120.0, 100.0)] * 5)
