"""What is counted while requests run: a few additions each.

A metric is declared where it is counted; nothing else has to know of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

Tags = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """A number that only grows, one for each value of `tags`; `what` is for people."""

    name: str
    what: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """Values by size. `bounds` are the upper ends of the buckets; one more takes what is larger."""

    name: str
    what: str
    tags: tuple[str, ...]
    bounds: tuple[float, ...]


class Metrics:
    """The numbers of this process, handed to what counts: `kirana` knows no monitoring system."""

    def __init__(self) -> None:
        self._counts: dict[Counter, dict[Tags, int]] = defaultdict(lambda: defaultdict(int))
        self._buckets: dict[Histogram, dict[Tags, list[int]]] = defaultdict(dict)

    def count(self, counter: Counter, *tags: str) -> None:
        """Add one."""
        self._counts[counter][tags] += 1

    def observe(self, histogram: Histogram, value: float, *tags: str) -> None:
        """Add one to the bucket of a value."""
        by_tags = self._buckets[histogram]
        buckets = by_tags.get(tags)
        if buckets is None:
            buckets = by_tags[tags] = [0] * (len(histogram.bounds) + 1)
        buckets[bisect_left(histogram.bounds, value)] += 1

    def counts(self, counter: Counter) -> dict[Tags, int]:
        """Return what was counted so far, by tags."""
        return dict(self._counts.get(counter, {}))

    def buckets(self, histogram: Histogram) -> dict[Tags, list[int]]:
        """Return how many values fell into each bucket so far, by tags."""
        return dict(self._buckets.get(histogram, {}))

    def counters(self) -> Iterator[Counter]:
        """Return the counters that were used. Another thread may call this."""
        return iter(list(self._counts))

    def histograms(self) -> Iterator[Histogram]:
        """Return the histograms that were used. Another thread may call this."""
        return iter(list(self._buckets))
