"""A second start of Ray, after its processes have timed out during startup."""

from __future__ import annotations

import pytest

from kirana.cli.cluster import STARTUP_TIMEOUT_TEXT, start_with_retry

SLOW = Exception(f"The current node {STARTUP_TIMEOUT_TEXT}.")


class Starts:
    """A cluster whose starts raise the given errors in turn. It records all calls in `calls`."""

    def __init__(self, *errors: Exception) -> None:
        self._errors = list(errors)
        self.calls: list[str] = []

    def start(self) -> None:
        self.calls.append("start")
        if self._errors:
            raise self._errors.pop(0)

    def kill(self) -> None:
        self.calls.append("kill")


def test_after_a_timeout_the_processes_are_killed_and_the_start_is_repeated() -> None:
    ray = Starts(SLOW)
    start_with_retry(ray.start, ray.kill)
    assert ray.calls == ["start", "kill", "start"]


@pytest.mark.parametrize(
    ("errors", "calls"),
    [
        ((SLOW, SLOW), ["start", "kill", "start"]),
        ((ValueError("no such option"),), ["start"]),
    ],
)
def test_a_second_timeout_or_another_error_is_raised(
    errors: tuple[Exception, ...], calls: list[str]
) -> None:
    ray = Starts(*errors)
    with pytest.raises(type(errors[-1]), match=str(errors[-1])):
        start_with_retry(ray.start, ray.kill)
    assert ray.calls == calls
