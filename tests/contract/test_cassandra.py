"""Feature rows in a real Cassandra: what differs from other stores, its tables, and failures."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator

import pytest

from kirana.cassandra.url import CassandraUrl
from kirana.codecs import CODECS
from kirana.errors import Unavailable
from kirana.stores import RowBlock, RowKeys, Written
from kirana.stores.cassandra import CassandraFeatureStore
from kirana.stores.cassandra_tables import CassandraTables
from tests.cassandra_server import KEYSPACE, CassandraServer
from tests.contract.test_feature_store import value
from tests.store_calls import read_values, write_rows
from tests.waiting import wait_until

CODEC = CODECS["packed"]
TEXT = CODECS["text"]
PATIENT = "timeout=30"


@pytest.fixture
async def store(cassandra: CassandraServer) -> AsyncIterator[CassandraFeatureStore]:
    opened = CassandraFeatureStore.open(f"{cassandra.empty()}?{PATIENT}", setting="features")
    yield opened
    await opened.close()


async def test_a_write_does_not_say_whether_rows_were_stale(store: CassandraFeatureStore) -> None:
    block = RowBlock.of("product.g", CODEC, ["a", "b"], [value(5), value(5)])
    assert await store.write(block) == Written(0, unknown=2)
    assert await store.load(block) == Written(0, unknown=2)


async def test_of_two_rows_of_one_time_the_greater_bytes_stay(store: CassandraFeatureStore) -> None:
    for text in ("b", "c", "a"):
        await write_rows(store, [b"a"], [value(5, text)], CODEC)
    assert await read_values(store, [b"a"]) == [value(5, "c")]


async def test_a_removed_row_hides_older_rows_but_no_newer_ones(
    store: CassandraFeatureStore,
) -> None:
    await write_rows(store, [b"a"], [value(5)], CODEC)
    assert await store.remove(RowKeys("product.g", ["a"])) == 1
    await write_rows(store, [b"a"], [value(5, "same")], CODEC)
    assert await read_values(store, [b"a"]) == [None]
    await write_rows(store, [b"a"], [value(6, "newer")], CODEC)
    assert await read_values(store, [b"a"]) == [value(6, "newer")]


async def test_a_row_has_its_event_time_and_is_kept_for_a_while_after_its_expiry(
    store: CassandraFeatureStore, cassandra: CassandraServer
) -> None:
    now_s = int(time.time())
    event_ms = now_s * 1_000 + 7
    row = f"1;{now_s + 1_000};1;{event_ms};57218f65".encode()
    await write_rows(store, [b"a", b"b"], [row, f"1;0;1;{event_ms}".encode()], TEXT)
    columns = 'key, "group", WRITETIME(value), TTL(value)'
    rows = cassandra.execute(f"SELECT {columns} FROM {KEYSPACE}.product")
    (expiring, for_ever) = sorted(rows)
    assert expiring[:3] == ("a", "g", event_ms * 1_000)
    # A tenth of the TTL of 1,000 s, and a margin for a slow machine.
    assert 1_000 < expiring[3] <= 1_100
    assert tuple(for_ever) == ("b", "g", event_ms * 1_000, None)


async def test_a_row_that_expired_long_ago_still_replaces_an_older_one(
    store: CassandraFeatureStore,
) -> None:
    old, expired = b"1;0;1;4", b"2;10;1;5"
    await write_rows(store, [b"a"], [old], TEXT)
    await write_rows(store, [b"a"], [expired], TEXT)

    async def gone() -> bool:
        return list(await read_values(store, [b"a"])) == [None]

    await wait_until(gone)


async def test_without_a_table_the_error_names_the_command(store: CassandraFeatureStore) -> None:
    (rows,) = await store.read([RowKeys("unpublished.g", ["a", "b"])])
    assert rows.unavailable is not None
    assert rows.unavailable.tolist() == [0, 1]
    assert "lacks a table: run 'kirana apply'" in rows.reason
    block = RowBlock.of("unpublished.g", CODEC, ["a"], [value(5)])
    for _ in range(5):
        with pytest.raises(Unavailable, match="lacks a table: run 'kirana apply'"):
            await store.write(block)
    assert store.health()["breaker"]["state"] == "closed"


async def test_a_store_answers_before_its_keyspace_is_made(cassandra: CassandraServer) -> None:
    store = CassandraFeatureStore.open(
        f"cassandra://{cassandra.address}/not_made?{PATIENT}", setting="features"
    )
    assert await store.ping()
    (rows,) = await store.read([RowKeys("product.g", ["a"])])
    assert "lacks a table: run 'kirana apply'" in rows.reason
    await store.close()


def test_tables_are_made_once(cassandra: CassandraServer) -> None:
    cassandra.execute("DROP KEYSPACE IF EXISTS made")
    tables = CassandraTables(CassandraUrl.parse(f"scylla://{cassandra.address}/made?{PATIENT}"))
    assert tables.missing(["product", "user"]) == ["product", "user"]
    assert tables.create(["product"]) == ["product"]
    assert tables.missing(["product", "user"]) == ["user"]
    assert tables.create(["product", "user"]) == ["user"]
    assert tables.create(["product", "user"]) == []
    query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = 'made'"
    ((replication,),) = cassandra.execute(query)
    assert dict(replication)["datacenter1"] == "1"


async def test_acknowledged_rows_survive_a_kill(
    store: CassandraFeatureStore, cassandra: CassandraServer
) -> None:
    rows = {f"{n}".encode(): value(n) for n in range(500)}
    await write_rows(store, list(rows), list(rows.values()), CODEC)
    cassandra.kill()
    (read,) = await store.read([RowKeys("product.g", ["0", "1"])])
    assert read.unavailable is not None
    assert "does not answer" in read.reason
    with pytest.raises(Unavailable, match="does not answer"):
        await write_rows(store, [b"a"], [value(1)], CODEC)
    cassandra.start()

    async def reads() -> bool:
        (read,) = await store.read([RowKeys("product.g", ["0"])])
        return read.unavailable is None

    await wait_until(reads)
    assert await read_values(store, list(rows)) == list(rows.values())


async def test_a_frozen_server_makes_rows_unavailable_and_then_refuses_calls(
    cassandra: CassandraServer,
) -> None:
    store = CassandraFeatureStore.open(f"{cassandra.empty()}?timeout=0.5", setting="features")
    wanted = [RowKeys("product.g", [str(n) for n in range(300)])]

    async def reads() -> bool:
        return (await store.read(wanted))[0].unavailable is None

    await wait_until(reads)
    cassandra.pause()
    try:
        reasons = [(await store.read(wanted))[0].reason for _ in range(4)]
    finally:
        cassandra.resume()
    assert all("does not answer" in reason for reason in reasons[:3])
    assert "calls are refused until it answers" in reasons[3]
    await wait_until(reads)
    await store.close()
