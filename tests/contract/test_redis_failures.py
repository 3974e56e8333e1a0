"""Clusters that change while they serve, nodes and Sentinels that are away, keys of other kinds."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import count, islice
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import redis
from redis.crc import key_slot

from kirana.codecs import CODECS, Column, Status
from kirana.errors import Unavailable
from kirana.features import FeatureQuery
from kirana.features.fetch import store_keys
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite
from kirana.stores import FeatureStore, open_feature_store
from kirana.stores.breaker import FAILURES
from kirana.stores.redis_script import GUARDED_AT_ONCE
from tests.contract.redis_rows import NOW_MS, opened, row, until
from tests.redis_servers import RedisServers, ask, wait
from tests.support import Shop

BOUND_S = 20
"""Bounded, and no more than that: machines are slow."""

GROUP = "product.stats"
CODEC = CODECS["packed"]
PARTIAL = (
    *("--cluster-node-timeout", "1000", "--cluster-require-full-coverage", "no"),
    # a master that has lost its last slot stays one
    *("--cluster-allow-replica-migration", "no"),
)
SYNC_AT_ONCE = ("--repl-diskless-sync-delay", "0")
ON_DISK = ("--appendonly", "yes", "--appendfsync", "always")
SHORT = "socket_timeout=0.2&socket_connect_timeout=0.2"


@pytest.fixture
def own(tmp_path: Path) -> Iterator[RedisServers]:
    """Servers of one test, which may do to them what it likes."""
    with RedisServers(tmp_path) as started:
        yield started


def url_of(nodes: Sequence[int]) -> str:
    return "redis+cluster://" + ",".join(f"127.0.0.1:{port}" for port in nodes) + f"?{SHORT}"


def myself(node: int) -> dict[str, Any]:
    nodes = ask(node, "CLUSTER NODES").values()
    return next(each for each in nodes if "myself" in each["flags"])


def ids_on(node: int, number: int, form: str = "{}") -> list[str]:
    """Return products, by numbers in this form, whose rows a node of a cluster has."""
    slots = [range(int(first), int(last) + 1) for first, last in myself(node)["slots"]]
    ids = (form.format(each) for each in count())
    there = (id_ for id_ in ids if any(slot_of(id_) in each for each in slots))
    return [*islice(there, number)]


def slot_of(id_: str) -> int:
    (key,) = store_keys(GROUP, [id_])
    return int(key_slot(key))


def keys_on(node: int, number: int) -> list[bytes]:
    return store_keys(GROUP, ids_on(node, number))


class Move:
    """A slot of the first node on its way to another one, step by step as `redis-cli` does it."""

    def __init__(self, nodes: Sequence[int], target: int, slot: int) -> None:
        self._source, self._target, self._slot = nodes[0], target, str(slot)
        self._others = [node for node in nodes if node not in (self._source, target)]

    def begin(self) -> None:
        self._set(self._target, "IMPORTING", myself(self._source)["node_id"])
        self._set(self._source, "MIGRATING", myself(self._target)["node_id"])

    def carry(self, keys: Sequence[bytes]) -> None:
        to = ("127.0.0.1", self._target, "", 0, 5_000)
        assert ask(self._source, "MIGRATE", *to, "KEYS", *keys) == b"OK"

    def end(self) -> None:
        owner = myself(self._target)["node_id"]
        for node in (self._target, self._source, *self._others):
            self._set(node, "NODE", owner)

    def _set(self, node: int, *words: str) -> None:
        assert ask(node, "CLUSTER SETSLOT", self._slot, *words) in (True, b"OK")


async def write(store: FeatureStore, keys: Sequence[bytes], step: int) -> dict[bytes, bytes]:
    """Write a row a key, all of the time of a step; return them."""
    rows = {key: row(CODEC, f"{key!r} at {step}", NOW_MS + step) for key in keys}
    assert await store.put([*rows], [*rows.values()], CODEC) == len(rows)
    return rows


async def check(store: FeatureStore, rows: dict[bytes, bytes]) -> None:
    assert await store.get([*rows, b"none"]) == [*rows.values(), None]


@pytest.fixture(params=["a master", "a node that has just joined"])
def moving(own: RedisServers, request: pytest.FixtureRequest) -> tuple[list[int], int]:
    """A cluster, and the node that a slot of its first node moves to."""
    nodes = own.start_cluster(*PARTIAL)
    joins = request.param == "a node that has just joined"
    return nodes, own.join_cluster(nodes, *PARTIAL) if joins else nodes[1]


def keys_of_one_slot(node: int, number: int) -> list[bytes]:
    (id_,) = ids_on(node, 1, "{{{}}}")
    return store_keys(GROUP, [f"{id_}{at}" for at in range(number)])


async def test_a_slot_moves_while_it_is_read_and_written(moving: tuple[list[int], int]) -> None:
    nodes, target = moving
    keys = keys_of_one_slot(nodes[0], 12)
    staying = [key for node in nodes for key in keys_on(node, 3)]
    move = Move(nodes, target, key_slot(keys[0]))
    async with opened(url_of(nodes)) as store:
        rows = await write(store, [*keys[:8], *staying], 0)
        move.begin()
        await check(store, rows)
        # of a key that the source has not, the target is asked
        rows |= await write(store, [*keys[:10], *staying], 1)
        await check(store, rows)
        move.carry(keys[:4])
        await check(store, rows)
        assert await store.put(keys[:8], [row(CODEC, "older")] * 8, CODEC) == 0
        rows |= await write(store, [*keys, *staying], 2)
        await check(store, rows)
        move.carry(keys[4:8])
        move.end()
        await check(store, rows)
        assert await store.put(keys, [row(CODEC, "older")] * 12, CODEC) == 0
        rows |= await write(store, [*keys, *staying], 3)
        await check(store, rows)
    async with opened(url_of(nodes)) as other:
        await check(other, rows)
    assert ask(target, "CLUSTER COUNTKEYSINSLOT", key_slot(keys[0])) == len(keys)


async def test_many_callers_at_once_while_a_slot_moves(moving: tuple[list[int], int]) -> None:
    nodes, target = moving
    keys = keys_of_one_slot(nodes[0], 40)
    move = Move(nodes, target, key_slot(keys[0]))
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        move.begin()
        move.carry(keys[::2])
        await asyncio.gather(*(check(store, {key: rows[key]}) for key in keys))
        for each in await asyncio.gather(*(write(store, [key], 1) for key in keys)):
            rows |= each
        await asyncio.gather(*(check(store, rows) for _ in range(10)))


async def test_nothing_is_kept_open_to_a_node_that_has_no_slots_any_more(
    own: RedisServers,
) -> None:
    nodes = own.start_cluster(*PARTIAL)
    joined = own.join_cluster(nodes, *PARTIAL)
    keys = keys_of_one_slot(nodes[0], 2)
    slot = key_slot(keys[0])
    there = Move(nodes, joined, slot)
    there.begin()
    there.end()
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        await check(store, rows)
        reading = clients_of(joined, "get")
        assert len(reading) == 1
        back = Move([joined, *nodes], nodes[0], slot)
        back.begin()
        back.carry(keys)
        back.end()
        await check(store, rows)
        await check(store, rows)
        wait(lambda: not reading & clients_of(joined), "the connection is closed")


def clients_of(node: int, last: str = "") -> set[str]:
    """Return the ids of a node's connections, those whose last command was this."""
    return {each["id"] for each in ask(node, "CLIENT LIST") if each["cmd"].startswith(last)}


@asynccontextmanager
async def service_over(url: str, shop: Shop) -> AsyncIterator[FeatureService]:
    """A feature service whose clock stands still."""
    service = FeatureService(open_feature_store(url), shop.source, clock=lambda: NOW_MS / 1000)
    try:
        yield service
    finally:
        await service.close()


async def write_clicks(service: FeatureService, shop: Shop, ids: Sequence[str]) -> int:
    """Write a row a product; clicks are its place."""
    numbers = np.arange(len(ids), dtype=np.int32)
    columns = {"clicks": Column(numbers), "ctr": Column(numbers.astype(np.float32))}
    times = np.full(len(ids), NOW_MS, dtype=np.uint64)
    return await service.write(FeatureWrite(GROUP, ids, columns, times), shop.revision)


async def clicks(
    service: FeatureService, shop: Shop, ids: Sequence[str]
) -> list[tuple[Status, int]]:
    query = FeatureQuery("product", ids, columns=("stats.clicks",))
    async with asyncio.timeout(BOUND_S):
        (rows,) = await service.read([query], shop.revision)
    numbers = rows.columns["stats.clicks"].values.tolist()
    return [*zip(map(Status, rows.status["stats"].tolist()), numbers, strict=True)]


async def test_rows_of_living_nodes_are_served_while_another_one_is_away(
    own: RedisServers, shop: Shop
) -> None:
    nodes = own.start_cluster(*PARTIAL, *ON_DISK)
    ids = [each for node in nodes for each in ids_on(node, 2)]
    stored = [(Status.OK, at) for at in range(6)]
    async with service_over(url_of(nodes), shop) as service:
        await write_clicks(service, shop, ids)
        assert await clicks(service, shop, ids) == stored
        own.kill(nodes[1])
        for _ in range(FAILURES + 1):
            away = [(Status.UNAVAILABLE, 0)] * 2
            assert await clicks(service, shop, ids) == [*stored[:2], *away, *stored[4:]]


async def test_a_node_that_is_away_takes_no_reads_from_the_others(own: RedisServers) -> None:
    nodes = own.start_cluster(*PARTIAL)
    living, dead = [*keys_on(nodes[0], 3), *keys_on(nodes[2], 3)], keys_on(nodes[1], 3)
    async with opened(url_of(nodes)) as store:
        rows = await write(store, living, 0)
        await write(store, dead, 0)
        await check(store, rows)
        own.kill(nodes[1])
        async with asyncio.timeout(BOUND_S):
            for _ in range(FAILURES):
                with pytest.raises(Unavailable):
                    await store.get(dead)
            assert await store.get(living) == [*rows.values()]


async def test_callers_at_once_hear_what_is_wrong_when_a_node_dies(own: RedisServers) -> None:
    nodes = own.start_cluster(*PARTIAL)
    keys = [key for node in nodes for key in keys_on(node, 20)]
    async with opened(url_of(nodes)) as store:
        await write(store, keys, 0)
        under_way = [
            asyncio.create_task(call)
            for at in range(len(keys))
            for call in (store.get(keys[at:]), write(store, [keys[at]], 1))
        ]
        await asyncio.sleep(0)
        own.kill(nodes[1])
        async with asyncio.timeout(BOUND_S):
            said = await asyncio.gather(*under_way, return_exceptions=True)
    assert [each for each in said if not isinstance(each, list | dict | Unavailable)] == []


async def test_only_keys_of_living_nodes_are_read_and_written_as_ever(own: RedisServers) -> None:
    nodes = own.start_cluster(*PARTIAL)
    keys = [*keys_on(nodes[0], 3), *keys_on(nodes[2], 3)]
    async with opened(url_of(nodes)) as store:
        await write(store, keys, 0)
        own.kill(nodes[1])
        async with asyncio.timeout(BOUND_S):
            for step in range(1, FAILURES + 2):
                rows = await write(store, keys, step)
                assert await store.get(keys) == [*rows.values()]
    async with opened(url_of(nodes)) as fresh, asyncio.timeout(BOUND_S):
        assert await fresh.get(keys) == [*rows.values()]


async def test_a_node_that_comes_back_is_found_by_who_has_known_it(own: RedisServers) -> None:
    nodes = own.start_cluster(*PARTIAL, *ON_DISK)
    keys = [key for node in nodes for key in keys_on(node, 3)]
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        own.kill(nodes[1])
        for _ in range(FAILURES + 1):
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(Unavailable):
                    await store.get(keys_on(nodes[0], 1) + keys[3:6])
        own.revive(nodes[1])
        await until(lambda: store.get(keys), "it answers again")
        await check(store, rows)
        await until(lambda: write(store, keys, 1), "it takes writes again")
        await check(store, await write(store, keys, 2))


async def test_a_cluster_that_serves_nobody_is_unavailable_until_it_serves_again(
    own: RedisServers,
) -> None:
    """It wants all slots covered, which is its default: with one node all are down."""
    nodes = own.start_cluster("--cluster-node-timeout", "1000", *ON_DISK)
    keys = [key for node in nodes for key in keys_on(node, 2)]
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        own.kill(nodes[1])
        down = lambda: ask(nodes[0], "CLUSTER INFO")["cluster_state"] == "fail"  # noqa: E731
        wait(down, "the others have noticed")
        for _ in range(2 * FAILURES):
            with pytest.raises(Unavailable):
                await store.get(keys[:2])
        assert store.health()["breaker"]["state"] == "open"
        assert f"127.0.0.1:{nodes[0]}" in store.health()["away"]
        own.revive(nodes[1])
        await until(lambda: store.get(keys), "it answers again")
        await check(store, rows)
        assert store.health()["breaker"]["state"] == "closed"
        assert "away" not in store.health()


async def test_health_of_a_cluster_names_the_nodes_that_are_away(
    own: RedisServers, shop: Shop
) -> None:
    nodes = own.start_cluster(*PARTIAL)
    async with service_over(url_of(nodes), shop) as service:
        assert (await service.health())["answers"]
        own.kill(nodes[1])
        for _ in range(FAILURES):
            found = await service.health()
        assert found["answers"]
        assert found["away"] == [f"127.0.0.1:{nodes[1]}"]
        for node in (nodes[0], nodes[2]):
            own.kill(node)
        assert not (await service.health())["answers"]


async def test_a_closed_store_of_a_cluster_stays_closed(own: RedisServers) -> None:
    nodes = own.start_cluster()
    used, unused = (open_feature_store(url_of(nodes)) for _ in range(2))
    await used.get(keys_on(nodes[0], 1))
    for store in (used, unused):
        await store.close()
        with pytest.raises(Unavailable, match="closed"):
            await store.get([b"1"])


async def test_a_script_that_may_not_be_loaded_is_a_refusal(own: RedisServers) -> None:
    nodes = own.start_cluster()
    for node in nodes:
        ask(node, "ACL SETUSER", "default", "-script")
    async with opened(url_of(nodes)) as store:
        with pytest.raises(Unavailable, match=r"refuses: .*(NOPERM|permission)"):
            await store.put([b"1"], [row(CODEC, "a", NOW_MS)], CODEC)


async def test_a_replica_takes_over(own: RedisServers) -> None:
    nodes = own.start_cluster(*PARTIAL, *SYNC_AT_ONCE)
    replica = own.join_cluster(nodes, *PARTIAL, *SYNC_AT_ONCE)
    keys = [key for node in nodes for key in keys_on(node, 3)]
    ask(replica, "CLUSTER REPLICATE", myself(nodes[1])["node_id"])
    wait(lambda: _info(replica).get("master_link_status") == "up", "the replica follows")
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        await check(store, rows)
        acknowledged = _info(nodes[1])["master_repl_offset"]
        wait(lambda: _info(replica)["slave_repl_offset"] >= acknowledged, "it is replicated")
        own.kill(nodes[1])
        take_over(replica, nodes[0], nodes[2])
        await until(lambda: store.get(keys), "it answers again")
        await check(store, rows)
        await until(lambda: write(store, keys, 1), "it takes writes again")
        rows = await write(store, keys, 2)
        await check(store, rows)
        # the old master is a replica now, and takes over again while all are alive
        own.revive(nodes[1])
        wait(lambda: _info(nodes[1]).get("master_link_status") == "up", "the old master follows")
        take_over(nodes[1], replica, nodes[0], nodes[2])
        await until(lambda: store.get(keys), "it answers again")
        await check(store, rows)
        await until(lambda: write(store, keys, 3), "it takes writes again")
        await check(store, await write(store, keys, 4))


@pytest.mark.parametrize("first", ["a read", "a write"])
async def test_a_replica_takes_over_from_a_master_that_is_frozen(
    own: RedisServers, first: str
) -> None:
    nodes = own.start_cluster(*PARTIAL, *SYNC_AT_ONCE)
    replica = own.join_cluster(nodes, *PARTIAL, *SYNC_AT_ONCE)
    keys = [key for node in nodes for key in keys_on(node, 3)]
    ask(replica, "CLUSTER REPLICATE", myself(nodes[1])["node_id"])
    wait(lambda: _info(replica).get("master_link_status") == "up", "the replica follows")
    async with opened(url_of(nodes)) as store:
        await check(store, await write(store, keys, 0))
        with frozen(own, nodes[1]):
            take_over(replica, nodes[0], nodes[2])
            if first == "a read":
                await until(lambda: store.get(keys), "the replica is found")
            else:
                await until(lambda: write(store, keys, 1), "the replica is found")
            rows = await write(store, keys, 2)
            await check(store, rows)
        await check(store, rows)


def take_over(node: int, *others: int) -> None:
    """Make a replica the master at once, and wait until the others know of it."""
    ask(node, "CLUSTER FAILOVER", "TAKEOVER")
    slots = myself(node)["slots"]
    assert slots
    wait(lambda: all(slots_of(node, each) == slots for each in others), "the others know of it")


def slots_of(node: int, asked: int) -> list[list[str]]:
    """Return the slots that a node has as another one knows it."""
    found: list[list[str]] = ask(asked, "CLUSTER NODES")[f"127.0.0.1:{node}"]["slots"]
    return found


def _info(node: int) -> dict[str, Any]:
    found: dict[str, Any] = ask(node, "INFO", "replication")
    return found


@contextmanager
def frozen(servers: RedisServers, port: int) -> Iterator[None]:
    servers.process(port).send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        servers.process(port).send_signal(signal.SIGCONT)


@pytest.mark.parametrize("away", ["frozen", "dead"])
async def test_a_store_opens_while_the_first_sentinel_is_away(own: RedisServers, away: str) -> None:
    url = f"{own.empty('sentinel')}?{SHORT}"
    async with opened(url) as store:
        rows = await write(store, [b"a", b"b"], 0)
        first = own.sentinels[0]
        if away == "dead":
            own.kill(first)
            await check_anew(url, rows)
            await check(store, rows)
        else:
            with frozen(own, first):
                await check_anew(url, rows)
                await check(store, rows)


async def check_anew(url: str, rows: dict[bytes, bytes]) -> None:
    async with opened(url) as store, asyncio.timeout(BOUND_S):
        await check(store, rows)
        await write(store, [b"other"], 0)


async def test_a_master_that_is_frozen_is_replaced_until_it_is_back(
    own: RedisServers,
) -> None:
    async with opened(f"{own.empty('sentinel')}?{SHORT}") as store:
        rows = await write(store, [b"a", b"b"], 0)
        await check(store, rows)
        old = own.master()
        sent = _info(old)["master_repl_offset"]
        wait(lambda: _info(old)["slave0"]["offset"] >= sent, "it is replicated")
        with frozen(own, old):
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(Unavailable):
                    await store.get([b"a"])
            await until(lambda: store.get([b"a"]), "a new master is read")
            assert own.master() != old
            await check(store, rows)
            await until(lambda: write(store, [b"a", b"b"], 1), "a new master is written")
            rows = await write(store, [b"a", b"b"], 2)
            await check(store, rows)
        # it takes itself for the master until a Sentinel tells it otherwise, some seconds later
        await check(store, rows)
        await check(store, await write(store, [b"a", b"b"], 3))


async def test_a_key_of_another_type_is_one_row_that_is_not_there(
    own: RedisServers, shop: Shop
) -> None:
    port = own.start()
    ids = ["1", "2", "3", "4"]
    async with service_over(f"redis://127.0.0.1:{port}", shop) as service:
        await write_clicks(service, shop, ids)
        keys = store_keys(GROUP, ids)
        ask(port, "DEL", keys[1])
        ask(port, "RPUSH", keys[1], "x")
        ask(port, "SET", keys[2], "no row")
        assert await clicks(service, shop, ids) == [
            (Status.OK, 0),
            (Status.MISSING, 0),
            (Status.CORRUPT, 0),
            (Status.OK, 3),
        ]


@pytest.mark.parametrize("kind", ["redis 6.2", "redis 7", "redis cluster"])
async def test_a_key_of_another_type_is_replaced_by_the_row_that_is_written(
    servers: RedisServers, kind: str
) -> None:
    """What is no row is replaced, whatever it is; other rows of the call are written too."""
    url = servers.empty(kind)
    keys = store_keys(GROUP, [str(at) for at in range(GUARDED_AT_ONCE + 10)])
    foreign = {keys[3]: "RPUSH", keys[GUARDED_AT_ONCE + 3]: "SADD", keys[5]: "APPEND"}
    with client_of(url) as client:
        for key, command in foreign.items():
            client.execute_command(command, key, "x")
    async with opened(url) as store:
        await check(store, await write(store, keys, 0))
        assert await store.put(keys, [row(CODEC, "older", NOW_MS - 1)] * len(keys), CODEC) == 0


def client_of(url: str) -> redis.Redis | redis.RedisCluster:
    if url.startswith("redis+cluster"):
        first = urlsplit(url.partition(",")[0])
        return redis.RedisCluster(host="127.0.0.1", port=first.port or 0)
    return redis.Redis.from_url(url)
