"""What is counted while requests run: a few additions each."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Protocol

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
"""Upper bounds of the buckets of a request's time; one more takes what is longer."""

Tags = tuple[str, ...]


class Metrics(Protocol):
    """Injected into what counts, so that `kirana` knows no monitoring system."""

    def request(self, route: str, door: str, status: int, seconds: float) -> None:
        """One request was answered at the edge."""

    def call(self, part: str, method: str) -> None:
        """One call reached a part."""


class NoMetrics:
    """Implements `Metrics` for who wants none."""

    def request(self, route: str, door: str, status: int, seconds: float) -> None:
        pass

    def call(self, part: str, method: str) -> None:
        pass


@dataclass(slots=True)
class Counters:
    """Implements `Metrics` as numbers in this process."""

    requests: dict[Tags, int] = field(default_factory=lambda: defaultdict(int))
    """By route, door and status."""
    seconds: dict[Tags, list[int]] = field(default_factory=dict)
    """By route and door: a count a bucket of `SECONDS`."""
    calls: dict[Tags, int] = field(default_factory=lambda: defaultdict(int))
    """By part and method."""

    def request(self, route: str, door: str, status: int, seconds: float) -> None:
        self.requests[route, door, str(status)] += 1
        buckets = self.seconds.get((route, door))
        if buckets is None:
            buckets = self.seconds[route, door] = [0] * (len(SECONDS) + 1)
        buckets[bisect_left(SECONDS, seconds)] += 1

    def call(self, part: str, method: str) -> None:
        self.calls[part, method] += 1
