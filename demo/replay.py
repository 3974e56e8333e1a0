"""Events in, questions out, over HTTP, in order of time: what real clients would do."""

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
EVENTS_A_CALL = 1_000
Report = Callable[[int], None]


@dataclass(slots=True)
class Answers:
    """What came back: a list of item rows for each point, and how long each call took."""

    lists: list[IntArray] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    rows_scored: int = 0


class Replay:
    """Posts events and asks the flow. Raises `Unavailable` for any reply but a 200."""

    def __init__(self, client: httpx.Client, data: MovieLens) -> None:
        self._client = client
        self._data = data
        self._row_of = {str(item): row for row, item in enumerate(data.item_ids.tolist())}

    def post_events(self, events: Events, report: Report) -> None:
        """Send events in their order, a batch a call."""
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
        for start in range(0, len(records), EVENTS_A_CALL):
            batch = records[start : start + EVENTS_A_CALL]
            self._call("/v1/interactions", {"events": batch})
            report(len(batch))

    def run(self, later: Events, points: Points, events: Report, asked: Report) -> Answers:
        """Replay `later`; at each point ask for a list when exactly what was before it is known."""
        answers = Answers()
        sent = 0
        for user, timestamp in zip(points.users, points.timestamps, strict=True):
            known = int(np.searchsorted(later.timestamps, timestamp))
            self.post_events(later.slice(sent, known), events)
            sent = known
            self._ask(int(self._data.user_ids[user]), answers)
            asked(1)
        self.post_events(later.slice(sent, len(later)), events)
        return answers

    def _ask(self, user_id: int, answers: Answers) -> None:
        body = {"context": {"user_id": user_id}, "trace": True}
        began = time.perf_counter()
        reply = self._call(f"/v1/flows/{FLOW}", body)
        answers.seconds.append(time.perf_counter() - began)
        rows = [self._row_of[each] for each in reply["output"]["ids"]]
        answers.lists.append(np.array(rows, dtype=np.int64))
        answers.rows_scored += sum(s["size"] for s in reply["trace"] if s["op"] == "infer")

    def _call(self, path: str, body: dict[str, object]) -> Any:
        reply = self._client.post(path, json=body)
        if reply.status_code != httpx.codes.OK:
            raise Unavailable(f"POST {path} gave {reply.status_code}: {reply.text}")
        return reply.json()
