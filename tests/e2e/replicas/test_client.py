"""Clients of a running Kirana: replicas that are killed or scaled, ids, doors and timeouts."""

from __future__ import annotations

import concurrent.futures
import threading
from collections import Counter
from pathlib import Path

import httpx
import pytest

from kirana.client import AsyncClient, Client
from kirana.errors import DeadlineExceeded, Unavailable
from kirana.interactions import Event
from kirana.serving.environment import free_ports
from tests.e2e.serving import Serving, listening_on
from tests.e2e.shop_requests import NOW_MS, PAUSE_S, PRODUCTS
from tests.waiting import wait_for, wait_until

CALLERS = 4
CONTEXT = {"user_id": "7", "product_id": PRODUCTS}


class Load:
    """Threads that share one client and call it until the block ends."""

    def __init__(self, url: str, *, direct: bool = True, callers: int = CALLERS) -> None:
        self.client = Client(url, timeout_s=20.0, direct=direct)
        self.done = 0
        self.wrong: list[str] = []
        self._stop = threading.Event()
        self._callers = callers
        self._pool = concurrent.futures.ThreadPoolExecutor(callers)
        self._expected = self.client.infer("ranker", CONTEXT, top_k=5)

    def _call(self) -> None:
        while not self._stop.wait(PAUSE_S):
            ranking = self.client.infer("ranker", CONTEXT, top_k=5)
            if list(ranking.ids) != list(self._expected.ids):
                self.wrong.append(str(ranking.ids))
            self.done += 1

    def wait_for_more(self, calls: int = 200) -> None:
        """Wait until more than `calls` further calls have returned, or a thread has ended."""
        before = self.done
        wait_for(
            lambda: self.done > before + calls or any(call.done() for call in self._calls),
            f"{calls} more calls",
        )

    def __enter__(self) -> Load:
        self._calls = [self._pool.submit(self._call) for _ in range(self._callers)]
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for call in self._calls:
            call.result()
        self._pool.shutdown()
        self.client.close()


def _connections(urls: list[str]) -> Counter[str]:
    """Return how many connections each port has now, without ports that have none."""
    connections: Counter[str] = Counter()
    for url in urls:
        port = httpx.URL(url).port
        for connection in listening_on(url).net_connections("tcp"):
            if connection.laddr and connection.laddr.port == port and connection.raddr:
                connections[url] += 1
    return connections


def test_a_killed_replica_fails_no_call(serving: Serving) -> None:
    before = serving.wait_for_endpoints(lambda ports: len(ports) == 2, "two replicas")
    killed_replica, killed_url = sorted(before.items())[0]
    with Load(serving.url) as load:
        load.wait_for_more()
        assert all(count > 0 for count in _connections(list(before.values())).values())
        listening_on(killed_url).kill()
        load.wait_for_more()
        after = serving.wait_for_endpoints(
            lambda ports: len(ports) == 2 and killed_replica not in ports, "another replica"
        )
        wait_for(lambda: len(_connections(list(after.values()))) == 2, "both ports are used")
        load.wait_for_more()
    assert load.wrong == []


def test_a_killed_replica_fails_no_call_through_the_front_door(serving: Serving) -> None:
    # After the kill, HAProxy may answer 500 for a moment, so the client must repeat calls. See
    # `HAPROXY` in the client's unit tests.
    before = serving.wait_for_endpoints(lambda ports: len(ports) == 2, "two replicas")
    killed_replica, killed_url = sorted(before.items())[0]
    with Load(serving.url, direct=False, callers=16) as load:
        load.wait_for_more()
        listening_on(killed_url).kill()
        load.wait_for_more()
        serving.wait_for_endpoints(
            lambda ports: len(ports) == 2 and killed_replica not in ports, "another replica"
        )
    assert load.wrong == []


def test_scaling_up_and_down_fails_no_call(serving: Serving) -> None:
    with Load(serving.url) as load:
        load.wait_for_more()
        serving.deploy(3)
        of_three = serving.wait_for_endpoints(lambda ports: len(ports) == 3, "three replicas")
        wait_for(lambda: len(_connections(list(of_three.values()))) == 3, "all ports are used")
        serving.deploy(1)
        serving.wait_for_endpoints(lambda ports: len(ports) == 1, "one replica")
        load.wait_for_more()
    assert load.wrong == []


def test_events_written_while_a_replica_is_killed_are_stored_once(serving: Serving) -> None:
    serving.wait_for_endpoints(lambda ports: len(ports) >= 1, "a replica")
    serving.deploy(2)
    before = serving.wait_for_endpoints(lambda ports: len(ports) == 2, "two replicas")
    killed_replica, killed_url = sorted(before.items())[0]
    stop = threading.Event()

    def write(client: Client, caller: int) -> int:
        count = 0
        while not stop.wait(PAUSE_S):
            event = Event(f"writer {caller}", "click", str(count), NOW_MS + count)
            assert client.add_interactions([event]).accepted == 1
            count += 1
        return count

    with (
        Client(serving.url, timeout_s=20.0) as client,
        concurrent.futures.ThreadPoolExecutor(CALLERS) as pool,
    ):
        assert client.health()["status"] == "ok"
        calls = [pool.submit(write, client, caller) for caller in range(CALLERS)]
        try:
            listening_on(killed_url).kill()
            serving.wait_for_endpoints(
                lambda ports: len(ports) == 2 and killed_replica not in ports, "another replica"
            )
        finally:
            stop.set()
        for caller, call in enumerate(calls):
            newest = list(range(call.result()))[::-1][:50]
            interactions = client.interactions(f"writer {caller}", "click", last=100)
            assert list(interactions.product_ids) == [str(n) for n in newest]
            assert interactions.timestamps.tolist() == [NOW_MS + n for n in newest]


@pytest.mark.parametrize("direct", [True, False], ids=["direct port", "front door"])
@pytest.mark.parametrize("user", ["a/b", "a%2Fb", "né ?#&=+;|\\", ".", "..", "x" * 200], ids=repr)
async def test_an_id_may_contain_separators_dots_and_unicode(
    serving: Serving, user: str, direct: bool
) -> None:
    metadata = {"from": user}
    async with AsyncClient(serving.url, timeout_s=20.0, direct=direct) as client:
        event = Event(user, "click", user, NOW_MS, metadata)
        assert (await client.add_interactions([event])).accepted == 1
        interactions = await client.interactions(user, "click")
        assert list(interactions.product_ids) == [user]
        assert list(interactions.metadata) == [metadata]
        assert await client.forget(user) == 1
        assert len(await client.interactions(user, "click")) == 0


async def test_a_client_without_direct_never_uses_the_direct_ports(serving: Serving) -> None:
    async with AsyncClient(serving.url, timeout_s=20.0, direct=False) as client:
        urls = await client.endpoints()
        assert urls
        for _ in range(20):
            assert len((await client.infer("ranker", CONTEXT)).ids) == len(PRODUCTS)
        assert _connections(urls) == {}


async def test_a_first_call_that_times_out_does_not_prevent_direct_calls(serving: Serving) -> None:
    async with AsyncClient(serving.url, timeout_s=20.0) as client:
        with pytest.raises(DeadlineExceeded):
            await client.health(timeout_s=0.0001)
        urls = await client.endpoints()

        async def direct() -> bool:
            await client.infer("ranker", CONTEXT)
            return bool(_connections(urls))

        await wait_until(direct, "a call goes to a direct port")


async def test_a_timeout_may_be_an_hour(serving: Serving) -> None:
    async with AsyncClient(serving.url, timeout_s=3600.0) as client:
        assert (await client.health())["status"] == "ok"


async def test_a_call_that_times_out_does_not_affect_the_next_one(serving: Serving) -> None:
    async with AsyncClient(serving.url) as client:
        assert (await client.health())["status"] == "ok"
        with pytest.raises(DeadlineExceeded):
            await client.infer("ranker", CONTEXT, timeout_s=0.0001)
        assert len((await client.infer("ranker", CONTEXT)).ids) == len(PRODUCTS)


async def test_a_call_to_a_closed_port_is_unavailable(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    async with AsyncClient(f"http://127.0.0.1:{port}") as client:
        with pytest.raises(Unavailable, match=f"127.0.0.1:{port} can't be reached"):
            await client.health()
