"""Cluster nodes that die, freeze, come back or are replaced."""

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
from tests.contract.redis_rows import NOW_MS, opened, row, until_available
from tests.redis_servers import RedisServers, execute, wait
from tests.store_calls import read_values, write_rows
from tests.support import Shop


async def test_rows_of_living_nodes_are_served_while_another_node_is_dead(
    own: RedisServers, shop: Shop
) -> None:
    nodes = own.start_cluster(*PARTIAL, *ON_DISK)
    ids = [id_ for node in nodes for id_ in ids_on(node, 2)]
    stored = [(Status.OK, i) for i in range(6)]
    async with service_over(url_of(nodes), shop) as service:
        await write_clicks(service, shop, ids)
        assert await clicks(service, shop, ids) == stored
        own.kill(nodes[1])
        for _ in range(MAX_FAILURES + 1):
            unavailable = [(Status.UNAVAILABLE, 0)] * 2
            assert await clicks(service, shop, ids) == [*stored[:2], *unavailable, *stored[4:]]


async def test_a_dead_node_does_not_affect_reads_from_the_others(own: RedisServers) -> None:
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


async def test_concurrent_callers_get_results_or_unavailable_when_a_node_dies(
    own: RedisServers,
) -> None:
    nodes = own.start_cluster(*PARTIAL)
    keys = [key for node in nodes for key in keys_on(node, 20)]
    async with opened(url_of(nodes)) as store:
        await write(store, keys, 0)
        calls = [
            asyncio.create_task(call)
            for i in range(len(keys))
            for call in (read_values(store, keys[i:]), write(store, [keys[i]], 1))
        ]
        await asyncio.sleep(0)
        own.kill(nodes[1])
        async with asyncio.timeout(BOUND_S):
            results = await asyncio.gather(*calls, return_exceptions=True)
    assert [result for result in results if not isinstance(result, list | dict | Unavailable)] == []


async def test_keys_of_living_nodes_are_read_and_written_while_another_is_dead(
    own: RedisServers,
) -> None:
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


async def test_an_open_store_uses_a_node_again_when_it_is_back(own: RedisServers) -> None:
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
        await until_available(lambda: read_values(store, keys), "the cluster answers again")
        await check(store, rows)
        await until_available(lambda: write(store, keys, 1), "the cluster takes writes again")
        await check(store, await write(store, keys, 2))


async def test_a_cluster_that_is_down_is_unavailable_until_it_serves_again(
    own: RedisServers,
) -> None:
    """By default, Redis stops serving the whole cluster if one slot has no node."""
    nodes = own.start_cluster("--cluster-node-timeout", "1000", *ON_DISK)
    keys = [key for node in nodes for key in keys_on(node, 2)]
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        own.kill(nodes[1])
        is_down = lambda: execute(nodes[0], "CLUSTER INFO")["cluster_state"] == "fail"  # noqa: E731
        wait(is_down, "the other nodes have noticed")
        for _ in range(2 * MAX_FAILURES):
            with pytest.raises(Unavailable):
                await read_values(store, keys[:2])
        assert store.health()["breaker"]["state"] == "open"
        assert f"127.0.0.1:{nodes[0]}" in store.health()["away"]
        own.revive(nodes[1])
        await until_available(lambda: read_values(store, keys), "the cluster answers again")
        await check(store, rows)
        assert store.health()["breaker"]["state"] == "closed"
        assert "away" not in store.health()


async def test_health_of_a_cluster_names_the_nodes_that_do_not_answer(
    own: RedisServers, shop: Shop
) -> None:
    nodes = own.start_cluster(*PARTIAL)
    async with service_over(url_of(nodes), shop) as service:
        assert (await service.health(shop.revision)).reason is None
        own.kill(nodes[1])
        for _ in range(MAX_FAILURES):
            health = await service.health(shop.revision)
        assert health.reason is None
        assert health.details["away"] == [f"127.0.0.1:{nodes[1]}"]
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


async def test_a_write_is_an_error_if_the_script_may_not_be_loaded(own: RedisServers) -> None:
    nodes = own.start_cluster()
    for node in nodes:
        execute(node, "ACL SETUSER", "default", "-script")
    async with opened(url_of(nodes)) as store:
        with pytest.raises(Unavailable, match=r"refused the command: .*(NOPERM|permission)"):
            await write_rows(store, [b"1"], [row(CODEC, "a", NOW_MS)], CODEC)


async def test_a_store_follows_a_replica_that_takes_over(own: RedisServers) -> None:
    nodes, replica = followed_cluster(own)
    keys = [key for node in nodes for key in keys_on(node, 3)]
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        await check(store, rows)
        offset = replication(nodes[1])["master_repl_offset"]
        wait(lambda: replication(replica)["slave_repl_offset"] >= offset, "the rows are replicated")
        own.kill(nodes[1])
        take_over(replica, nodes[0], nodes[2])
        await until_available(lambda: read_values(store, keys), "the cluster answers again")
        await check(store, rows)
        await until_available(lambda: write(store, keys, 1), "the cluster takes writes again")
        rows = await write(store, keys, 2)
        await check(store, rows)
        # The old master comes back as a replica, and takes over again while all nodes are alive.
        own.revive(nodes[1])
        wait(
            lambda: replication(nodes[1]).get("master_link_status") == "up",
            "the old master follows",
        )
        take_over(nodes[1], replica, nodes[0], nodes[2])
        await until_available(lambda: read_values(store, keys), "the cluster answers again")
        await check(store, rows)
        await until_available(lambda: write(store, keys, 3), "the cluster takes writes again")
        await check(store, await write(store, keys, 4))


@pytest.mark.parametrize("first", ["a read", "a write"])
async def test_a_store_follows_a_replica_that_takes_over_from_a_frozen_master(
    own: RedisServers, first: str
) -> None:
    nodes, replica = followed_cluster(own)
    keys = [key for node in nodes for key in keys_on(node, 3)]
    async with opened(url_of(nodes)) as store:
        await check(store, await write(store, keys, 0))
        with frozen(own, nodes[1]):
            take_over(replica, nodes[0], nodes[2])
            if first == "a read":
                await until_available(lambda: read_values(store, keys), "the replica is found")
            else:
                await until_available(lambda: write(store, keys, 1), "the replica is found")
            rows = await write(store, keys, 2)
            await check(store, rows)
        await check(store, rows)


def followed_cluster(own: RedisServers) -> tuple[list[int], int]:
    """Start a cluster, and return its masters and a replica that follows the second one."""
    nodes = own.start_cluster(*PARTIAL, *SYNC_AT_ONCE)
    replica = own.join_cluster(nodes, *PARTIAL, *SYNC_AT_ONCE)
    execute(replica, "CLUSTER REPLICATE", myself(nodes[1])["node_id"])
    wait(lambda: replication(replica).get("master_link_status") == "up", "the replica follows")
    return nodes, replica


def take_over(node: int, *others: int) -> None:
    """Make the replica `node` a master at once, and wait until the nodes `others` know it."""
    execute(node, "CLUSTER FAILOVER", "TAKEOVER")
    slots = myself(node)["slots"]
    assert slots
    wait(
        lambda: all(slots_of(node, other) == slots for other in others),
        "the other nodes know the new master",
    )


def slots_of(node: int, other: int) -> list[list[str]]:
    """Return the slots that `node` has according to the node `other`."""
    slots: list[list[str]] = execute(other, "CLUSTER NODES")[f"127.0.0.1:{node}"]["slots"]
    return slots
