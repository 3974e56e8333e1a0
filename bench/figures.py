"""The results of benchmarks: figures with their spread and their sides, and the bars by key."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Figure:
    """The result of a measurement: usually a ratio of two sides, A and B.

    `value` is the median over the rounds. `low` and `high` are the least and the greatest value, or
    the 95% interval of the median if two checkouts are compared.
    `a` and `b` are the medians of the sides in `unit`, for example microseconds per call ("us") or
    calls per second ("/s"). If the figure is not a ratio, `b` is None.
    """

    value: float
    low: float
    high: float
    a: float
    b: float | None = None
    unit: str = "us"

    @classmethod
    def of_rates(cls, rounds: Sequence[tuple[float, float]]) -> Figure:
        """Return the figure for A's rate / B's rate, from one pair of rates per round."""
        ratios = [a / b for a, b in rounds]
        return cls(
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            statistics.median(a for a, _ in rounds),
            statistics.median(b for _, b in rounds),
            "/s",
        )

    @classmethod
    def of_times(cls, rounds: Sequence[tuple[float, float]]) -> Figure:
        """Return the figure for B's time / A's time, which is above 1 if A is faster.

        Each round is a pair of times, in seconds per call. The sides of the figure are in
        microseconds.
        """
        ratios = [b / a for a, b in rounds]
        return cls(
            statistics.median(ratios),
            min(ratios),
            max(ratios),
            statistics.median(a for a, _ in rounds) * 1e6,
            statistics.median(b for _, b in rounds) * 1e6,
        )

    @classmethod
    def reported(cls, values: Iterable[float], unit: str = "/s") -> Figure:
        """Return a figure without a comparison, from one value per round."""
        measured = list(values)
        return cls(
            statistics.median(measured),
            min(measured),
            max(measured),
            statistics.median(measured),
            None,
            unit,
        )


@dataclass(frozen=True, slots=True)
class Breakdown:
    """Labelled values for a table, for example the time of each step of a read."""

    title: str
    unit: str
    parts: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Report:
    """The results of one benchmark. `notes` are lines to print below the tables."""

    figures: Mapping[str, Figure]
    breakdowns: Sequence[Breakdown] = field(default_factory=tuple)
    notes: Sequence[str] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Bar:
    """The value that a figure must reach: at least `limit`, or at most `limit`."""

    at_least: bool
    limit: float

    def reached(self, value: float) -> bool:
        return value >= self.limit if self.at_least else value <= self.limit

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.limit:g}"


BARS = {
    "lmdb_vs_get_loop": Bar(True, 0.6),
    "mixed_versions_vs_uniform": Bar(True, 0.6),
    "redis_vs_mget": Bar(True, 1.5),
    "redis_3_groups_vs_mget": Bar(True, 1.2),
    "cache_vs_redis": Bar(True, 3),
    "cache_all_misses_vs_no_cache": Bar(True, 0.8),
    "cache_bytes_vs_raw": Bar(False, 2),
    "vs_feast_500x60": Bar(True, 150),
    "vs_feast_1x60": Bar(True, 5),
    "redis_bytes_vs_feast": Bar(False, 0.5),
    "bulk_redis_vs_redis_benchmark": Bar(True, 0.6),
    "push_kafka_vs_producer": Bar(True, 0.5),
    "consume_redis_vs_raw": Bar(True, 0.6),
    "consume_cassandra_vs_raw": Bar(True, 0.6),
    "guarded_redis_vs_redis_benchmark": Bar(True, 0.6),
    "cassandra_read_vs_driver": Bar(True, 0.9),
    "bulk_cassandra_vs_driver": Bar(True, 0.9),
    "publish_one_of_5000_s": Bar(False, 1),
    "apply_one_of_5000_s": Bar(False, 2),
    "p99_during_publish_vs_before": Bar(False, 1.5),
    "chain_vs_by_hand": Bar(False, 1.5),
    "fan_out_vs_by_hand": Bar(False, 1.5),
    "diamond_vs_by_hand": Bar(False, 1.5),
    "infer_500x60_lmdb_vs_by_hand": Bar(False, 1.6),
    "client_500x60_vs_wrk": Bar(True, 0.55),
    "direct_vs_in_process": Bar(True, 0.7),
    "remote_vs_bare_hops": Bar(True, 0.75),
    "goodput_at_3x": Bar(True, 0.8),
    "p99_at_3x_vs_peak": Bar(False, 3),
    "healthz_at_3x_p99_ms": Bar(False, 200),
    "goodput_at_3x_haproxy": Bar(True, 0.8),
    "p99_at_3x_vs_peak_haproxy": Bar(False, 3),
    "healthz_at_3x_p99_ms_haproxy": Bar(False, 200),
    "overrun_p99_ms": Bar(False, 20),
    "rss_after_100_publishes_vs_3": Bar(False, 1.2),
}
