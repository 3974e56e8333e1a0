"""The numbers of a replica as metrics of Ray, which each node offers to Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from itertools import accumulate
from typing import Any

from ray.util import metrics

from kirana.metrics import Metrics, Tags

INTERVAL_S = 1.0


class Publisher:
    """Adds up, once a second and off the event loop, what was counted since."""

    def __init__(self, counted: Metrics, deployment: str) -> None:
        self._counted = counted
        self._deployment = deployment
        self._counters: dict[str, Any] = {}
        self._sent: dict[tuple[str, Tags], int] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kirana-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._publish()
        # what was counted since then, while the replica finished its last requests
        self._publish()

    def _publish(self) -> None:
        for counter in self._counted.counters():
            self._add(counter.name, counter.what, counter.tags, self._counted.counts(counter))
        for histogram in self._counted.histograms():
            ends = (*(f"{each:g}" for each in histogram.bounds), "+Inf")
            counts = {
                (*tags, end): count
                for tags, buckets in self._counted.buckets(histogram).items()
                for end, count in zip(ends, accumulate(buckets), strict=True)
            }
            names = (*histogram.tags, "le")
            self._add(f"{histogram.name}_bucket", histogram.what, names, counts)

    def _add(
        self, name: str, what: str, names: tuple[str, ...], counts: Mapping[Tags, int]
    ) -> None:
        """Send how much each count has grown."""
        counter = self._counters.get(name)
        if counter is None:
            counter = self._counters[name] = metrics.Counter(
                name, description=what, tag_keys=(*names, "deployment")
            )
            counter.set_default_tags({"deployment": self._deployment})
        for tags, count in counts.items():
            more = count - self._sent.get((name, tags), 0)
            if more:
                counter.inc(more, tags=dict(zip(names, tags, strict=True)))
                self._sent[name, tags] = count

    def close(self) -> None:
        self._ended.set()
        self._thread.join(INTERVAL_S)
