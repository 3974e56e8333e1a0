"""Slots of a cluster that move between nodes while their keys are read and written."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from redis.crc import key_slot

from kirana.stores import RowKeys
from kirana.stores.row_keys import row_keys
from tests.contract.cluster_nodes import (
    CODEC,
    GROUP,
    PARTIAL,
    check,
    ids_on,
    keys_on,
    myself,
    url_of,
    write,
)
from tests.contract.redis_rows import opened, row
from tests.redis_servers import RedisServers, execute, wait
from tests.store_calls import write_rows


class Move:
    """The move of a slot from the first of `nodes` to `target`, in the steps of `redis-cli`."""

    def __init__(self, nodes: Sequence[int], target: int, slot: int) -> None:
        self._source, self._target, self._slot = nodes[0], target, str(slot)
        self._other_nodes = [node for node in nodes if node not in (self._source, target)]

    def begin(self) -> None:
        self._set(self._target, "IMPORTING", myself(self._source)["node_id"])
        self._set(self._source, "MIGRATING", myself(self._target)["node_id"])

    def migrate(self, keys: Sequence[bytes]) -> None:
        destination = ("127.0.0.1", self._target, "", 0, 5_000)
        assert execute(self._source, "MIGRATE", *destination, "KEYS", *keys) == b"OK"

    def end(self) -> None:
        owner = myself(self._target)["node_id"]
        for node in (self._target, self._source, *self._other_nodes):
            self._set(node, "NODE", owner)

    def _set(self, node: int, *words: str) -> None:
        assert execute(node, "CLUSTER SETSLOT", self._slot, *words) in (True, b"OK")


@pytest.fixture(params=["a master", "a node that has just joined"])
def moving(own: RedisServers, request: pytest.FixtureRequest) -> tuple[list[int], int]:
    """Return the nodes of a cluster, and the node to which a slot of the first one moves."""
    nodes = own.start_cluster(*PARTIAL)
    joins = request.param == "a node that has just joined"
    return nodes, own.join_cluster(nodes, *PARTIAL) if joins else nodes[1]


def keys_of_one_slot(node: int, number: int) -> list[bytes]:
    # The braces make the id a hash tag, so that all keys have its slot.
    (id_,) = ids_on(node, 1, "{{{}}}")
    return row_keys(RowKeys(GROUP, [f"{id_}{i}" for i in range(number)]))


async def test_a_slot_moves_while_it_is_read_and_written(moving: tuple[list[int], int]) -> None:
    nodes, target = moving
    keys = keys_of_one_slot(nodes[0], 12)
    staying = [key for node in nodes for key in keys_on(node, 3)]
    move = Move(nodes, target, key_slot(keys[0]))
    async with opened(url_of(nodes)) as store:
        rows = await write(store, [*keys[:8], *staying], 0)
        move.begin()
        await check(store, rows)
        # The target node serves the keys that the source node does not have.
        rows |= await write(store, [*keys[:10], *staying], 1)
        await check(store, rows)
        move.migrate(keys[:4])
        await check(store, rows)
        assert await write_rows(store, keys[:8], [row(CODEC, "older")] * 8, CODEC) == 0
        rows |= await write(store, [*keys, *staying], 2)
        await check(store, rows)
        move.migrate(keys[4:8])
        move.end()
        await check(store, rows)
        assert await write_rows(store, keys, [row(CODEC, "older")] * 12, CODEC) == 0
        rows |= await write(store, [*keys, *staying], 3)
        await check(store, rows)
    async with opened(url_of(nodes)) as other:
        await check(other, rows)
    assert execute(target, "CLUSTER COUNTKEYSINSLOT", key_slot(keys[0])) == len(keys)


async def test_concurrent_callers_are_served_while_a_slot_moves(
    moving: tuple[list[int], int],
) -> None:
    nodes, target = moving
    keys = keys_of_one_slot(nodes[0], 40)
    move = Move(nodes, target, key_slot(keys[0]))
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        move.begin()
        move.migrate(keys[::2])
        await asyncio.gather(*(check(store, {key: rows[key]}) for key in keys))
        for written in await asyncio.gather(*(write(store, [key], 1) for key in keys)):
            rows |= written
        await asyncio.gather(*(check(store, rows) for _ in range(10)))


async def test_connections_to_a_node_without_slots_are_closed(
    own: RedisServers,
) -> None:
    nodes = own.start_cluster(*PARTIAL)
    joined = own.join_cluster(nodes, *PARTIAL)
    keys = keys_of_one_slot(nodes[0], 2)
    slot = key_slot(keys[0])
    to_joined = Move(nodes, joined, slot)
    to_joined.begin()
    to_joined.end()
    async with opened(url_of(nodes)) as store:
        rows = await write(store, keys, 0)
        await check(store, rows)
        readers = clients_of(joined, "get")
        assert len(readers) == 1
        to_first = Move([joined, *nodes], nodes[0], slot)
        to_first.begin()
        to_first.migrate(keys)
        to_first.end()
        await check(store, rows)
        await check(store, rows)
        wait(lambda: not readers & clients_of(joined), "the connection is closed")


def clients_of(node: int, last: str = "") -> set[str]:
    """Return the ids of a node's connections whose last command starts with `last`."""
    return {
        client["id"] for client in execute(node, "CLIENT LIST") if client["cmd"].startswith(last)
    }
