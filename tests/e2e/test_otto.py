"""Real sessions of a web shop in over HTTP, and out again exactly as the file has them."""

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
    """Return all events in the order of the file, users named with a prefix."""
    events = []
    for line in (OTTO / "sessions.jsonl").read_text().splitlines():
        session = json.loads(line)
        for each in session["events"]:
            user = f"{prefix}{session['session']}"
            events.append(Event(user, each["type"], str(each["aid"]), each["ts"]))
    return events


def _send(client: httpx.Client, events: Sequence[Event], batch: int) -> None:
    for at in range(0, len(events), batch):
        body = {"events": [each._asdict() for each in events[at : at + batch]]}
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
    """Return for each session and type its events, newest first, ties by product descending."""
    found: dict[tuple[str, str], set[tuple[str, int]]] = defaultdict(set)
    for each in _sessions():
        found[(each.user_id, each.event)].add((each.product_id, each.timestamp))
    return {
        key: sorted(events, key=lambda e: (e[1], e[0]), reverse=True)
        for key, events in found.items()
    }


EXPECTED = _expected()


def _read(client: httpx.Client, user: str, event: str, **bounds: int) -> list[tuple[str, int]]:
    reply = client.get(f"/v1/interactions/{user}/{event}", params=bounds)
    assert reply.status_code == 200, reply.text
    return [(each["product_id"], each["timestamp"]) for each in reply.json()["interactions"]]


@pytest.mark.parametrize("prefix", ["", "s"], ids=["in order and repeated", "shuffled"])
def test_last_k_is_what_the_file_says(client: httpx.Client, prefix: str) -> None:
    for (user, event), events in EXPECTED.items():
        count = len(events)
        for k in sorted({1, 2, 5, max(count - 1, 1), count, count + 1, 1000}):
            assert _read(client, prefix + user, event, last=k) == events[:k], (user, event, k)
        assert _read(client, prefix + user, event) == events[:20]


@pytest.mark.parametrize("prefix", ["", "s"], ids=["in order and repeated", "shuffled"])
def test_ranges_are_what_the_file_says_at_every_boundary(client: httpx.Client, prefix: str) -> None:
    for (user, event), events in EXPECTED.items():
        times = sorted({time for _, time in events})
        for time in times if len(times) < 40 else [*times[:10], *times[-10:]]:
            for edge in (time - 1, time, time + 1):
                after = [each for each in events if each[1] >= edge]
                before = [each for each in events if each[1] <= edge]
                assert _read(client, prefix + user, event, since=edge) == after
                assert _read(client, prefix + user, event, until=edge) == before
            both = [each for each in events if times[0] <= each[1] <= time]
            assert _read(client, prefix + user, event, since=times[0], until=time) == both
            assert _read(client, prefix + user, event, since=time, limit=1) == events[:1]


def _query(
    client: httpx.Client, users: Sequence[str], events: Sequence[str], **bounds: int
) -> dict[str, dict[str, list[tuple[str, int]]]]:
    body = {"user_ids": users, "events": events, **bounds}
    reply = client.post("/v1/interactions/query", json=body)
    assert reply.status_code == 200, reply.text
    return {
        user: {
            event: [(each["product_id"], each["timestamp"]) for each in found]
            for event, found in lists.items()
        }
        for user, lists in reply.json()["interactions"].items()
    }


def _differs(
    client: httpx.Client, user: str, event: str, expected: object, **bounds: int
) -> list[object]:
    """Return how the first and the shuffled load differ from what is expected, in one query."""
    found = _query(client, [user, f"s{user}"], [event], **bounds)
    return [(name, event, bounds) for name in (user, f"s{user}") if found[name][event] != expected]


def test_many_sessions_and_types_in_one_query(client: httpx.Client) -> None:
    users = sorted({user for user, _ in EXPECTED})
    users = [*users, *(f"s{user}" for user in users), "nobody"]
    for last in (1, 2, 5, 1000):
        found = _query(client, users, TYPES, last=last)
        assert list(found) == users
        for user, event in itertools.product(users, TYPES):
            expected = EXPECTED.get((user.removeprefix("s"), event), [])
            assert found[user][event] == expected[:last], (user, event, last)


def test_every_count_of_every_session_is_what_the_file_says(client: httpx.Client) -> None:
    wrong = []
    for (user, event), events in EXPECTED.items():
        for k in range(1, len(events) + 2):
            wrong += _differs(client, user, event, events[:k], last=k)
    assert wrong == []


def test_every_boundary_of_every_session_is_what_the_file_says(client: httpx.Client) -> None:
    wrong = []
    for (user, event), events in EXPECTED.items():
        for time in sorted({time for _, time in events}):
            at = [each for each in events if each[1] == time]
            wrong += _differs(client, user, event, at, since=time, until=time)
            before = [each for each in events if each[1] < time]
            wrong += _differs(client, user, event, before, until=time - 1)
            after = [each for each in events if each[1] > time]
            wrong += _differs(client, user, event, after, since=time + 1)
    assert wrong == []


@pytest.mark.parametrize("prefix", ["", "s"], ids=["in order and repeated", "shuffled"])
def test_a_limit_takes_the_newest_of_a_range(client: httpx.Client, prefix: str) -> None:
    for (user, event), events in EXPECTED.items():
        times = sorted({time for _, time in events})
        since, until = times[len(times) // 4], times[-1 - len(times) // 4]
        within = [each for each in events if since <= each[1] <= until]
        bounds = {"since": since, "until": until}
        for limit in sorted({1, 2, max(len(within) - 1, 1), max(len(within), 1), len(within) + 1}):
            found = _read(client, prefix + user, event, **bounds, limit=limit)
            assert found == within[:limit], (user, event, bounds, limit)


def test_the_sessions_have_what_these_tests_are_about() -> None:
    assert Counter(each.event for each in _sessions()) == {"clicks": 800, "carts": 52, "orders": 10}
    at_once = [
        (one, other)
        for events in EXPECTED.values()
        for one, other in itertools.pairwise(events)
        if one[1] == other[1]
    ]
    assert at_once, "no two events of one millisecond"
    assert all(one[0] > other[0] for one, other in at_once)


def test_the_catalog_is_valid_and_its_schema_versions_are_with_it(tmp_path: Path) -> None:
    folder = tmp_path / "catalog"
    shutil.copytree(OTTO, folder)
    command = [sys.executable, "-m", "kirana", "check", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "is valid" in done.stdout
    assert "would publish schema version" not in done.stdout


def test_what_others_clicked_next_is_listed(client: httpx.Client) -> None:
    followers: dict[str, Counter[str]] = defaultdict(Counter)
    clicks = [each for each in _sessions() if each.event == "clicks"]
    for one, other in itertools.pairwise(clicks):
        if one.user_id == other.user_id and one.product_id != other.product_id:
            followers[one.product_id][other.product_id] += 1
    best = {product: each.most_common(FOLLOWERS) for product, each in followers.items()}
    columns: dict[str, list[Any]] = {
        "ids": [
            [int(i) for i, _ in each] + [0] * (FOLLOWERS - len(each)) for each in best.values()
        ],
        "weights": [[n for _, n in each] + [0] * (FOLLOWERS - len(each)) for each in best.values()],
    }
    put = {"group": "product.followers", "keys": {"product_id": list(best)}, "columns": columns}
    reply = client.post("/v1/features/put", json=put)
    assert reply.json() == {"written": len(best), "stale": 0, "expired": 0}, reply.text
    user = max((len(events), user) for (user, event), events in EXPECTED.items())[1]
    reply = client.post("/v1/flows/continue_shopping", json={"context": {"user_id": user}})
    listed = reply.json()["output"]["ids"]
    recent = [product for product, _ in EXPECTED[(user, "clicks")][:10]]
    possible = {other for product in recent for other, _ in best.get(product, [])}
    assert listed
    assert set(listed) <= possible


def test_without_direct_ports_calls_go_through_the_front_door(client: httpx.Client) -> None:
    assert client.get("/v1/endpoints").json() == {"endpoints": []}
    (user, event), events = next(iter(EXPECTED.items()))
    with Client(str(client.base_url), timeout_s=20.0) as kirana:
        assert kirana.endpoints() == []
        found = kirana.interactions(user, event, last=1)
    assert [*zip(found.product_ids, found.timestamps.tolist(), strict=True)] == events[:1]
