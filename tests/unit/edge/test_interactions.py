"""`/v1/interactions...`: events are stored and returned, and bad requests are refused."""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import quote

import httpx
import pytest

from kirana import byte_limit
from kirana.edge.handlers import interactions as handlers
from kirana.edge.limits import MAX_EVENTS
from tests.support import Shop
from tests.unit.edge.conftest import client_of, refused

POST, QUERY = "/v1/interactions", "/v1/interactions/query"
A_TIME = 1_700_000_000_000
"""A fixed time for parameters, because every worker must see the same test ids."""
NOW_MS = int(time.time() * 1000)
DAY_MS = 86_400_000


def click(product: Any, ago_ms: int = 0, user: Any = "7", **fields: Any) -> dict[str, Any]:
    """Return a click in JSON, `ago_ms` before now."""
    timestamp = NOW_MS - ago_ms
    return {
        "user_id": user, "event": "click", "product_id": product, "timestamp": timestamp, **fields,
    }  # fmt: skip


async def send(client: httpx.AsyncClient, *events: dict[str, Any]) -> None:
    response = await client.post(POST, json={"events": events})
    assert (response.status_code, response.json()) == (
        200,
        {"accepted": len(events), "expired": 0},
    )


async def get(client: httpx.AsyncClient, path: str, **query: Any) -> list[dict[str, Any]]:
    """Return the interactions below a path, which must be answered with status 200."""
    response = await client.get(f"/v1/interactions/{path}", params=query)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert list(reply) == ["interactions"]
    interactions: list[dict[str, Any]] = reply["interactions"]
    return interactions


async def products(client: httpx.AsyncClient, path: str = "7/click", **query: Any) -> list[str]:
    return [interaction["product_id"] for interaction in await get(client, path, **query)]


async def test_events_come_back_newest_first(client: httpx.AsyncClient) -> None:
    await send(client, click("b", 2), click(9, 1, metadata={"page": 3}), click("c", 3))
    assert await get(client, "7/click") == [
        {"product_id": "9", "timestamp": NOW_MS - 1, "metadata": {"page": 3}},
        {"product_id": "b", "timestamp": NOW_MS - 2},
        {"product_id": "c", "timestamp": NOW_MS - 3},
    ]


async def test_an_integer_and_a_string_are_the_same_user(client: httpx.AsyncClient) -> None:
    await send(client, click("a", 1, user=7), click("b", 2, user="7"))
    assert await products(client) == ["a", "b"]


async def test_an_event_that_is_sent_again_is_stored_once(client: httpx.AsyncClient) -> None:
    await send(client, click("a"), click("a"))
    await send(client, click("a"))
    assert await products(client) == ["a"]


async def test_metadata_comes_back_as_it_was_sent(client: httpx.AsyncClient) -> None:
    metadata = {"q": 'say "é🛒"', "n": [1, 2.5, None, True], "deep": {"a": {"b": {}}}, "": 0}
    await send(client, click("a", metadata=metadata), click("b", 1, metadata={}))
    interactions = await get(client, "7/click")
    assert [interaction.get("metadata") for interaction in interactions] == [metadata, {}]


async def test_an_unknown_user_has_no_events(client: httpx.AsyncClient) -> None:
    assert await get(client, "nobody/click") == []


async def test_last_or_limit_bounds_how_many_of_the_newest_events_are_returned(
    client: httpx.AsyncClient,
) -> None:
    await send(client, *(click(f"p{i}", i) for i in range(30)))
    assert await products(client, last=3) == ["p0", "p1", "p2"]
    assert len(await products(client)) == 20
    assert len(await products(client, last=10_000)) == 30
    assert await products(client, limit=2) == ["p0", "p1"]


async def test_a_range_includes_both_ends(client: httpx.AsyncClient) -> None:
    await send(client, *(click(f"p{i}", i) for i in range(30)))
    assert await products(client, since=NOW_MS - 3, until=NOW_MS - 1) == ["p1", "p2", "p3"]
    assert await products(client, since=NOW_MS - 3, until=NOW_MS - 1, limit=2) == ["p1", "p2"]
    assert len(await products(client, since=NOW_MS - 24)) == 25
    assert await products(client, until=NOW_MS - 29) == ["p29"]
    assert await products(client, since=NOW_MS, until=NOW_MS) == ["p0"]


@pytest.mark.parametrize(
    "user", ["a/b", "a%2Fb", "é🛒", "a b", "a?b", "a#b", "a;b&c=d", "...", "+"]
)
async def test_a_user_id_may_contain_separators_and_unicode(
    client: httpx.AsyncClient, user: str
) -> None:
    await send(client, click("a", user=user), click("b", user="other"))
    assert await products(client, f"{quote(user, safe='')}/click") == ["a"]
    response = await client.delete(f"/v1/interactions/{quote(user, safe='')}")
    assert response.json() == {"deleted": 1}


async def test_a_user_id_may_equal_a_segment_of_a_route(client: httpx.AsyncClient) -> None:
    await send(client, click("a", user="query"))
    assert await products(client, "query/click") == ["a"]
    assert (await client.delete("/v1/interactions/query")).json() == {"deleted": 1}


async def test_one_query_returns_several_users_and_event_types(client: httpx.AsyncClient) -> None:
    wish = {**click("w", 5), "event": "wishlist"}
    await send(client, click("a", 1), click("b", 2), click("c", 3, user="8"), wish)
    body = {"user_ids": [7, "8", "7", "nobody"], "events": ["click", "wishlist"], "last": 1}
    response = await client.post(QUERY, json=body)
    assert response.json() == {
        "interactions": {
            "7": {
                "click": [{"product_id": "a", "timestamp": NOW_MS - 1}],
                "wishlist": [{"product_id": "w", "timestamp": NOW_MS - 5}],
            },
            "8": {"click": [{"product_id": "c", "timestamp": NOW_MS - 3}], "wishlist": []},
            "nobody": {"click": [], "wishlist": []},
        }
    }


async def test_a_posted_query_may_have_a_range(client: httpx.AsyncClient) -> None:
    await send(client, *(click(f"p{i}", i) for i in range(5)))
    body = {"user_ids": ["7"], "events": ["click"], "since": NOW_MS - 3, "until": NOW_MS - 1}
    clicks = (await client.post(QUERY, json=body)).json()["interactions"]["7"]["click"]
    assert [event["product_id"] for event in clicks] == ["p1", "p2", "p3"]


async def test_a_forgotten_user_has_no_events(client: httpx.AsyncClient) -> None:
    await send(client, click("a"), {**click("w"), "event": "wishlist"}, click("b", user="77"))
    assert (await client.delete("/v1/interactions/7")).json() == {"deleted": 2}
    assert await products(client) == []
    assert await products(client, "7/wishlist") == []
    assert await products(client, "77/click") == ["b"]
    assert (await client.delete("/v1/interactions/7")).json() == {"deleted": 0}


async def test_events_past_the_ttl_of_their_type_are_counted_as_expired(
    client: httpx.AsyncClient,
) -> None:
    wishes = [("old", DAY_MS), ("young", DAY_MS // 2), ("older", 2 * DAY_MS)]
    events = [{**click(product, ago_ms), "event": "wishlist"} for product, ago_ms in wishes]
    response = await client.post(POST, json={"events": [click("ever", 9 * DAY_MS), *events]})
    assert response.json() == {"accepted": 2, "expired": 2}
    assert await products(client, "7/wishlist") == ["young"]
    assert await products(client) == ["ever"]


GOOD = click("a")
BAD_EVENTS: dict[str, tuple[Any, int, str]] = {
    "an empty user": ({**GOOD, "user_id": ""}, 400, "user_id"),
    "a user that is null": ({**GOOD, "user_id": None}, 400, "user_id"),
    "a user that is a fraction": ({**GOOD, "user_id": 1.5}, 400, "user_id"),
    "a user that is a list": ({**GOOD, "user_id": ["7"]}, 400, "user_id"),
    "a user with NUL": ({**GOOD, "user_id": "a\0b"}, 400, "user_id"),
    "a user that is too long": ({**GOOD, "user_id": "é" * 101}, 400, "user_id"),
    "an empty product": ({**GOOD, "product_id": ""}, 400, "product_id"),
    "a product with NUL": ({**GOOD, "product_id": "\0"}, 400, "product_id"),
    "a product that is too long": ({**GOOD, "product_id": "x" * 201}, 400, "product_id"),
    "a product that is a boolean": ({**GOOD, "product_id": True}, 400, "product_id"),
    "an unknown event": ({**GOOD, "event": "clik"}, 404, "event"),
    "an event that is a number": ({**GOOD, "event": 1}, 400, "event"),
    "a time before 1970": ({**GOOD, "timestamp": -1}, 400, "timestamp"),
    "a time with a fraction": ({**GOOD, "timestamp": 1.5}, 400, "timestamp"),
    "a time that is text": ({**GOOD, "timestamp": "now"}, 400, "timestamp"),
    "a time in the future": ({**GOOD, "timestamp": NOW_MS + 3_600_000}, 400, "timestamp"),
    "a time beyond 64 bits": ({**GOOD, "timestamp": 10**30}, 400, "timestamp"),
    "a missing time": ({k: v for k, v in GOOD.items() if k != "timestamp"}, 400, "timestamp"),
    "metadata that is a list": ({**GOOD, "metadata": [1]}, 400, "metadata"),
    "metadata that is text": ({**GOOD, "metadata": "a"}, 400, "metadata"),
    "an unknown field": ({**GOOD, "price": 1}, 400, "price"),
    "metadata with an integer beyond 64 bits": (
        {**GOOD, "metadata": {"n": 2**70}}, 400, "metadata"),
}  # fmt: skip


def nested(depth: int) -> dict[str, Any]:
    """Return a mapping nested this deep."""
    value: dict[str, Any] = {}
    for _ in range(depth):
        value = {"a": value}
    return value


BAD_EVENTS["metadata nested three hundred times"] = (
    {**GOOD, "metadata": nested(300)},
    400,
    "metadata",
)


@pytest.mark.parametrize(("event", "status", "field"), BAD_EVENTS.values(), ids=BAD_EVENTS.keys())
async def test_a_bad_event_is_named_and_no_event_is_stored(
    client: httpx.AsyncClient, event: Any, status: int, field: str
) -> None:
    refusal = await refused(client, "POST", POST, {"events": [click("ok", 5), event]})
    code = "unknown_event_type" if status == 404 else "invalid_input"
    assert refusal == (status, code, f"events[1].{field}")
    assert await products(client) == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "events"),
        ({"events": []}, "events"),
        ({"events": {}}, "events"),
        ({"events": None}, "events"),
        ({"events": [GOOD, 5]}, "events[1]"),
        ({"events": [GOOD], "user_id": "7"}, "user_id"),
        ([GOOD], None),
    ],
)
async def test_a_body_without_a_list_of_events_is_refused(
    client: httpx.AsyncClient, body: Any, field: str | None
) -> None:
    assert await refused(client, "POST", POST, body) == (400, "invalid_input", field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("last=", "last"),
        ("last=0", "last"),
        ("last=-1", "last"),
        ("last=five", "last"),
        ("last=1.5", "last"),
        ("last=%D9%A3", "last"),
        ("last=" + "9" * 5000, "last"),
        ("last=1&last=2", "last"),
        (f"last=5&since={A_TIME}", "last"),
        ("last=5&limit=5", "last"),
        ("limit=0", "limit"),
        (f"limit=0&since={A_TIME}", "limit"),
        ("since=-1", "since"),
        ("since=now", "since"),
        ("until=-1", "until"),
        (f"until={2**53}", "until"),
        (f"since={A_TIME}&until={A_TIME - 1}", "since"),
        (f"since={2**53 - 1}&until={A_TIME}", "since"),
        ("lasst=5", "lasst"),
        ("LAST=5", "LAST"),
        ("last=%FF", "last"),
    ],
    ids=lambda value: str(value)[:30],
)
async def test_a_bad_query_is_refused_and_named(
    client: httpx.AsyncClient, query: str, field: str
) -> None:
    refusal = await refused(client, "GET", f"/v1/interactions/7/click?{query}")
    assert refusal == (400, "invalid_input", field)


@pytest.mark.parametrize(
    ("path", "status", "code", "field"),
    [
        ("7/clik", 404, "unknown_event_type", "event"),
        ("7/", 404, "unknown_event_type", "event"),
        ("/click", 400, "invalid_input", "user_id"),
        ("%00/click", 400, "invalid_input", "user_id"),
        ("x" * 201 + "/click", 400, "invalid_input", "user_id"),
        ("%FF/click", 400, "invalid_input", "path"),
        ("%ED%A0%80/click", 400, "invalid_input", "path"),
    ],
    ids=lambda value: str(value)[-20:],
)
async def test_a_bad_path_is_refused_and_named(
    client: httpx.AsyncClient, path: str, status: int, code: str, field: str
) -> None:
    assert await refused(client, "GET", f"/v1/interactions/{path}") == (status, code, field)


@pytest.mark.parametrize("user", ["%00", "x" * 201])
async def test_an_invalid_user_can_not_be_forgotten(client: httpx.AsyncClient, user: str) -> None:
    refusal = await refused(client, "DELETE", f"/v1/interactions/{user}")
    assert refusal == (400, "invalid_input", "user_id")


ASK: dict[str, Any] = {"user_ids": ["7", "8"], "events": ["click", "wishlist"]}


@pytest.mark.parametrize(
    ("body", "status", "field"),
    [
        ({}, 400, "user_ids"),
        ({"user_ids": ["7"]}, 400, "events"),
        ({**ASK, "user_ids": []}, 400, "user_ids"),
        ({**ASK, "events": []}, 400, "events"),
        ({**ASK, "user_ids": "7"}, 400, "user_ids"),
        ({**ASK, "user_ids": ["7", 1.5]}, 400, "user_ids[1]"),
        ({**ASK, "user_ids": ["7", ""]}, 400, "user_ids[1]"),
        ({**ASK, "user_ids": ["7", "a\0"]}, 400, "user_ids[1]"),
        ({**ASK, "user_ids": ["7", "x" * 201]}, 400, "user_ids[1]"),
        ({**ASK, "events": ["click", "clik"]}, 404, "events[1]"),
        ({**ASK, "events": ["click", 5]}, 400, "events[1]"),
        ({**ASK, "last": 0}, 400, "last"),
        ({**ASK, "last": "5"}, 400, "last"),
        ({**ASK, "last": 10**30}, 400, "last"),
        ({**ASK, "last": 5, "until": NOW_MS}, 400, "last"),
        ({**ASK, "since": -1}, 400, "since"),
        ({**ASK, "until": 10**30}, 400, "until"),
        ({**ASK, "since": NOW_MS, "until": NOW_MS - 1}, 400, "since"),
        ({**ASK, "since": NOW_MS, "limit": 0}, 400, "limit"),
        ({**ASK, "user_id": "7"}, 400, "user_id"),
    ],
    ids=lambda value: ascii(value)[:70],
)
async def test_a_bad_query_of_several_users_is_refused_and_named(
    client: httpx.AsyncClient, body: Any, status: int, field: str
) -> None:
    code = "unknown_event_type" if status == 404 else "invalid_input"
    assert await refused(client, "POST", QUERY, body) == (status, code, field)


async def test_requests_over_a_limit_are_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MAX_CELLS", 10)
    async with client_of(await shop.edge()) as client:
        await send(client, *[click("a")] * MAX_EVENTS)
        events = {"events": [click("a")] * (MAX_EVENTS + 1)}
        assert await refused(client, "POST", POST, events) == (413, "too_large", "events")
        many = {**ASK, "last": 3}
        assert await refused(client, "POST", QUERY, many) == (413, "too_large", "user_ids")
        assert (await client.post(QUERY, json={**ASK, "last": 2})).status_code == 200
        _, _, field = await refused(client, "GET", "/v1/interactions/7/click?last=10001")
        assert field == "last"


async def test_events_with_too_many_bytes_are_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_limit, "MAX_READ_BYTES", 1_000)
    async with client_of(await shop.edge()) as client:
        await send(client, *[click(f"a{n}", metadata={"note": "x" * 300}) for n in range(5)])
        assert (await client.get("/v1/interactions/7/click?last=2")).status_code == 200
        large = await refused(client, "GET", "/v1/interactions/7/click?last=5")
        assert large == (413, "too_large", "last")
        assert await refused(client, "POST", QUERY, ASK) == (413, "too_large", "user_ids")
