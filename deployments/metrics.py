"""Publication of a replica's metrics through Ray, which offers them to Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from ray.util import metrics

from kirana.metrics import Gauge, Metrics, Tags

INTERVAL_S = 1.0


class Publisher:
    """A thread that updates Ray's counters and gauges every `INTERVAL_S` seconds.

    A histogram becomes a counter with the tag `le`, as in Prometheus: for each bound, it counts the
    values up to that bound. Each counter also has the tag `deployment`.
    """

    def __init__(self, source: Metrics, deployment: str) -> None:
        self._source = source
        self._deployment = deployment
        self._counters: dict[str, Any] = {}
        self._gauges: dict[str, Any] = {}
        self._sent: dict[tuple[str, Tags], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kirana-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._publish()
        # Publish the counts since the last interval.
        self._publish()

    def _publish(self) -> None:
        for counter in self._source.counters():
            self._add(counter.name, counter.what, counter.tags, self._source.counts(counter))
        for gauge in self._source.gauges():
            self._set(gauge)
        for histogram in self._source.histograms():
            bounds = (*(f"{bound:g}" for bound in histogram.bounds), "+Inf")
            counts = {
                (*tags, bound): count
                for tags, buckets in self._source.buckets(histogram).items()
                for bound, count in zip(bounds, accumulate(buckets), strict=True)
            }
            tag_names = (*histogram.tags, "le")
            self._add(f"{histogram.name}_bucket", histogram.what, tag_names, counts)

    def _set(self, gauge: Gauge) -> None:
        """Set Ray's gauge to the values of `gauge`."""
        of_ray = self._gauges.get(gauge.name)
        if of_ray is None:
            of_ray = self._gauges[gauge.name] = metrics.Gauge(
                gauge.name, description=gauge.what, tag_keys=(*gauge.tags, "deployment")
            )
            of_ray.set_default_tags({"deployment": self._deployment})
        for tags, value in self._source.values(gauge).items():
            of_ray.set(value, tags=dict(zip(gauge.tags, tags, strict=True)))

    def _add(
        self, name: str, what: str, tag_names: tuple[str, ...], counts: Mapping[Tags, int]
    ) -> None:
        """Add to Ray's counter `name` how much each count has grown since the last call."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = metrics.Counter(
                name, description=what, tag_keys=(*tag_names, "deployment")
            )
            counter.set_default_tags({"deployment": self._deployment})
        for tags, count in counts.items():
            growth = count - self._sent.get((name, tags), 0)
            if growth:
                counter.inc(growth, tags=dict(zip(tag_names, tags, strict=True)))
                self._sent[name, tags] = count

    def close(self) -> None:
        """Let the thread publish the last counts and end. Wait at most `INTERVAL_S` seconds."""
        self._ended.set()
        self._thread.join(INTERVAL_S)
