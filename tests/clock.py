"""A clock that stands still until a test moves it."""

from __future__ import annotations


class Clock:
    """A replacement for `time.monotonic`. It returns `now`, in seconds, which a test may change."""

    def __init__(self, now: float = 5_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
