"""Bulk loads of Parquet files into an LMDB store."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.snapshot import Catalog
from kirana.codecs import Status
from kirana.errors import InvalidInput
from kirana.features import FeatureQuery
from kirana.features.service import FeatureService
from kirana.ingest.journal import Journal, Pushed
from kirana.ingest.push import Push
from kirana.ingest.rejects import Rejects
from kirana.ingest.source import Source
from kirana.ingest.targets import StoreTarget
from kirana.serving.checks import catalog_checks
from kirana.stores import FeatureStore, RowKeys, open_feature_store
from tests.support import SHOP, nth, publish, request_at, write_shop

pytestmark = pytest.mark.usefixtures("inner_loops")

COLUMNS = ("stats.clicks", "stats.ctr")
DAY_MS = 86_400_000


@pytest.fixture
def catalog(shop_folder: Path) -> DirectoryCatalog:
    return DirectoryCatalog(shop_folder, catalog_checks())


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FeatureStore]:
    store = open_feature_store(f"lmdb://{tmp_path}/features")
    yield store
    await store.close()


@pytest.fixture
def files(tmp_path: Path) -> Path:
    folder = tmp_path / "files"
    folder.mkdir()
    return folder


def now_ms() -> int:
    return int(time.time() * 1000)


def write(path: Path, **columns: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)
    return path


def stats(path: Path, ids: list[str], clicks: list[Any], **other_columns: Any) -> Path:
    return write(path, product_id=ids, clicks=clicks, ctr=[0.25] * len(ids), **other_columns)


async def push(
    store: FeatureStore, catalog: Catalog, *paths: Path, guarded: bool = True, **options: Any
) -> Any:
    job = Push(paths, catalog, **options)
    await job.check(lambda rows: None)
    return await job.write(StoreTarget(store, guarded=guarded), lambda rows: None)


def counts(pushed: Pushed) -> tuple[int, int, int, int]:
    return pushed.rows, pushed.written, pushed.stale, pushed.expired


async def read(
    store: FeatureStore, source: DirectoryCatalog, keys: list[str], *columns: str
) -> tuple[list[list[Any]], list[int]]:
    service = FeatureService(store, source)
    query = FeatureQuery("product", keys, columns=columns or COLUMNS)
    (rows,) = await service.read([query], request_at(source, source.current().number))
    values = [rows.columns[name].values.tolist() for name in query.columns]
    (status,) = rows.status.values()
    return values, status.tolist()


async def test_pushed_rows_are_read(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    path = stats(files / "product.stats.parquet", ["a", "b"], [1, 2])
    pushed = await push(store, catalog.load(nth(catalog, 1)), path)
    assert (pushed["product.stats"].rows, pushed["product.stats"].written) == (2, 2)
    values, status = await read(store, catalog, ["b", "c", "a"])
    assert values == [[2, 0, 1], [0.25, 0.5, 0.25]]
    assert status == [Status.OK, Status.MISSING, Status.OK]


async def test_a_folder_of_groups_is_pushed_in_one_call(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    stats(files / "product.stats" / "part-0.parquet", ["a"], [1])
    stats(files / "product.stats" / "part-1.parquet", ["b"], [2])
    write(
        files / "product.similar.parquet",
        product_id=["a"],
        ids=[[1, 2, 3, 4]],
        weights=[[0.5, 0.25, 0.0, 0.0]],
    )
    job = Push([files], catalog.load(nth(catalog, 1)))
    reported: list[int] = []
    await job.check(reported.append)
    assert sum(reported) == job.rows == 3
    pushed_groups = await job.write(StoreTarget(store), reported.append)
    assert sum(reported) == 6
    assert {name: pushed.written for name, pushed in pushed_groups.items()} == {
        "product.stats": 2,
        "product.similar": 1,
    }
    assert (await read(store, catalog, ["a", "b"]))[0][0] == [1, 2]
    assert (await read(store, catalog, ["a"], "similar.ids"))[0] == [[[1, 2, 3, 4]]]


@pytest.mark.parametrize(
    "wrong",
    [
        {"clicks": [1, 2**31]},
        {"clicks": [1, 2.5]},
        {"product_id": ["b", None]},
        {"product_id": ["b", ""]},
        {"event_time": [1_700_000_000_000, 10**14]},
        {"event_time": [1_700_000_000_000, 1_700_000_000]},
        {"event_time": [1_700_000_000_000, None]},
    ],
    ids=str,
)
async def test_nothing_is_written_if_any_row_of_any_file_is_invalid(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path, wrong: dict[str, list[Any]]
) -> None:
    right = stats(files / "a" / "product.stats.parquet", ["a"], [1])
    columns = {"product_id": ["b", "c"], "clicks": [1, 2], "ctr": [0.5, 0.5], **wrong}
    bad = write(files / "b" / "product.stats.parquet", **columns)
    with pytest.raises(InvalidInput) as caught:
        await push(store, catalog.load(nth(catalog, 1)), right, bad)
    assert caught.value.field is not None
    assert caught.value.field in wrong
    assert (await read(store, catalog, ["a", "b", "c"]))[1] == [Status.MISSING] * 3


async def test_older_rows_are_stale_and_do_not_replace_newer_rows(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    now = now_ms()
    path = files / "product.stats.parquet"
    stats(path, ["a", "b"], [1, 1], event_time=[now - 1_000, now - 3_000])
    await push(store, catalog.load(nth(catalog, 1)), path)
    stats(path, ["a", "b", "c"], [2, 2, 2], event_time=[now - 2_000] * 3)
    (pushed,) = (await push(store, catalog.load(nth(catalog, 1)), path)).values()
    assert (pushed.rows, pushed.written, pushed.stale) == (3, 2, 1)
    assert (await read(store, catalog, ["a", "b", "c"]))[0][0] == [1, 2, 2]


async def test_the_newest_row_of_a_key_in_a_file_is_kept(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    now = now_ms()
    path = files / "product.stats.parquet"
    stats(path, ["a", "a", "a"], [1, 2, 3], event_time=[now - 3, now - 1, now - 2])
    (pushed,) = (await push(store, catalog.load(nth(catalog, 1)), path)).values()
    assert (pushed.rows, pushed.stale) == (3, 1)
    assert (await read(store, catalog, ["a"]))[0][0] == [2]


async def test_pushing_a_file_again_changes_nothing(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    path = stats(files / "product.stats.parquet", ["a"], [1], event_time=[now_ms()])
    for _ in range(2):
        (pushed,) = (await push(store, catalog.load(nth(catalog, 1)), path)).values()
        assert (pushed.written, pushed.stale) == (1, 0)
    assert (await read(store, catalog, ["a"]))[0][0] == [1]


@pytest.mark.parametrize("guarded", [True, False])
async def test_rows_past_their_ttl_read_as_expired(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path, guarded: bool
) -> None:
    eight_days_ago = now_ms() - 8 * DAY_MS
    path = stats(files / "product.stats.parquet", ["a"], [1], event_time=[eight_days_ago])
    pushed = await push(store, catalog.load(nth(catalog, 1)), path, guarded=guarded)
    assert counts(pushed["product.stats"]) == (1, 0, 0, 1)
    assert await read(store, catalog, ["a"]) == ([[0], [0.5]], [Status.EXPIRED])


async def test_one_push_can_have_written_stale_and_expired_rows(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    now = now_ms()
    path = files / "product.stats.parquet"
    stats(path, ["a", "b"], [1, 2], event_time=[now, now])
    await push(store, catalog.load(nth(catalog, 1)), path)
    times = [now, now - 1, now - 8 * DAY_MS, now - 8 * DAY_MS]
    stats(path, ["c", "a", "d", "b"], [3, 4, 5, 6], event_time=times)
    (pushed,) = (await push(store, catalog.load(nth(catalog, 1)), path)).values()
    assert counts(pushed) == (4, 1, 1, 2)
    values, status = await read(store, catalog, ["a", "b", "c", "d"])
    assert values[0] == [1, 2, 3, 0]
    assert status == [Status.OK, Status.OK, Status.OK, Status.EXPIRED]


@pytest.mark.parametrize("guarded", [True, False])
async def test_an_expired_row_does_not_replace_a_newer_row_of_the_same_file(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path, guarded: bool
) -> None:
    now = now_ms()
    path = files / "product.stats.parquet"
    stats(path, ["a", "a"], [1, 2], event_time=[now, now - 8 * DAY_MS])
    pushed = await push(store, catalog.load(nth(catalog, 1)), path, guarded=guarded)
    assert counts(pushed["product.stats"]) == (2, 1, 0, 1)
    assert await read(store, catalog, ["a"]) == ([[1], [0.25]], [Status.OK])


@pytest.mark.parametrize("guarded", [True, False])
async def test_an_expired_row_replaces_an_older_unexpired_row(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path, guarded: bool
) -> None:
    """The older row was written when the group had a longer TTL."""
    now = now_ms()
    path = files / "product.stats.parquet"
    stats(path, ["a", "b"], [1, 1], event_time=[now - 3 * DAY_MS] * 2)
    await push(store, catalog.load(nth(catalog, 1)), path)
    publish(write_shop(catalog.folder, SHOP.replace("ttl: 7d", "ttl: 1d")))
    stats(path, ["a"], [2], event_time=[now - 2 * DAY_MS])
    pushed = await push(store, catalog.load(nth(catalog, 2)), path, guarded=guarded)
    assert counts(pushed["product.stats"]) == (1, 0, 0, 1)
    values, status = await read(store, catalog, ["a", "b"])
    assert (values[0], status) == ([0, 1], [Status.EXPIRED, Status.OK])


async def test_an_expired_row_does_not_replace_a_newer_stored_row(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    now = now_ms()
    path = files / "product.stats.parquet"
    stats(path, ["a"], [1], event_time=[now])
    await push(store, catalog.load(nth(catalog, 1)), path)
    stats(path, ["a"], [2], event_time=[now - 8 * DAY_MS])
    (pushed,) = (await push(store, catalog.load(nth(catalog, 1)), path)).values()
    assert counts(pushed) == (1, 0, 0, 1)
    assert (await read(store, catalog, ["a"]))[0][0] == [1]


async def test_rows_are_written_by_the_given_schema_version(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    ctr = "  - {name: ctr, dtype: float32, default: 0.5}\n"
    grown = SHOP.replace(ctr, ctr + "  - {name: orders, dtype: int32, default: 9}\n")
    publish(write_shop(catalog.folder, grown))
    path = stats(files / "product.stats.parquet", ["a"], [1])
    with pytest.raises(InvalidInput, match="orders"):
        Push([path], catalog.load(nth(catalog, 2)))
    await push(store, catalog.load(nth(catalog, 2)), path, source=Source(schema_version=1))
    values, status = await read(store, catalog, ["a"], "stats.clicks", "stats.orders")
    assert (values, status) == ([[1], [9]], [Status.OK])
    with pytest.raises(InvalidInput, match="no schema version 3"):
        Push([path], catalog.load(nth(catalog, 2)), source=Source(schema_version=3))


def test_an_unknown_group_is_refused_with_a_suggestion(
    catalog: DirectoryCatalog, files: Path
) -> None:
    path = stats(files / "product.stat.parquet", ["a"], [1])
    with pytest.raises(InvalidInput, match=rf"^{path}: .*did you mean 'product\.stats'"):
        Push([path], catalog.load(nth(catalog, 1)))


async def test_all_problems_of_all_files_are_found_in_one_run(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    for name in ("product.stats", "product.stat"):
        (files / f"{name}.parquet").write_bytes(b"junk")
    (files / "product.stats").mkdir()
    (files / "product.stats" / "no-ctr.csv").write_text("product_id,clicks\n")
    with pytest.raises(InvalidInput) as caught:
        Push([files], catalog.load(nth(catalog, 1)))
    lines = caught.value.message.splitlines()
    assert [line.split(":")[0] for line in lines] == [
        f"{files}/product.stat.parquet",
        f"{files}/product.stats.parquet",
        f"{files}/product.stats/no-ctr.csv, column 'ctr'",
    ]
    header = "product_id,clicks,ctr\n"
    for name, rows in (("a", "1,x,1\n"), ("b", '1,2,"3\n'), ("c", "1,2\n2,2,2\n")):
        (files / f"{name}.csv").write_text(header + rows)
    paths = [files / f"{name}.csv" for name in "abc"]
    job = Push(paths, catalog.load(nth(catalog, 1)), source=Source(group="product.stats"))
    with pytest.raises(InvalidInput) as caught:
        await job.check(lambda rows: None, rejects=Rejects(allowed=True))
    assert [line.split(": ")[0] for line in caught.value.message.splitlines()[:3]] == [
        f"{files}/a.csv, row 0, column 'clicks'",
        f"{files}/b.csv",
        f"{files}/c.csv, row 0",
    ]


async def test_a_file_that_changes_between_the_check_and_the_write_is_refused(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    path = stats(files / "product.stats.parquet", ["a"], [1])
    job = Push([path], catalog.load(nth(catalog, 1)))
    await job.check(lambda rows: None)
    stats(path, ["a", "b"], [1, 2])
    with pytest.raises(InvalidInput, match="has changed while it was read"):
        await job.write(StoreTarget(store), lambda rows: None)


async def test_a_store_that_has_lost_rows_is_noticed(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    path = stats(files / "product.stats.parquet", ["a", "b"], [1, 2])
    job, journal = Push([path], catalog.load(nth(catalog, 1))), Journal()
    assert await job.resumes(StoreTarget(store), journal)
    await job.write(StoreTarget(store), lambda rows: None, journal=journal)
    assert await job.resumes(StoreTarget(store), journal)
    await store.remove(RowKeys("product.stats", ["b"]))
    assert not await job.resumes(StoreTarget(store), journal)


async def test_with_a_group_the_file_may_have_any_name(
    catalog: DirectoryCatalog, store: FeatureStore, files: Path
) -> None:
    path = stats(files / "anything.parquet", ["a"], [1])
    await push(store, catalog.load(nth(catalog, 1)), path, source=Source(group="product.stats"))
    assert (await read(store, catalog, ["a"]))[0][0] == [1]
