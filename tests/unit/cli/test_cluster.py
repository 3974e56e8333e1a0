"""Starting Ray where it is too slow for itself."""

from __future__ import annotations

import pytest

from kirana.cli.cluster import TOO_SLOW, twice_if_slow

SLOW = Exception(f"The current node {TOO_SLOW}.")


class Starts:
    """Fails with one error after the other, then starts; notes what was done."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.done: list[str] = []

    def start(self) -> None:
        self.done.append("start")
        if self._errors:
            raise self._errors.pop(0)

    def end(self) -> None:
        self.done.append("end")


def test_a_start_that_was_too_slow_is_cleared_away_and_made_again() -> None:
    ray = Starts(SLOW)
    twice_if_slow(ray.start, ray.end)
    assert ray.done == ["start", "end", "start"]


@pytest.mark.parametrize(
    ("errors", "done"),
    [
        ((SLOW, SLOW), ["start", "end", "start"]),
        ((ValueError("no such option"),), ["start"]),
    ],
)
def test_what_another_start_does_not_mend_is_raised(
    errors: tuple[Exception, ...], done: list[str]
) -> None:
    ray = Starts(*errors)
    with pytest.raises(type(errors[-1]), match=str(errors[-1])):
        twice_if_slow(ray.start, ray.end)
    assert ray.done == done
