"""Counters, gauges and histograms, updated while requests run.

Each metric is declared in the module that updates it; there is no central list.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

Tags = tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Counter:
    """The declaration of a counter. `Metrics` holds its counts, one per combination of tag values.

    `tags` are the names of the tags, and `what` describes the metric to people.
    """

    name: str
    what: str
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Histogram:
    """The declaration of a histogram. `Metrics` holds how many values fell into each bucket.

    `bounds` are the upper ends of the buckets, inclusive and ascending. One more bucket counts
    larger values. `tags` and `what` have the same meaning as in `Counter`.
    """

    name: str
    what: str
    tags: tuple[str, ...]
    bounds: tuple[float, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Gauge:
    """The declaration of a gauge, as that of a `Counter`. `Metrics` holds its last values."""

    name: str
    what: str
    tags: tuple[str, ...]


class Metrics:
    """The metrics of this process.

    This object does not export them. `deployments/metrics.py` reads it and publishes the values
    through Ray.
    """

    def __init__(self) -> None:
        self._counts: dict[Counter, dict[Tags, int]] = defaultdict(lambda: defaultdict(int))
        self._values: dict[Gauge, dict[Tags, float]] = defaultdict(dict)
        self._buckets: dict[Histogram, dict[Tags, list[int]]] = defaultdict(dict)

    def count(self, counter: Counter, *tags: str) -> None:
        """Add one to a counter. `tags` are the values of `counter.tags`, in this order."""
        self._counts[counter][tags] += 1

    def add(self, counter: Counter, amount: int, *tags: str) -> None:
        """Add an amount to a counter. `tags` are the values of `counter.tags`, in this order."""
        if amount:
            self._counts[counter][tags] += amount

    def set(self, gauge: Gauge, value: float, *tags: str) -> None:
        """Set a gauge. `tags` are the values of `gauge.tags`, in this order."""
        self._values[gauge][tags] = value

    def observe(self, histogram: Histogram, value: float, *tags: str) -> None:
        """Add one to the bucket of `value`. `tags` are the values of `histogram.tags`, in order."""
        by_tags = self._buckets[histogram]
        buckets = by_tags.get(tags)
        if buckets is None:
            buckets = by_tags[tags] = [0] * (len(histogram.bounds) + 1)
        buckets[bisect_left(histogram.bounds, value)] += 1

    def counts(self, counter: Counter) -> dict[Tags, int]:
        """Return a copy of the counts of a counter, by tag values."""
        return dict(self._counts.get(counter, {}))

    def values(self, gauge: Gauge) -> dict[Tags, float]:
        """Return a copy of the values of a gauge, by tag values."""
        return dict(self._values.get(gauge, {}))

    def buckets(self, histogram: Histogram) -> dict[Tags, list[int]]:
        """Return the counts of a histogram's buckets, by tag values. The lists are not copies."""
        return dict(self._buckets.get(histogram, {}))

    def counters(self) -> Iterator[Counter]:
        """Return an iterator over the counters used so far. Safe to call from another thread."""
        return iter(list(self._counts))

    def gauges(self) -> Iterator[Gauge]:
        """Return an iterator over the gauges used so far. Safe to call from another thread."""
        return iter(list(self._values))

    def histograms(self) -> Iterator[Histogram]:
        """Return an iterator over the histograms used so far. Safe to call from another thread."""
        return iter(list(self._buckets))
