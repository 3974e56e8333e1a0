"""The archive of a stream on a real Kafka: what is in it, and that it is the same twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path
from typing import Any

import duckdb
import httpx
import pyarrow.dataset as ds
import pytest

from kirana.actors.archiver import Archiver
from kirana.actors.spool_archiver import SpoolArchiver
from kirana.features import FeatureQuery
from kirana.features.service import FeatureService
from kirana.ingest.push import Push
from kirana.ingest.targets import StoreTarget
from kirana.kafka.url import KafkaUrl
from kirana.metrics import Metrics
from kirana.stores import open_feature_store
from kirana.streams.topics import make_topics
from tests.contract.test_stream_writes import DELETE, PUT, consumed, served
from tests.kafka_server import KafkaServer
from tests.support import Shop
from tests.waiting import wait_until

PERIOD_S = 1
_numbers = count()


@pytest.fixture
async def url(kafka: KafkaServer) -> KafkaUrl:
    url = KafkaUrl.parse(f"kafka://{kafka.address}/kept{next(_numbers)}?partitions=3&timeout=3")
    await make_topics(url)
    return url


class Wires:
    """The wiring of an archiver."""

    def __init__(self, shop: Shop, url: KafkaUrl, folder: Path) -> None:
        self.source = shop.source
        self.metrics = Metrics()
        self._settings = shop.settings.model_copy(
            update={
                "streams": url.name,
                "archive": f"file://{folder}",
                "archive_period_s": PERIOD_S,
            }
        )

    def settings(self, kind: object) -> Any:
        return self._settings


@asynccontextmanager
async def archiving(shop: Shop, url: KafkaUrl, folder: Path) -> AsyncIterator[Archiver]:
    archiver = Archiver(Wires(shop, url, folder))  # type: ignore[arg-type]
    task = asyncio.create_task(archiver.run())
    yield archiver
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def files(folder: Path) -> dict[str, bytes]:
    """Return all files of an archive, by their path in it."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


async def put(client: httpx.AsyncClient, number: int, **fields: Any) -> None:
    keys = {"product_id": [f"p{number}-{i}" for i in range(3)]}
    columns = {"clicks": [number, None, 3], "ctr": [0.5, 0.25, 0]}
    body = {"group": "product.stats", "keys": keys, "columns": columns, **fields}
    (await client.post(PUT, json=body)).raise_for_status()


async def all_archived(archiver: Archiver | SpoolArchiver) -> None:
    """Wait until everything is in the archive that was written before this call."""
    _, state = await archiver.report()
    # The lag that is there, or about to be, may be older than the last write.
    state.lag = None
    await wait_until(lambda: state.lag is not None, "the archiver has looked")
    state.lag = None
    await wait_until(lambda: state.lag == 0, "all messages are in the archive")


async def test_every_row_is_in_the_archive_once(shop: Shop, url: KafkaUrl, tmp_path: Path) -> None:
    folder = tmp_path / "archive"
    before_ms = time.time_ns() // 1_000_000
    day_ms = 86_400_000
    async with (
        served(shop, url, accepts=False) as client,
        consumed(shop, url, PERIOD_S),
        archiving(shop, url, folder) as archiver,
    ):
        for number in range(5):
            await put(client, number, event_time=before_ms - number * day_ms)
        delete = {"group": "product.stats", "keys": {"product_id": ["p0-0"]}}
        (await client.post(DELETE, json=delete)).raise_for_status()
        attrs = {"title": ["Chai ☕"], "category_id": [7], "in_stock": [True]}
        similar = {"ids": [[1, 2, 3, 4]], "weights": [[0.5, 0.25, 0, "NaN"]]}
        for group, columns in (("product.attrs", attrs), ("product.similar", similar)):
            body = {"group": group, "keys": {"product_id": ["a"]}, "columns": columns}
            (await client.post(PUT, json=body)).raise_for_status()
        await all_archived(archiver)
    rows = ds.dataset(folder / "product.stats", partitioning="hive").to_table().to_pylist()
    puts = [row for row in rows if not row["_deleted"]]
    assert len(puts) == 15
    assert len({(row["_partition"], row["_offset"], row["_row"]) for row in rows}) == 16
    by_key = {row["product_id"]: row for row in puts}
    first = by_key["p0-0"]
    assert (first["clicks"], by_key["p0-1"]["clicks"], first["ctr"]) == (0, None, 0.5)
    assert first["event_time"].timestamp() * 1000 == before_ms
    assert first["_stored"] >= first["event_time"]
    assert len({row["day"] for row in puts}) == 5
    (deleted,) = [row for row in rows if row["_deleted"]]
    assert (deleted["product_id"], deleted["clicks"], deleted["_schema_version"]) == (
        "p0-0",
        None,
        0,
    )
    (attrs_row,) = ds.dataset(folder / "product.attrs").to_table().to_pylist()
    assert (attrs_row["title"], attrs_row["in_stock"]) == ("Chai ☕", True)
    (similar_row,) = ds.dataset(folder / "product.similar").to_table().to_pylist()
    assert similar_row["ids"] == [1, 2, 3, 4]
    query = f"SELECT sum(clicks), count(*) FROM '{folder}/product.stats/*/*.parquet'"
    assert duckdb.sql(query).fetchall() == [(25, 16)]


async def test_an_emptied_store_is_rebuilt_from_the_archive(
    shop: Shop, url: KafkaUrl, tmp_path: Path
) -> None:
    folder = tmp_path / "archive"
    async with (
        served(shop, url, accepts=False) as client,
        consumed(shop, url, PERIOD_S),
        archiving(shop, url, folder) as archiver,
    ):
        for number in range(4):
            await put(client, number)
        delete = {"group": "product.stats", "keys": {"product_id": ["p1-0", "p2-1"]}}
        (await client.post(DELETE, json=delete)).raise_for_status()
        await put(client, 2)
        await all_archived(archiver)
    keys = [f"p{number}-{i}" for number in range(4) for i in range(3)]
    catalog = shop.source.load(shop.revision)
    before = await rows_of(shop, shop.features, keys)
    empty = open_feature_store(f"lmdb://{tmp_path}/empty")
    job = Push([folder], catalog)
    await job.check(lambda rows: None)
    assert job.rows == 17
    await job.write(StoreTarget(empty), lambda rows: None)
    rebuilt = FeatureService(empty, shop.source)
    assert await rows_of(shop, rebuilt, keys) == before
    await empty.close()


async def rows_of(shop: Shop, features: FeatureService, keys: list[str]) -> list[Any]:
    query = FeatureQuery(
        "product", keys, columns=("stats.clicks", "stats.ctr"), provenance=True, nulls=True
    )
    (rows,) = await features.read([query], shop.request())
    columns = [column.values.tolist() for column in rows.columns.values()]
    provenance = [cells.tolist() for cells in rows.provenance.values()]
    return [*columns, *provenance, rows.status["stats"].tolist()]


async def test_two_archivers_write_the_same_files(
    shop: Shop, url: KafkaUrl, tmp_path: Path
) -> None:
    """One is stopped again and again, and the other, who reads the same topics, is not."""
    steady, killed = tmp_path / "steady", tmp_path / "killed"
    async with served(shop, url, accepts=False) as client, consumed(shop, url, PERIOD_S):
        async with archiving(shop, url, steady) as archiver:
            for number in range(4):
                async with archiving(shop, url, killed):
                    for _ in range(6):
                        await put(client, number)
                        await asyncio.sleep(0.2)
            await all_archived(archiver)
        async with archiving(shop, url, killed) as again, archiving(shop, url, killed) as twin:
            await all_archived(again)
            await all_archived(twin)
    assert len(files(steady)) > 2
    assert files(killed) == files(steady)
