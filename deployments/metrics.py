"""Counters of a replica as metrics of Ray, which each node offers to Prometheus."""

from __future__ import annotations

import threading
from itertools import accumulate
from typing import Any

from ray.util import metrics

from kirana.metrics import SECONDS, Counters, Tags

INTERVAL_S = 1.0
BOUNDS = (*(f"{each:g}" for each in SECONDS), "+Inf")


REQUEST_TAGS = ("route", "door", "status")
BUCKET_TAGS = ("route", "door", "le")
CALL_TAGS = ("part", "method")


class Publisher:
    """Adds up, once a second and off the event loop, what was counted since."""

    def __init__(self, counters: Counters, deployment: str) -> None:
        self._counters = counters
        self._sent: dict[tuple[str, Tags], int] = {}
        self._requests = _counter("kirana_requests", REQUEST_TAGS, deployment)
        self._buckets = _counter("kirana_request_seconds_bucket", BUCKET_TAGS, deployment)
        self._calls = _counter("kirana_calls", CALL_TAGS, deployment)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="kirana-metrics", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._ended.wait(INTERVAL_S):
            self._publish()
        # what was counted since then, while the replica finished its last requests
        self._publish()

    def _publish(self) -> None:
        counters = self._counters
        for tags, count in list(counters.requests.items()):
            self._add(self._requests, REQUEST_TAGS, tags, count)
        for tags, counts in list(counters.seconds.items()):
            for bound, count in zip(BOUNDS, accumulate(counts), strict=True):
                self._add(self._buckets, BUCKET_TAGS, (*tags, bound), count)
        for tags, count in list(counters.calls.items()):
            self._add(self._calls, CALL_TAGS, tags, count)

    def _add(self, counter: Any, names: Tags, tags: Tags, count: int) -> None:
        key = (counter.info["name"], tags)
        more = count - self._sent.get(key, 0)
        if more:
            counter.inc(more, tags=dict(zip(names, tags, strict=True)))
            self._sent[key] = count

    def close(self) -> None:
        self._ended.set()
        self._thread.join(INTERVAL_S)


def _counter(name: str, tags: Tags, deployment: str) -> Any:
    counter = metrics.Counter(name, tag_keys=(*tags, "deployment"))
    counter.set_default_tags({"deployment": deployment})
    return counter
