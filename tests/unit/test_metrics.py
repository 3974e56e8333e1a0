"""What is counted: requests by route, door and status, their times in buckets, and calls."""

from __future__ import annotations

import pytest

from kirana.metrics import SECONDS, Counters, Metrics, NoMetrics


def test_nothing_is_counted_yet() -> None:
    counters = Counters()
    assert (counters.requests, counters.seconds, counters.calls) == ({}, {}, {})


def test_requests_are_counted_by_route_door_and_status() -> None:
    counters = Counters()
    for route, door, status in (
        ("infer", "serve", 200),
        ("infer", "serve", 200),
        ("infer", "direct", 200),
        ("infer", "serve", 404),
        ("flow_run", "serve", 200),
    ):
        counters.request(route, door, status, 0.1)
    assert counters.requests == {
        ("infer", "serve", "200"): 2,
        ("infer", "direct", "200"): 1,
        ("infer", "serve", "404"): 1,
        ("flow_run", "serve", "200"): 1,
    }


def test_calls_are_counted_by_part_and_method() -> None:
    counters = Counters()
    for part, method in (("features", "read"), ("features", "read"), ("features", "write")):
        counters.call(part, method)
    counters.call("models", "run")
    assert counters.calls == {
        ("features", "read"): 2,
        ("features", "write"): 1,
        ("models", "run"): 1,
    }


def test_bounds_of_buckets_rise() -> None:
    assert list(SECONDS) == sorted(set(SECONDS))


@pytest.mark.parametrize(("at", "bound"), [*enumerate(SECONDS)])
def test_a_time_counts_in_the_first_bucket_that_it_does_not_exceed(at: int, bound: float) -> None:
    counters = Counters()
    counters.request("infer", "serve", 200, bound)
    counters.request("infer", "serve", 200, bound * 0.999)
    counters.request("infer", "serve", 200, bound * 1.001)
    buckets = [0] * (len(SECONDS) + 1)
    buckets[at] += 2
    buckets[at + 1] += 1
    assert counters.seconds == {("infer", "serve"): buckets}


def test_no_time_is_too_short_or_too_long_for_a_bucket() -> None:
    counters = Counters()
    counters.request("infer", "serve", 200, 0.0)
    counters.request("infer", "serve", 200, 1e9)
    (buckets,) = counters.seconds.values()
    assert (buckets[0], buckets[-1], sum(buckets)) == (1, 1, 2)


def test_times_are_kept_by_route_and_door_whatever_the_status() -> None:
    counters = Counters()
    for door, status in (("serve", 200), ("serve", 503), ("direct", 200)):
        counters.request("infer", door, status, 0.01)
    sums = {tags: sum(buckets) for tags, buckets in counters.seconds.items()}
    assert sums == {("infer", "serve"): 2, ("infer", "direct"): 1}


def test_two_counters_share_nothing() -> None:
    one, other = Counters(), Counters()
    one.request("infer", "serve", 200, 0.1)
    one.call("models", "run")
    assert other == Counters()


def test_who_wants_no_metrics_has_none_to_pay_for() -> None:
    metrics: Metrics = NoMetrics()
    metrics.request("infer", "serve", 200, 0.1)
    metrics.call("models", "run")
    assert vars(metrics) == {}
