"""A durable store behind a hot tier: where rows come from, and what faults of the tiers change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from kirana.codecs.rows import Tier
from kirana.edge.replies import PartReport
from kirana.errors import Unavailable
from kirana.stores import (
    FeatureStore,
    RowBlock,
    RowKeys,
    StoredRows,
    Written,
    open_feature_store,
)
from kirana.stores.hot.generations import RECORD
from kirana.stores.open import open_hot_tier
from kirana.stores.tiered import TieredFeatureStore
from tests.redis_servers import RedisServers, execute
from tests.store_calls import TimeCodec, read_values, row
from tests.waiting import wait_until

GROUP, KEYS = "product.g", ["a", "b", "c"]
BOUND_S = 0.4

pytestmark = pytest.mark.redis


class Tiers:
    """LMDB behind a Redis of its own, and stores of several processes."""

    def __init__(self, servers: RedisServers, folder: Path) -> None:
        self.servers = servers
        self.port = servers.start()
        self._folder = folder
        self._opened: list[TieredFeatureStore] = []

    def open(self) -> TieredFeatureStore:
        options = "socket_timeout=0.2&socket_connect_timeout=0.2"
        store = TieredFeatureStore(
            open_feature_store(f"lmdb://{self._folder}/durable"),
            open_hot_tier(f"redis://127.0.0.1:{self.port}?{options}"),
            ttl_s=3_600,
            bound_s=BOUND_S,
        )
        self._opened.append(store)
        return store

    async def close(self) -> None:
        for store in self._opened:
            await store.close()


@pytest.fixture
async def tiers(own: RedisServers, tmp_path: Path) -> AsyncIterator[Tiers]:
    built = Tiers(own, tmp_path)
    yield built
    await built.close()


async def write(store: TieredFeatureStore, time: int, keys: list[str] = KEYS) -> None:
    await store.write(RowBlock.of(GROUP, TimeCodec(), keys, [row(time)] * len(keys)))


async def read(store: TieredFeatureStore, keys: list[str] = KEYS) -> tuple[list[int], list[int]]:
    """Return the times and the tiers of rows. Wait until their copies are stored."""
    (rows,) = await store.read([RowKeys(GROUP, keys)])
    await store.settle()
    tiers = np.broadcast_to(np.asarray(rows.tier), len(keys)).tolist()
    return [int(value or 0) for value in rows.values], tiers


async def test_the_second_read_comes_from_the_hot_tier(tiers: Tiers) -> None:
    store = tiers.open()
    await write(store, 5, ["a", "b"])
    assert await read(store) == ([5, 5, 0], [Tier.DURABLE] * 3)
    assert await read(tiers.open()) == ([5, 5, 0], [Tier.HOT] * 3)
    await write(store, 6, ["b"])
    assert await read(store) == ([5, 6, 0], [Tier.HOT, Tier.DURABLE, Tier.HOT])
    assert await read(store, ["b"]) == ([6], [Tier.HOT])


async def test_copies_expire_at_different_times(tiers: Tiers) -> None:
    store = tiers.open()
    await write(store, 5)
    await read(store)
    ttls = [execute(tiers.port, "PTTL", f"hot:{GROUP}:{key}") for key in KEYS]
    assert len(set(ttls)) == len(KEYS)
    assert all(0.8 * 3_600_000 - 60_000 < ttl <= 3_600_000 for ttl in ttls)


async def test_a_removed_row_has_no_copy(tiers: Tiers) -> None:
    store = tiers.open()
    await write(store, 5)
    await read(store)
    assert await store.remove(RowKeys(GROUP, ["a"])) == 1
    assert (await read(store))[0] == [0, 5, 5]


async def test_without_its_hot_tier_a_store_goes_on(tiers: Tiers) -> None:
    store, other = tiers.open(), tiers.open()
    await write(store, 5)
    await read(store)
    tiers.servers.kill(tiers.port)
    await write(store, 6)
    assert await read(other) == ([6] * 3, [Tier.DURABLE] * 3)
    tiers.servers.start(port=tiers.port)

    async def copied() -> bool:
        assert await store.ping()
        return (await read(store))[1] == [Tier.HOT] * 3

    await wait_until(copied, "copies are used again")
    assert store.health()["hot"]["breaker"]["state"] == "closed"


async def test_old_copies_are_not_used_after_a_write_that_redis_did_not_see(tiers: Tiers) -> None:
    writer, reader = tiers.open(), tiers.open()
    await write(writer, 5)
    assert await read(reader) == ([5] * 3, [Tier.DURABLE] * 3)
    assert await read(reader) == ([5] * 3, [Tier.HOT] * 3)
    execute(tiers.port, "SAVE")
    tiers.servers.kill(tiers.port)
    await write(writer, 6)
    tiers.servers.start(port=tiers.port)
    assert execute(tiers.port, "EXISTS", f"hot:{GROUP}:a") == 1
    await asyncio.sleep(BOUND_S / 2)
    assert (await read(reader))[0] == [6] * 3
    assert (await read(writer))[0] == [6] * 3


async def test_copies_of_a_restarted_server_are_not_used(tiers: Tiers) -> None:
    writer, reader = tiers.open(), tiers.open()
    await write(writer, 5)
    await read(reader)
    execute(tiers.port, "SAVE")
    await write(writer, 6)
    tiers.servers.kill(tiers.port)
    tiers.servers.start(port=tiers.port)
    await asyncio.sleep(BOUND_S / 2)
    assert (await read(reader))[0] == [6] * 3


async def test_a_server_that_comes_back_empty_begins_a_generation(tiers: Tiers) -> None:
    """Marks of writes that were under way are gone with the old process."""
    store = tiers.open()
    await write(store, 5)
    await read(store)
    tiers.servers.kill(tiers.port)
    tiers.servers.start(port=tiers.port)
    begun = store.health()["hot"]["generations"]

    async def begun_again() -> bool:
        await read(store)
        return bool(store.health()["hot"]["generations"] == begun + 1)

    await wait_until(begun_again, "a generation begins")


async def test_an_unmark_that_fails_begins_a_generation_although_the_mark_was_set(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer, reader = tiers.open(), tiers.open()
    await write(writer, 5)
    await read(reader)
    durable_write = writer._durable.write

    async def write_while_redis_restarts(block: RowBlock) -> Written:
        if block.group == RECORD.group:
            return await durable_write(block)
        tiers.servers.kill(tiers.port)
        tiers.servers.start(port=tiers.port)
        (rows,) = await reader.read([RowKeys(GROUP, KEYS)])
        assert list(rows.values) == [row(5)] * len(KEYS)
        written = await durable_write(block)
        tiers.servers.kill(tiers.port)
        return written

    monkeypatch.setattr(writer._durable, "write", write_while_redis_restarts)
    generation = await reader._generations.current()
    await write(writer, 6)
    await asyncio.sleep(BOUND_S / 2)
    assert await reader._generations.current() != generation


class AwayStore:
    """A durable store with a server that can be away. The breaker opens at once."""

    embedded = False

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self.away = False

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        if self.away:
            return [StoredRows.all_unavailable(len(rows.keys), "away") for rows in wanted]
        return await self._store.read(wanted)

    async def write(self, block: RowBlock) -> Written:
        if self.away:
            raise Unavailable("away")
        return await self._store.write(block)

    async def ping(self) -> bool:
        return not self.away

    def health(self) -> dict[str, Any]:
        return {"store": "away", "breaker": {"state": "open" if self.away else "closed"}}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_while_the_durable_store_is_away_copies_are_read_and_kept(tiers: Tiers) -> None:
    store = tiers.open()
    store._durable = store._generations._durable = durable = AwayStore(store._durable)
    await write(store, 5)
    await read(store)
    durable.away = True
    for _ in range(5):
        with pytest.raises(Unavailable, match="did not answer a moment ago"):
            await write(store, 6)
    # The generation is too old by now, and can't be read again.
    await asyncio.sleep(BOUND_S)
    for _ in range(3):
        (rows,) = await store.read([RowKeys(GROUP, [*KEYS, "d"])])
        assert [int(value or 0) for value in rows.values] == [5, 5, 5, 0]
        assert rows.unavailable is not None
        assert rows.unavailable.tolist() == [3]
    durable.away = False
    await write(store, 6)
    assert (await read(store))[0] == [6] * 3


async def test_without_a_generation_no_copy_is_used(tiers: Tiers) -> None:
    store = tiers.open()
    await store._durable.close()
    (rows,) = await store.read([RowKeys(GROUP, KEYS)])
    assert rows.unavailable is not None
    assert store.health()["hot"]["reason"] == "the LMDB store is closed"


async def test_a_lost_record_begins_a_generation_although_the_clock_was_ahead_before(
    tiers: Tiers, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tiers.open()
    tiers.servers.kill(tiers.port)
    now_ns = time.time_ns()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns + 50_000_000_000)
    await store._generations.begin()
    generation = await store._generations.current()
    monkeypatch.setattr(time, "time_ns", lambda: now_ns)
    assert await store._durable.remove(RECORD) == 1
    await asyncio.sleep(BOUND_S / 2)
    async with asyncio.timeout(10):
        assert await store._generations.current() != generation


async def test_processes_that_begin_generations_at_once_agree_on_one(tiers: Tiers) -> None:
    stores = [tiers.open() for _ in range(4)]
    await asyncio.gather(*(store._generations.begin() for store in stores for _ in range(5)))
    await asyncio.sleep(BOUND_S / 2)
    assert len({await store._generations.current() for store in stores}) == 1
    assert await read_values(stores[0]._durable, [f"f:{RECORD.group}:{RECORD.keys[0]}"]) != [None]


async def test_the_health_report_fits_the_contract(tiers: Tiers) -> None:
    store = tiers.open()
    await write(store, 5)
    await read(store)
    await read(store)
    report = msgspec.convert({"state": "ok", **store.health()}, PartReport)
    assert isinstance(report.hot, msgspec.Struct)
    rows = report.hot.rows  # type: ignore[attr-defined]
    assert (rows.hot, rows.durable, rows.filled, rows.unreachable) == (3, 3, 3, 0)
