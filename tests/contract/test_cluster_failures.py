"""Nodes of a cluster that die, freeze, come back and are replaced: only their rows are away."""

from __future__ import annotations

import asyncio

import pytest

from kirana.breaker import MAX_FAILURES
from kirana.codecs import Status
from kirana.errors import Unavailable
from kirana.stores import open_feature_store
from tests.contract.cluster_nodes import (
    BOUND_S,
    CODEC,
    ON_DISK,
    PARTIAL,
    SYNC_AT_ONCE,
    check,
    clicks,
    frozen,
    ids_on,
    keys_on,
    myself,
    replication,
    service_over,
    url_of,
    write,
    write_clicks,
)
from tests.contract.redis_rows import NOW_MS, available, opened, row
from tests.redis_servers import RedisServers, ask, wait
from tests.store_calls import read_values, write_rows
from tests.support import Shop


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
        for _ in range(MAX_FAILURES + 1):
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
            for _ in range(MAX_FAILURES):
                with pytest.raises(Unavailable):
                    await read_values(store, dead)
            assert await read_values(store, living) == [*rows.values()]


async def test_callers_at_once_hear_what_is_wrong_when_a_node_dies(own: RedisServers) -> None:
    nodes = own.start_cluster(*PARTIAL)
    keys = [key for node in nodes for key in keys_on(node, 20)]
    async with opened(url_of(nodes)) as store:
        await write(store, keys, 0)
        under_way = [
            asyncio.create_task(call)
            for at in range(len(keys))
            for call in (read_values(store, keys[at:]), write(store, [keys[at]], 1))
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
            for step in range(1, MAX_FAILURES + 2):
                rows = await write(store, keys, step)
                assert await read_values(store, keys) == [*rows.values()]
    async with opened(url_of(nodes)) as fresh, asyncio.timeout(BOUND_S):
        assert await read_values(fresh, keys) == [*rows.values()]


async def test_a_node_that_comes_back_is_found_by_who_has_known_it(own: RedisServers) -> None:
    nodes = own.start_cluster(*PARTIAL, *ON_DISK)
    keys = [key for node in nodes for key in keys_on(node, 3)]
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        own.kill(nodes[1])
        for _ in range(MAX_FAILURES + 1):
            async with asyncio.timeout(BOUND_S):
                with pytest.raises(Unavailable):
                    await read_values(store, keys_on(nodes[0], 1) + keys[3:6])
        own.revive(nodes[1])
        await available(lambda: read_values(store, keys), "it answers again")
        await check(store, rows)
        await available(lambda: write(store, keys, 1), "it takes writes again")
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
        for _ in range(2 * MAX_FAILURES):
            with pytest.raises(Unavailable):
                await read_values(store, keys[:2])
        assert store.health()["breaker"]["state"] == "open"
        assert f"127.0.0.1:{nodes[0]}" in store.health()["away"]
        own.revive(nodes[1])
        await available(lambda: read_values(store, keys), "it answers again")
        await check(store, rows)
        assert store.health()["breaker"]["state"] == "closed"
        assert "away" not in store.health()


async def test_health_of_a_cluster_names_the_nodes_that_are_away(
    own: RedisServers, shop: Shop
) -> None:
    nodes = own.start_cluster(*PARTIAL)
    async with service_over(url_of(nodes), shop) as service:
        assert (await service.health(shop.revision)).reason is None
        own.kill(nodes[1])
        for _ in range(MAX_FAILURES):
            found = await service.health(shop.revision)
        assert found.reason is None
        assert found.told["away"] == [f"127.0.0.1:{nodes[1]}"]
        for node in (nodes[0], nodes[2]):
            own.kill(node)
        assert (await service.health(shop.revision)).reason is not None


async def test_a_closed_store_of_a_cluster_stays_closed(own: RedisServers) -> None:
    nodes = own.start_cluster()
    used, unused = (open_feature_store(url_of(nodes)) for _ in range(2))
    await read_values(used, keys_on(nodes[0], 1))
    for store in (used, unused):
        await store.close()
        with pytest.raises(Unavailable, match="closed"):
            await read_values(store, [b"1"])


async def test_a_script_that_may_not_be_loaded_is_a_refusal(own: RedisServers) -> None:
    nodes = own.start_cluster()
    for node in nodes:
        ask(node, "ACL SETUSER", "default", "-script")
    async with opened(url_of(nodes)) as store:
        with pytest.raises(Unavailable, match=r"refuses: .*(NOPERM|permission)"):
            await write_rows(store, [b"1"], [row(CODEC, "a", NOW_MS)], CODEC)


async def test_a_replica_takes_over(own: RedisServers) -> None:
    nodes, replica = followed_cluster(own)
    keys = [key for node in nodes for key in keys_on(node, 3)]
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        await check(store, rows)
        acknowledged = replication(nodes[1])["master_repl_offset"]
        wait(lambda: replication(replica)["slave_repl_offset"] >= acknowledged, "it is replicated")
        own.kill(nodes[1])
        take_over(replica, nodes[0], nodes[2])
        await available(lambda: read_values(store, keys), "it answers again")
        await check(store, rows)
        await available(lambda: write(store, keys, 1), "it takes writes again")
        rows = await write(store, keys, 2)
        await check(store, rows)
        # the old master is a replica now, and takes over again while all are alive
        own.revive(nodes[1])
        wait(
            lambda: replication(nodes[1]).get("master_link_status") == "up",
            "the old master follows",
        )
        take_over(nodes[1], replica, nodes[0], nodes[2])
        await available(lambda: read_values(store, keys), "it answers again")
        await check(store, rows)
        await available(lambda: write(store, keys, 3), "it takes writes again")
        await check(store, await write(store, keys, 4))


@pytest.mark.parametrize("first", ["a read", "a write"])
async def test_a_replica_takes_over_from_a_master_that_is_frozen(
    own: RedisServers, first: str
) -> None:
    nodes, replica = followed_cluster(own)
    keys = [key for node in nodes for key in keys_on(node, 3)]
    async with opened(url_of(nodes)) as store:
        await check(store, await write(store, keys, 0))
        with frozen(own, nodes[1]):
            take_over(replica, nodes[0], nodes[2])
            if first == "a read":
                await available(lambda: read_values(store, keys), "the replica is found")
            else:
                await available(lambda: write(store, keys, 1), "the replica is found")
            rows = await write(store, keys, 2)
            await check(store, rows)
        await check(store, rows)


def followed_cluster(own: RedisServers) -> tuple[list[int], int]:
    """Start a cluster; return its masters, and a replica that follows the second."""
    nodes = own.start_cluster(*PARTIAL, *SYNC_AT_ONCE)
    replica = own.join_cluster(nodes, *PARTIAL, *SYNC_AT_ONCE)
    ask(replica, "CLUSTER REPLICATE", myself(nodes[1])["node_id"])
    wait(lambda: replication(replica).get("master_link_status") == "up", "the replica follows")
    return nodes, replica


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
