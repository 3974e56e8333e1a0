"""A client that sends events and requests lists over HTTP in time order, as a real shop does."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx
import numpy as np

from kirana.demo.dataset import Events, IntArray, MovieLens
from kirana.demo.protocol import Points
from kirana.errors import Unavailable

EVENT_TYPE = "watch"
FLOW = "for_you"
EVENTS_PER_CALL = 1_000
OnProgress = Callable[[int], None]
"""A function that is called with the number of events or points done since its last call."""


@dataclass(slots=True)
class Answers:
    """The replies: the item row numbers of the list for each point, and the seconds of each call.

    `rows_scored` is the number of candidates that the rankers scored, over all calls.
    """

    lists: list[IntArray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rows_scored: int = 0


class Replay:
    """A client that sends events and runs the flow.

    Its methods raise `Unavailable` if the status of a reply is not 200.
    """

    def __init__(self, client: httpx.Client, data: MovieLens) -> None:
        self._client = client
        self._data = data
        self._row_of = {str(item): row for row, item in enumerate(data.item_ids.tolist())}

    def post_events(self, events: Events, on_progress: OnProgress) -> None:
        """Send events in order, `EVENTS_PER_CALL` per call."""
        users = self._data.user_ids[events.users].tolist()
        items = self._data.item_ids[events.items].tolist()
        records = [
            {
                "user_id": user,
                "event": EVENT_TYPE,
                "product_id": item,
                "timestamp": timestamp * 1000,
                "metadata": {"rating": rating},
            }
            for user, item, timestamp, rating in zip(
                users,
                items,
                events.timestamps.tolist(),
                events.ratings.astype(int).tolist(),
                strict=True,
            )
        ]
        for start in range(0, len(records), EVENTS_PER_CALL):
            batch = records[start : start + EVENTS_PER_CALL]
            self._call("/v1/interactions", {"events": batch})
            on_progress(len(batch))

    def run(
        self, later: Events, points: Points, on_events: OnProgress, on_lists: OnProgress
    ) -> Answers:
        """Replay the events in `later`, and request a list at each point.

        When a list is requested, exactly the events of `later` before its point have been sent.
        """
        answers = Answers()
        sent = 0
        for user, timestamp in zip(points.users, points.timestamps, strict=True):
            known_count = int(np.searchsorted(later.timestamps, timestamp))
            self.post_events(later.slice(sent, known_count), on_events)
            sent = known_count
            self._request_list(int(self._data.user_ids[user]), answers)
            on_lists(1)
        self.post_events(later.slice(sent, len(later)), on_events)
        return answers

    def _request_list(self, user_id: int, answers: Answers) -> None:
        """Run the flow for a user, and append the list and its time to `answers`."""
        body = {"context": {"user_id": user_id}, "trace": True}
        began = time.perf_counter()
        reply = self._call(f"/v1/flows/{FLOW}", body)
        answers.seconds.append(time.perf_counter() - began)
        rows = [self._row_of[item_id] for item_id in reply["output"]["ids"]]
        answers.lists.append(np.array(rows, dtype=np.int64))
        answers.rows_scored += sum(span["size"] for span in reply["trace"] if span["op"] == "infer")

    def _call(self, path: str, body: dict[str, object]) -> Any:
        reply = self._client.post(path, json=body)
        if reply.status_code != httpx.codes.OK:
            raise Unavailable(f"POST {path} returned {reply.status_code}: {reply.text}")
        return reply.json()
