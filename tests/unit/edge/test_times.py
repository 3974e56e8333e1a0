"""Times in every kind of request: units other than milliseconds are refused."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from kirana.client import AsyncClient
from kirana.errors import InvalidInput
from kirana.interactions import Event

NOW_MS = 1_700_000_000_000
LAST_TIME = 2**53 - 1
"""The time that clients send for a range without an end."""

OTHER_UNITS = {
    1: 1_000,
    NOW_MS // 1_000: NOW_MS,
    10**11: 10**14,
    10**14 + 1: 10**11,
    NOW_MS * 1_000: NOW_MS,
    10**17 + 1: 10**11,
    NOW_MS * 1_000_000: NOW_MS,
}
"""Times in other units, and the milliseconds that the refusal suggests instead."""

MILLISECONDS = [0, 10**11 + 1, NOW_MS]


@dataclass(frozen=True)
class TimedRequest:
    """A request that carries a time, and the field that a refusal names."""

    field: str
    path: str
    body: Callable[[int], dict[str, Any]]
    call: Callable[[AsyncClient, int], Awaitable[Any]]

    async def send(self, client: httpx.AsyncClient, kirana: AsyncClient, time: int) -> Any:
        """Send the time in JSON and by the client. Return the field and message of the refusal.

        Return None if both requests are accepted. Assert that the outcome of both is the same.
        """
        response = await client.post(self.path, json=self.body(time))
        if response.status_code == 200:
            await self.call(kirana, time)
            return None
        error = response.json()["error"]
        assert (response.status_code, error["code"]) == (400, "invalid_input")
        with pytest.raises(InvalidInput) as caught:
            await self.call(kirana, time)
        assert (caught.value.field, caught.value.message) == (error["field"], error["message"])
        return error["field"], error["message"]


KEYS = {"category_id": ["1", "2"]}
ROWS = {"group": "category.stats", "keys": KEYS}
COLUMNS = {"share": [0.5, 0.5]}
CLICK = {"user_id": "7", "event": "click", "product_id": "1", "timestamp": NOW_MS}
ASK = {"user_ids": ["7"], "events": ["click"]}

WRITES = {
    "put": TimedRequest(
        "event_time",
        "/v1/features/put",
        lambda time: {**ROWS, "columns": COLUMNS, "event_time": time},
        lambda kirana, time: kirana.put_features("category.stats", KEYS, COLUMNS, event_time=time),
    ),
    "put with one time per row": TimedRequest(
        "event_time[1]",
        "/v1/features/put",
        lambda time: {**ROWS, "columns": COLUMNS, "event_time": [NOW_MS, time]},
        lambda kirana, time: kirana.put_features(
            "category.stats", KEYS, COLUMNS, event_time=[NOW_MS, time]
        ),
    ),
    "delete": TimedRequest(
        "event_time",
        "/v1/features/delete",
        lambda time: {**ROWS, "event_time": time},
        lambda kirana, time: kirana.delete_features("category.stats", KEYS, event_time=time),
    ),
    "delete with one time per row": TimedRequest(
        "event_time[1]",
        "/v1/features/delete",
        lambda time: {**ROWS, "event_time": [NOW_MS, time]},
        lambda kirana, time: kirana.delete_features(
            "category.stats", KEYS, event_time=[NOW_MS, time]
        ),
    ),
    "interactions": TimedRequest(
        "events[1].timestamp",
        "/v1/interactions",
        lambda time: {"events": [CLICK, {**CLICK, "timestamp": time}]},
        lambda kirana, time: kirana.add_interactions(
            [Event("7", "click", "1", NOW_MS), Event("7", "click", "1", time)]
        ),
    ),
}
QUERIES = {
    "since": TimedRequest(
        "since",
        "/v1/interactions/query",
        lambda time: {**ASK, "since": time},
        lambda kirana, time: kirana.interactions("7", "click", since=time),
    ),
    "until": TimedRequest(
        "until",
        "/v1/interactions/query",
        lambda time: {**ASK, "until": time},
        lambda kirana, time: kirana.interactions("7", "click", until=time),
    ),
}
TIMED = WRITES | QUERIES


@pytest.mark.parametrize("timed", TIMED.values(), ids=TIMED)
async def test_a_time_in_another_unit_is_refused_with_a_suggestion(
    client: httpx.AsyncClient, kirana: AsyncClient, timed: TimedRequest
) -> None:
    for sent, meant in OTHER_UNITS.items():
        field, message = await timed.send(client, kirana, sent)
        assert field == timed.field
        assert message.startswith(f"{sent} looks like ")
        assert message.endswith(f"send milliseconds, {meant}")


@pytest.mark.parametrize("timed", TIMED.values(), ids=TIMED)
async def test_a_time_in_milliseconds_is_accepted_and_so_is_zero(
    client: httpx.AsyncClient, kirana: AsyncClient, timed: TimedRequest
) -> None:
    for time in MILLISECONDS:
        assert await timed.send(client, kirana, time) is None


@pytest.mark.parametrize("timed", WRITES.values(), ids=WRITES)
async def test_the_largest_time_in_milliseconds_is_refused_as_too_far_ahead(
    client: httpx.AsyncClient, kirana: AsyncClient, timed: TimedRequest
) -> None:
    field, message = await timed.send(client, kirana, 10**14)
    assert field == timed.field
    assert "five minutes in the future" in message


@pytest.mark.parametrize("timed", QUERIES.values(), ids=QUERIES)
async def test_a_range_may_end_in_the_future_or_have_no_end(
    client: httpx.AsyncClient, kirana: AsyncClient, timed: TimedRequest
) -> None:
    for time in (10**14, LAST_TIME):
        assert await timed.send(client, kirana, time) is None
    for time in (LAST_TIME - 1, LAST_TIME + 1):
        field, message = await timed.send(client, kirana, time)
        assert field == timed.field
        assert "looks like microseconds" in message


@pytest.mark.parametrize("name", ["since", "until"])
async def test_times_in_a_query_string_are_checked_like_times_in_a_body(
    client: httpx.AsyncClient, name: str
) -> None:
    path = "/v1/interactions/7/click"
    for sent, meant in OTHER_UNITS.items():
        response = await client.get(path, params={name: sent})
        error = response.json()["error"]
        assert (response.status_code, error["field"]) == (400, name)
        assert error["message"].endswith(f"send milliseconds, {meant}")
    for time in (*MILLISECONDS, 10**14, LAST_TIME):
        assert (await client.get(path, params={name: time})).status_code == 200


@pytest.mark.parametrize("timed", WRITES.values(), ids=WRITES)
async def test_a_write_refused_for_one_time_writes_nothing(
    client: httpx.AsyncClient, kirana: AsyncClient, timed: TimedRequest
) -> None:
    await kirana.put_features("category.stats", {"category_id": "3"}, {"share": [0.5]})
    assert await timed.send(client, kirana, 7) is not None
    keys = {"category_id": ["1", "2", "3"]}
    reply = await kirana.get_features("category", keys, ["stats.share"])
    assert reply.status("stats") == ["missing", "missing", "ok"]
    assert list((await kirana.interactions("7", "click")).product_ids) == []
