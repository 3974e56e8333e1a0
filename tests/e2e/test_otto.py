"""Real sessions of a web shop, written over HTTP and read exactly as they are in the file."""

from __future__ import annotations

import itertools
import json
import random
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest

from kirana.client import Client
from tests.e2e.starts import kirana_up

OTTO = Path(__file__).parents[2] / "graphs" / "otto"
TYPES = ("clicks", "carts", "orders")
FOLLOWERS = 10


class Event(NamedTuple):
    user_id: str
    event: str
    product_id: str
    timestamp: int


def _sessions(prefix: str = "") -> list[Event]:
    """Return all events in the order of the file. `prefix` is put before each user id."""
    events = []
    for line in (OTTO / "sessions.jsonl").read_text().splitlines():
        session = json.loads(line)
        for event in session["events"]:
            user = f"{prefix}{session['session']}"
            events.append(Event(user, event["type"], str(event["aid"]), event["ts"]))
    return events


def _send(client: httpx.Client, events: Sequence[Event], batch: int) -> None:
    for start in range(0, len(events), batch):
        body = {"events": [event._asdict() for event in events[start : start + batch]]}
        reply = client.post("/v1/interactions", json=body)
        assert reply.status_code == 200, reply.text
        assert reply.json() == {"accepted": len(body["events"]), "expired": 0}


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[httpx.Client]:
    folder = tmp_path_factory.mktemp("otto") / "catalog"
    shutil.copytree(OTTO, folder)
    options = ("--direct-ports", "off")
    with kirana_up(folder, *options) as served:
        _send(served.client, _sessions(), batch=100)
        shuffled = [*_sessions("s"), *random.Random(7).sample(_sessions("s"), 400)]
        random.Random(8).shuffle(shuffled)
        _send(served.client, shuffled, batch=37)
        _send(served.client, _sessions()[::-1], batch=500)
        yield served.client


def _expected() -> dict[tuple[str, str], list[tuple[str, int]]]:
    """Return the events of each session and type, newest first, then by product descending."""
    unique: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    for event in _sessions():
        unique[(event.user_id, event.event)].add((event.product_id, event.timestamp))
    return {
        key: sorted(events, key=lambda pair: (pair[1], pair[0]), reverse=True)
        for key, events in unique.items()
    }


EXPECTED = _expected()


def _read(client: httpx.Client, user: str, event: str, **bounds: int) -> list[tuple[str, int]]:
    reply = client.get(f"/v1/interactions/{user}/{event}", params=bounds)
    assert reply.status_code == 200, reply.text
    return [(entry["product_id"], entry["timestamp"]) for entry in reply.json()["interactions"]]


@pytest.mark.parametrize("prefix", ["", "s"], ids=["in order and repeated", "shuffled"])
def test_the_last_k_events_are_those_of_the_file(client: httpx.Client, prefix: str) -> None:
    for (user, event), events in EXPECTED.items():
        count = len(events)
        for k in sorted({1, 2, 5, max(count - 1, 1), count, count + 1, 1000}):
            assert _read(client, prefix + user, event, last=k) == events[:k], (user, event, k)
        assert _read(client, prefix + user, event) == events[:20]


@pytest.mark.parametrize("prefix", ["", "s"], ids=["in order and repeated", "shuffled"])
def test_ranges_are_those_of_the_file_around_event_times(client: httpx.Client, prefix: str) -> None:
    for (user, event), events in EXPECTED.items():
        times = sorted({time for _, time in events})
        for time in times if len(times) < 40 else [*times[:10], *times[-10:]]:
            for boundary in (time - 1, time, time + 1):
                after = [pair for pair in events if pair[1] >= boundary]
                before = [pair for pair in events if pair[1] <= boundary]
                assert _read(client, prefix + user, event, since=boundary) == after
                assert _read(client, prefix + user, event, until=boundary) == before
            between = [pair for pair in events if times[0] <= pair[1] <= time]
            assert _read(client, prefix + user, event, since=times[0], until=time) == between
            assert _read(client, prefix + user, event, since=time, limit=1) == events[:1]


def _query(
    client: httpx.Client, users: Sequence[str], events: Sequence[str], **bounds: int
) -> dict[str, dict[str, list[tuple[str, int]]]]:
    body = {"user_ids": users, "events": events, **bounds}
    reply = client.post("/v1/interactions/query", json=body)
    assert reply.status_code == 200, reply.text
    return {
        user: {
            event: [(entry["product_id"], entry["timestamp"]) for entry in entries]
            for event, entries in lists.items()
        }
        for user, lists in reply.json()["interactions"].items()
    }


def _differences(
    client: httpx.Client, user: str, event: str, expected: object, **bounds: int
) -> list[object]:
    """Return an entry for each copy of a session (in order, shuffled) whose events are wrong.

    The entry is the user, the event type and the bounds. The right events are `expected`.
    """
    results = _query(client, [user, f"s{user}"], [event], **bounds)
    return [
        (name, event, bounds) for name in (user, f"s{user}") if results[name][event] != expected
    ]


def test_one_query_returns_many_sessions_and_types(client: httpx.Client) -> None:
    users = sorted({user for user, _ in EXPECTED})
    users = [*users, *(f"s{user}" for user in users), "nobody"]
    for last in (1, 2, 5, 1000):
        results = _query(client, users, TYPES, last=last)
        assert list(results) == users
        for user, event in itertools.product(users, TYPES):
            expected = EXPECTED.get((user.removeprefix("s"), event), [])
            assert results[user][event] == expected[:last], (user, event, last)


def test_every_count_of_every_session_is_that_of_the_file(client: httpx.Client) -> None:
    wrong = []
    for (user, event), events in EXPECTED.items():
        for k in range(1, len(events) + 2):
            wrong += _differences(client, user, event, events[:k], last=k)
    assert wrong == []


def test_every_boundary_of_every_session_is_that_of_the_file(client: httpx.Client) -> None:
    wrong = []
    for (user, event), events in EXPECTED.items():
        for time in sorted({time for _, time in events}):
            during = [pair for pair in events if pair[1] == time]
            wrong += _differences(client, user, event, during, since=time, until=time)
            before = [pair for pair in events if pair[1] < time]
            wrong += _differences(client, user, event, before, until=time - 1)
            after = [pair for pair in events if pair[1] > time]
            wrong += _differences(client, user, event, after, since=time + 1)
    assert wrong == []


@pytest.mark.parametrize("prefix", ["", "s"], ids=["in order and repeated", "shuffled"])
def test_a_limit_selects_the_newest_events_of_a_range(client: httpx.Client, prefix: str) -> None:
    for (user, event), events in EXPECTED.items():
        times = sorted({time for _, time in events})
        since, until = times[len(times) // 4], times[-1 - len(times) // 4]
        within = [pair for pair in events if since <= pair[1] <= until]
        bounds = {"since": since, "until": until}
        for limit in sorted({1, 2, max(len(within) - 1, 1), max(len(within), 1), len(within) + 1}):
            result = _read(client, prefix + user, event, **bounds, limit=limit)
            assert result == within[:limit], (user, event, bounds, limit)


def test_the_file_has_all_types_and_some_simultaneous_events() -> None:
    assert Counter(event.event for event in _sessions()) == {
        "clicks": 800,
        "carts": 52,
        "orders": 10,
    }
    ties = [
        (first, second)
        for events in EXPECTED.values()
        for first, second in itertools.pairwise(events)
        if first[1] == second[1]
    ]
    assert ties, "no two events in one millisecond"
    assert all(first[0] > second[0] for first, second in ties)


def test_the_catalog_is_valid_and_includes_its_schema_versions(tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    shutil.copytree(OTTO, folder)
    command = [sys.executable, "-m", "kirana", "check", str(folder)]
    completed = subprocess.run(command, capture_output=True, text=True, check=False)
    assert completed.returncode == 0, completed.stderr
    assert "is valid" in completed.stdout
    assert "would publish schema version" not in completed.stdout


def test_a_flow_lists_products_that_others_clicked_next(client: httpx.Client) -> None:
    followers: dict[str, Counter[str]] = defaultdict(Counter)
    clicks = [event for event in _sessions() if event.event == "clicks"]
    for first, second in itertools.pairwise(clicks):
        if first.user_id == second.user_id and first.product_id != second.product_id:
            followers[first.product_id][second.product_id] += 1
    best = {product: counter.most_common(FOLLOWERS) for product, counter in followers.items()}
    columns: dict[str, list[Any]] = {
        "ids": [
            [int(i) for i, _ in pairs] + [0] * (FOLLOWERS - len(pairs)) for pairs in best.values()
        ],
        "weights": [
            [n for _, n in pairs] + [0] * (FOLLOWERS - len(pairs)) for pairs in best.values()
        ],
    }
    put = {"group": "product.followers", "keys": {"product_id": list(best)}, "columns": columns}
    reply = client.post("/v1/features/put", json=put)
    assert reply.json() == {"written": len(best), "stale": 0, "expired": 0}, reply.text
    user = max((len(events), user) for (user, event), events in EXPECTED.items())[1]
    reply = client.post("/v1/flows/continue_shopping", json={"context": {"user_id": user}})
    listed = reply.json()["output"]["ids"]
    recent = [product for product, _ in EXPECTED[(user, "clicks")][:10]]
    possible = {follower for product in recent for follower, _ in best.get(product, [])}
    assert listed
    assert set(listed) <= possible


def test_without_direct_ports_calls_go_through_the_front_door(client: httpx.Client) -> None:
    assert client.get("/v1/endpoints").json() == {"endpoints": []}
    (user, event), events = next(iter(EXPECTED.items()))
    with Client(str(client.base_url), timeout_s=20.0) as kirana:
        assert kirana.endpoints() == []
        interactions = kirana.interactions(user, event, last=1)
    assert [
        *zip(interactions.product_ids, interactions.timestamps.tolist(), strict=True)
    ] == events[:1]
