"""History from an archive that a real run has written: the bits that were served at the time."""

from __future__ import annotations

import asyncio
import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from kirana.features import FeatureQuery
from kirana.history import history
from kirana.kafka.url import KafkaUrl
from kirana.streams.topics import make_topics
from tests.contract.test_archive import all_archived, archiving
from tests.contract.test_stream_writes import DELETE, PUT, consumed, served
from tests.kafka_server import KafkaServer
from tests.support import Shop
from tests.waiting import wait_until

KEYS = ["a", "b", "c"]
STEPS = 120
NAMES = ["product.stats.clicks", "product.stats.ctr"]


@dataclass
class Read:
    """What a read returned: clicks and ctr by key. It began and ended at these times."""

    at_ms: int
    ended_ms: int
    values: list[tuple[Any, ...]]


@dataclass
class Write:
    """A write of a key, None for a delete, and when it began."""

    key: str
    began_ms: int
    values: tuple[Any, ...] | None


def now_ms() -> int:
    return time.time_ns() // 1_000_000


async def read(shop: Shop) -> Read:
    context = shop.request()
    query = FeatureQuery("product", KEYS, columns=("stats.clicks", "stats.ctr"))
    (rows,) = await shop.features.read([query], context)
    columns = [rows.columns[name].values.tolist() for name in query.columns]
    return Read(context.now_ms, now_ms(), list(zip(*columns, strict=True)))


def points(reads: list[Read]) -> pa.Table:
    keys = [key for _ in reads for key in KEYS]
    times = [read.at_ms for read in reads for _ in KEYS]
    return pa.table({"product_id": keys, "time": times})


def rows_of(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(table.column(name).to_pylist() for name in NAMES), strict=True))


@pytest.mark.parametrize("seed", [1, 2])
async def test_history_as_known_gives_what_was_served(
    shop: Shop, kafka: KafkaServer, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    url = KafkaUrl.parse(f"kafka://{kafka.address}/past{seed}?partitions=2&timeout=5")
    await make_topics(url)
    reads: list[Read] = []
    writes: list[Write] = []
    async with (
        served(shop, url, accepts=False) as client,
        consumed(shop, url, 1) as consumption,
        archiving(shop, url, tmp_path / "archive") as archiver,
    ):
        for step in range(STEPS):
            key = chance.choice(KEYS)
            # Some rows are late, and some are a little ahead.
            event_time = now_ms() + chance.choice([0, 0, -40, -400, 30])
            body: dict[str, Any] = {
                "group": "product.stats",
                "keys": {"product_id": [key]},
                "event_time": event_time,
            }
            began = now_ms()
            if chance.random() < 0.2:
                writes.append(Write(key, began, None))
                (await client.post(DELETE, json=body)).raise_for_status()
            else:
                values = (step, step / 8)
                writes.append(Write(key, began, values))
                body["columns"] = {"clicks": [step], "ctr": [step / 8]}
                (await client.post(PUT, json=body)).raise_for_status()
            reads.append(await read(shop))
            if chance.random() < 0.3:
                end = consumption.report.handled
                await wait_until(
                    lambda step=step: consumption.report.handled >= step + 1, "it is marked"
                )
                assert consumption.report.handled >= end
                await asyncio.sleep(0.01)
                reads.append(await read(shop))
        await all_archived(archiver)
        last = await read(shop)
    catalog = shop.source.load(shop.revision)
    archive = f"file://{tmp_path}/archive"
    table = ds.dataset(tmp_path / "archive/product.stats").to_table()
    known = rows_of(history(catalog, archive, points(reads), NAMES, as_known=True))
    default = (0, 0.5)
    exact = 0
    for number, found in enumerate(reads):
        for position, key in enumerate(KEYS):
            served_values = found.values[position]
            if known[number * len(KEYS) + position] == served_values:
                exact += 1
                continue
            stored = stored_times(table, key)
            overlapping = [
                write.values or default
                for write, stored_ms in zip(of_key(writes, key), stored, strict=True)
                if write.began_ms <= found.ended_ms and stored_ms >= found.at_ms
            ]
            assert served_values in overlapping, (number, key)
    assert exact > len(reads), "most reads overlap no write"
    # All rows are known now, so both ways give what a read returns, to the last bit.
    for as_known in (False, True):
        now = history(catalog, archive, points([last]), NAMES, as_known=as_known, status=True)
        if not as_known and any(row > last.at_ms for row in times(table)):
            continue
        assert rows_of(now) == last.values


def of_key(writes: list[Write], key: str) -> list[Write]:
    return [write for write in writes if write.key == key]


def stored_times(table: pa.Table, key: str) -> list[int]:
    """Return when the store had each row of a key, in the order of its writes."""
    rows = [row for row in table.to_pylist() if row["product_id"] == key]
    rows.sort(key=lambda row: row["_offset"])
    return [round(row["_stored"].timestamp() * 1_000) for row in rows]


def times(table: pa.Table) -> list[int]:
    return [round(value.timestamp() * 1_000) for value in table.column("event_time").to_pylist()]
