"""Counters and histograms with tags."""

from __future__ import annotations

import pytest

from kirana.metrics import Counter, Histogram, Metrics

CALLS = Counter("calls", "Calls.", ("part", "method"))
SECONDS = Histogram("seconds", "Times.", ("route",), (0.1, 1.0))


def test_new_metrics_are_empty() -> None:
    metrics = Metrics()
    assert metrics.counts(CALLS) == {}
    assert metrics.buckets(SECONDS) == {}
    assert [*metrics.counters(), *metrics.histograms()] == []


def test_calls_are_counted_by_their_tags() -> None:
    metrics = Metrics()
    for part, method in (("features", "read"), ("features", "read"), ("features", "write")):
        metrics.count(CALLS, part, method)
    metrics.count(CALLS, "models", "run")
    assert metrics.counts(CALLS) == {
        ("features", "read"): 2,
        ("features", "write"): 1,
        ("models", "run"): 1,
    }
    assert list(metrics.counters()) == [CALLS]


@pytest.mark.parametrize(
    ("value", "buckets"),
    [
        (0.0, [1, 0, 0]),
        (0.1, [1, 0, 0]),
        (0.100001, [0, 1, 0]),
        (1.0, [0, 1, 0]),
        (1.5, [0, 0, 1]),
        (1e9, [0, 0, 1]),
    ],
)
def test_a_value_is_counted_in_the_first_bucket_whose_bound_is_not_less(
    value: float, buckets: list[int]
) -> None:
    metrics = Metrics()
    metrics.observe(SECONDS, value, "infer")
    assert metrics.buckets(SECONDS) == {("infer",): buckets}
    assert list(metrics.histograms()) == [SECONDS]


def test_each_combination_of_tags_has_its_own_buckets() -> None:
    metrics = Metrics()
    for route, value in (("infer", 0.05), ("infer", 5.0), ("flow_run", 0.05)):
        metrics.observe(SECONDS, value, route)
    assert metrics.buckets(SECONDS) == {("infer",): [1, 0, 1], ("flow_run",): [1, 0, 0]}


def test_two_metrics_objects_share_no_counts() -> None:
    first, second = Metrics(), Metrics()
    first.count(CALLS, "features", "read")
    assert second.counts(CALLS) == {}


def test_two_counters_of_the_same_name_are_separate() -> None:
    metrics = Metrics()
    metrics.count(CALLS, "features", "read")
    assert metrics.counts(Counter("calls", "Calls.", ("part", "method"))) == {}
