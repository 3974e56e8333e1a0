"""Reads and writes of features over a real store and catalog."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.revisions import CatalogSource
from kirana.codecs import Column, Status
from kirana.codecs.rows import Provenance
from kirana.errors import Conflict, InvalidInput, Unavailable, Unknown
from kirana.features import EntityRows, FeatureQuery
from kirana.features.service import FeatureService
from kirana.features.source import FeatureWrite, WriteResult
from kirana.features.values import columns_of
from kirana.request import RequestContext
from kirana.serving.checks import catalog_checks
from kirana.stores import FeatureStore, open_feature_store
from tests.store_calls import DownStore, read_values, write_rows
from tests.support import SHOP, ByOrder, Shop, nth, publish, request_at, write_shop
from tests.unit.features.evolving import CountedCatalog

pytestmark = pytest.mark.usefixtures("inner_loops")

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000
TTL_MS = 7 * DAY_MS
STATS = ("stats.clicks", "stats.ctr")
WRITTEN, STALE, PAST_TTL = WriteResult(1, 0), WriteResult(0, 1), WriteResult(0, 0, 1)
CTR = "  - {name: ctr, dtype: float32, default: 0.5}\n"
GROWN = SHOP.replace(CTR, CTR + "  - {name: orders, dtype: int32, default: 9}\n")


@pytest.fixture
def catalog(shop_folder: Path) -> CountedCatalog:
    return CountedCatalog(shop_folder)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[FeatureStore]:
    feature_store = open_feature_store(f"lmdb://{tmp_path}/features")
    yield feature_store
    await feature_store.close()


@pytest.fixture
def service(store: FeatureStore, catalog: CountedCatalog) -> FeatureService:
    return FeatureService(store, catalog)


def new_request(source: CatalogSource) -> RequestContext:
    """Begin a request on revision 1 at `NOW_MS`."""
    return request_at(source, now_ms=NOW_MS)


async def put(
    service: FeatureService,
    catalog: DirectoryCatalog,
    keys: Sequence[str],
    times: Sequence[int] | None = None,
    *,
    group: str = "product.stats",
    revision: int = 1,
    schema_version: int = 0,
    now_ms: int = NOW_MS,
    **columns: list[Any],
) -> WriteResult:
    pinned = nth(catalog, revision)
    feature_group = catalog.load(pinned).groups[group]
    version = feature_group.version(schema_version) if schema_version else feature_group.current
    event_times = np.array([NOW_MS] * len(keys) if times is None else times, dtype=np.uint64)
    values = columns_of(version, columns, len(keys))
    write = FeatureWrite(group, keys, values, event_times, schema_version)
    return await service.write(write, RequestContext.begin(pinned, now_ms=now_ms))


async def get(
    service: FeatureService,
    keys: Sequence[str],
    *columns: str,
    revision: int = 1,
    now_ms: int = NOW_MS,
) -> EntityRows:
    query = FeatureQuery("product", keys, columns=columns or STATS, provenance=True)
    (rows,) = await service.read([query], request_at(service._source, revision, now_ms))
    return rows


def values(rows: EntityRows, name: str = "stats.clicks") -> list[Any]:
    return list(rows.columns[name].values.tolist())


def status(rows: EntityRows, group: str = "stats") -> list[int]:
    return list(map(int, rows.status[group]))


async def test_the_shop_reads_the_rows_that_it_wrote(shop: Shop, tmp_path: Path) -> None:
    now = int(time.time() * 1000)
    catalog = DirectoryCatalog(tmp_path / "shop", catalog_checks())
    keys, times = ["1", "2"], [now, now]
    values_of = {"clicks": [3, 4], "ctr": [0.25, 0.125]}
    written = await put(shop.features, catalog, keys, times, now_ms=now, **values_of)
    assert written == WriteResult(2, 0)
    rows = await get(shop.features, ["2", "3", "1"], now_ms=now)
    assert values(rows) == [4, 0, 3]
    assert status(rows) == [Status.OK, Status.MISSING, Status.OK]
    await shop.features.delete(
        "product.stats", ["2"], np.array([now], dtype=np.uint64), False, request_at(catalog)
    )
    assert values(await get(shop.features, ["2", "1"], now_ms=now)) == [0, 3]


# reads


async def test_each_group_has_its_own_status(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1"], clicks=[3], ctr=[0.25])
    await put(
        service,
        catalog,
        ["2"],
        group="product.attrs",
        title=["tea"],
        category_id=[7],
        in_stock=[False],
    )
    rows = await get(service, ["1", "2"], "stats.clicks", "attrs.title", "attrs.in_stock")
    assert status(rows) == [Status.OK, Status.MISSING]
    assert status(rows, "attrs") == [Status.MISSING, Status.OK]
    assert values(rows, "attrs.title") == ["?", "tea"]
    assert values(rows, "attrs.in_stock") == [True, False]


async def test_a_matrix_has_its_columns_in_the_requested_order(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1"], clicks=[3], ctr=[0.25])
    await put(
        service,
        catalog,
        ["2"],
        group="product.attrs",
        title=["tea"],
        category_id=[7],
        in_stock=[False],
    )
    matrix = ("stats.ctr", "attrs.in_stock", "stats.clicks", "similar.weights", "attrs.category_id")
    (rows,) = await service.read(
        [FeatureQuery("product", ["2", "1"], matrix=matrix)],
        new_request(service._source),
    )
    assert rows.matrix.dtype == np.float32
    assert rows.matrix.tolist() == [
        [0.5, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 7.0],
        [0.25, 1.0, 3.0, 0.0, 0.0, 0.0, 0.0, 0.0],
    ]


@pytest.mark.parametrize(
    "matrix",
    [
        ("stats.ctr",),
        ("stats.clicks", "stats.ctr"),
        ("stats.ctr", "stats.clicks"),
        ("stats.ctr", "stats.ctr"),
    ],
)
@pytest.mark.parametrize("keys", [["1", "2"], ["1", "9", "2"], ["9"], []], ids=str)
async def test_a_matrix_of_one_group_agrees_with_its_columns(
    service: FeatureService, catalog: CountedCatalog, matrix: tuple[str, ...], keys: list[str]
) -> None:
    await put(service, catalog, ["1", "2"], clicks=[3, None], ctr=[0.25, 0.75])
    (rows,) = await service.read(
        [FeatureQuery("product", keys, matrix, matrix)], new_request(service._source)
    )
    columns = [rows.columns[name].values.astype(np.float32) for name in matrix]
    assert rows.matrix.tolist() == np.stack(columns, axis=1).tolist()


async def test_several_queries_are_answered_in_order(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1"], clicks=[3], ctr=[0.25])
    await put(service, catalog, ["7"], group="user.profile", age=[44])
    queries = [
        FeatureQuery("user", ["7", "8"], columns=("profile.age",)),
        FeatureQuery("product", ["1"], matrix=("stats.clicks",)),
    ]
    users, products = await service.read(queries, new_request(service._source))
    assert values(users, "profile.age") == [44, 30]
    assert products.matrix.tolist() == [[3.0]]


async def test_a_large_read_returns_all_rows(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    count = 60_000
    keys = [str(i) for i in range(count)]
    await put(service, catalog, keys, clicks=list(range(count)), ctr=[0.5] * count)
    query = FeatureQuery("product", [*keys, "none"], matrix=STATS * 2)
    (rows,) = await service.read([query], new_request(service._source))
    assert rows.matrix[:, 0].tolist() == [*range(count), 0.0]
    assert rows.matrix[:, 2].tolist() == [*range(count), 0.0]


@pytest.mark.parametrize(
    ("entity", "feature", "code", "hint"),
    [
        ("prodct", "stats.clicks", "unknown_entity", "'product'"),
        ("product", "stats.click", "unknown_feature", "'product.stats.clicks'"),
        ("product", "stat.clicks", "unknown_feature", "'product.stats.clicks'"),
        ("product", "clicks", "unknown_feature", "product.stats"),
        ("user", "stats.clicks", "unknown_feature", "user.stats.clicks"),
    ],
)
@pytest.mark.parametrize("argument", ["matrix", "columns"])
async def test_unknown_names_are_refused_with_a_hint(
    service: FeatureService, entity: str, feature: str, code: str, hint: str, argument: str
) -> None:
    names: dict[str, Any] = {argument: (feature,)}
    with pytest.raises(Unknown, match=hint) as caught:
        await service.read([FeatureQuery(entity, ["1"], **names)], new_request(service._source))
    assert caught.value.code == code


async def test_a_revision_that_cannot_be_read_is_unavailable(service: FeatureService) -> None:
    with pytest.raises(Unavailable, match="revision 77"):
        await get(service, ["1"], revision=77)


async def test_a_read_returns_provenance_per_cell_and_age_per_row(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1", "2"], [NOW_MS, NOW_MS - 500], clicks=[3, None], ctr=[0.5] * 2)
    rows = await get(service, ["1", "2", "3"], now_ms=NOW_MS + 1_000)
    stored, null, none = Provenance.STORED, Provenance.NULL, Provenance.NO_ROW
    assert rows.provenance["stats.clicks"].tolist() == [stored, null, none]
    assert rows.provenance["stats.ctr"].tolist() == [stored, stored, none]
    assert rows.age_ms["stats"].tolist() == [1_000, 1_500, -1]


async def test_a_deleted_or_corrupt_row_has_no_age(
    service: FeatureService, catalog: CountedCatalog, store: FeatureStore
) -> None:
    await put(service, catalog, ["1"], clicks=[3], ctr=[0.25])
    await service.delete(
        "product.stats",
        ["1"],
        np.array([NOW_MS], dtype=np.uint64),
        False,
        new_request(service._source),
    )
    await write_rows(
        store, [b"f:product.stats:2"], [b"\x01" + b"\xff" * 30], ByOrder(lambda value: (0, False))
    )
    rows = await get(service, ["1", "2"])
    assert status(rows) == [Status.MISSING, Status.CORRUPT]
    assert rows.age_ms["stats"].tolist() == [-1, -1]


# writes


async def test_a_write_needs_every_feature_of_the_group(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    with pytest.raises(InvalidInput, match="'ctr' is missing") as caught:
        await put(service, catalog, ["1"], clicks=[3])
    assert caught.value.field == "columns.ctr"
    assert status(await get(service, ["1"])) == [Status.MISSING]


async def test_a_write_of_an_unknown_feature_or_group_is_refused(service: FeatureService) -> None:
    column = Column(np.array([1], dtype=np.int32))
    columns = {"clicks": column, "ctr": column, "click": column}
    write = FeatureWrite("product.stats", ["1"], columns, np.array([NOW_MS], dtype=np.uint64))
    with pytest.raises(Unknown, match="clicks") as caught:
        await service.write(write, new_request(service._source))
    assert caught.value.field == "columns.click"
    with pytest.raises(Unknown) as caught:
        await service.write(
            FeatureWrite("product.stat", [], {}, write.event_time_ms),
            new_request(service._source),
        )
    assert (caught.value.code, caught.value.field) == ("unknown_feature_group", "group")


async def test_the_row_with_the_newest_event_time_is_kept(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    assert await put(service, catalog, ["1"], [NOW_MS], clicks=[1], ctr=[0.5]) == WRITTEN
    assert await put(service, catalog, ["1"], [NOW_MS - 1], clicks=[2], ctr=[0.5]) == STALE
    assert values(await get(service, ["1"])) == [1]
    assert await put(service, catalog, ["1"], [NOW_MS], clicks=[3], ctr=[0.5]) == WRITTEN
    assert await put(service, catalog, ["1"], [NOW_MS + 1], clicks=[4], ctr=[0.5]) == WRITTEN
    assert values(await get(service, ["1"])) == [4]


async def test_a_write_may_be_stale_for_some_of_its_keys(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1"], [NOW_MS], clicks=[1], ctr=[0.5])
    again = await put(
        service, catalog, ["2", "1"], [NOW_MS - 1, NOW_MS - 1], clicks=[2, 2], ctr=[0.5, 0.5]
    )
    assert again == WriteResult(1, 1)
    assert values(await get(service, ["1", "2"])) == [1, 2]


async def test_a_tombstone_wins_over_a_value_of_the_same_millisecond(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    time = np.array([NOW_MS], dtype=np.uint64)
    for first, second in (("put", "delete"), ("delete", "put")):
        for step in (first, second):
            if step == "put":
                await put(service, catalog, [first], clicks=[3], ctr=[0.5])
            else:
                await service.delete(
                    "product.stats", [first], time, False, new_request(service._source)
                )
        assert status(await get(service, [first])) == [Status.MISSING]


async def test_a_delete_is_ordered_by_event_time(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1", "2"], clicks=[1, 2], ctr=[0.5, 0.5])
    times = np.array([NOW_MS - 1, NOW_MS + 1], dtype=np.uint64)
    assert await service.delete(
        "product.stats", ["1", "2"], times, False, new_request(service._source)
    ) == WriteResult(1, 1)
    assert status(await get(service, ["1", "2"])) == [Status.OK, Status.MISSING]
    assert await put(service, catalog, ["2"], [NOW_MS + 1], clicks=[3], ctr=[0.5]) == STALE
    assert await put(service, catalog, ["2"], [NOW_MS + 2], clicks=[4], ctr=[0.5]) == WRITTEN
    assert values(await get(service, ["2"])) == [4]


async def test_deleting_an_absent_row_still_stops_older_writes(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    time = np.array([NOW_MS], dtype=np.uint64)
    assert await service.delete(
        "product.stats", ["1"], time, False, new_request(service._source)
    ) == WriteResult(1, 0)
    assert await put(service, catalog, ["1"], [NOW_MS - 1], clicks=[1], ctr=[0.5]) == STALE


async def test_event_times_more_than_five_minutes_ahead_are_refused(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    limit = NOW_MS + 5 * 60_000
    assert await put(service, catalog, ["1"], [limit], clicks=[1], ctr=[0.5]) == WRITTEN
    with pytest.raises(InvalidInput, match="more than five minutes in the future") as caught:
        await put(service, catalog, ["2", "3"], [NOW_MS, limit + 1], clicks=[1, 1], ctr=[0.5, 0.5])
    assert caught.value.field == "event_time[1]"
    with pytest.raises(InvalidInput, match="more than five minutes in the future") as caught:
        await service.delete(
            "product.stats",
            ["2"],
            np.array([limit + 1], dtype=np.uint64),
            False,
            new_request(service._source),
        )
    assert status(await get(service, ["2", "3"])) == [Status.MISSING, Status.MISSING]


# rows that are expired when they are written


@pytest.mark.parametrize("age_ms", [TTL_MS, TTL_MS + 1_000, 2 * TTL_MS, NOW_MS])
async def test_an_expired_row_counts_as_neither_written_nor_stale(
    service: FeatureService, catalog: CountedCatalog, age_ms: int
) -> None:
    result = await put(service, catalog, ["1"], [NOW_MS - age_ms], clicks=[1], ctr=[0.75])
    assert result == PAST_TTL
    rows = await get(service, ["1"])
    assert (status(rows), values(rows)) == ([Status.EXPIRED], [0])


async def test_a_row_is_kept_until_the_end_of_its_ttl(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    result = await put(service, catalog, ["1"], [NOW_MS - TTL_MS + 1], clicks=[1], ctr=[0.75])
    assert result == WRITTEN
    assert status(await get(service, ["1"])) == [Status.OK]


async def test_a_row_of_a_group_without_a_ttl_never_expires(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    row = {"title": ["tea"], "category_id": [7], "in_stock": [True]}
    for time_ms in (0, 1, NOW_MS - 100 * TTL_MS):
        result = await put(service, catalog, ["1"], [time_ms], group="product.attrs", **row)
        assert result == WRITTEN


async def test_one_write_can_have_written_stale_and_expired_rows(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1", "2"], clicks=[1, 2], ctr=[0.5, 0.5])
    expired_ms = NOW_MS - TTL_MS
    result = await put(
        service,
        catalog,
        ["3", "1", "4", "2"],
        [expired_ms, NOW_MS - 1, NOW_MS - 1, expired_ms],
        clicks=[6, 7, 8, 9],
        ctr=[0.5] * 4,
    )
    assert result == WriteResult(written=1, stale=1, expired=2)
    rows = await get(service, ["1", "2", "3", "4"])
    assert values(rows) == [1, 2, 0, 8]
    assert status(rows) == [Status.OK, Status.OK, Status.EXPIRED, Status.OK]


async def test_an_expired_row_replaces_an_older_unexpired_row(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    """The older row was written when the group had a longer TTL."""
    await put(service, catalog, ["1", "2"], [NOW_MS - 3 * DAY_MS] * 2, clicks=[1, 1], ctr=[0.5] * 2)
    publish(write_shop(catalog.folder, SHOP.replace("ttl: 7d", "ttl: 1d")))
    newer = [NOW_MS - 2 * DAY_MS]
    result = await put(service, catalog, ["1"], newer, revision=2, clicks=[2], ctr=[0.5])
    assert result == PAST_TTL
    rows = await get(service, ["1", "2"], revision=2)
    assert (status(rows), values(rows)) == ([Status.EXPIRED, Status.OK], [0, 1])
    # A row with a time between the two is stale, even if it is written on the older revision.
    between = [NOW_MS - 2 * DAY_MS - 1]
    assert await put(service, catalog, ["1"], between, clicks=[3], ctr=[0.5]) == STALE


async def test_an_expired_row_does_not_undo_a_delete(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    time = np.array([NOW_MS], dtype=np.uint64)
    await service.delete("product.stats", ["1"], time, False, new_request(service._source))
    result = await put(service, catalog, ["1"], [NOW_MS - TTL_MS], clicks=[1], ctr=[0.5])
    assert result == PAST_TTL
    assert status(await get(service, ["1"])) == [Status.MISSING]


async def test_a_row_expires_after_the_ttl_of_its_group(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1"], clicks=[1], ctr=[0.75])
    await put(
        service,
        catalog,
        ["1"],
        group="product.attrs",
        title=["tea"],
        category_id=[7],
        in_stock=[False],
    )
    assert status(await get(service, ["1"], now_ms=NOW_MS + TTL_MS - 1)) == [Status.OK]
    rows = await get(service, ["1"], *STATS, "attrs.title", now_ms=NOW_MS + TTL_MS)
    assert status(rows) == [Status.EXPIRED]
    assert (values(rows), values(rows, "stats.ctr")) == ([0], [0.5])
    assert (status(rows, "attrs"), values(rows, "attrs.title")) == ([Status.OK], ["tea"])


# schema versions


async def test_rows_of_an_older_version_are_read_with_defaults(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    publish(write_shop(catalog.folder, GROWN))
    await put(service, catalog, ["1"], revision=2, schema_version=1, clicks=[1], ctr=[0.75])
    await put(service, catalog, ["2"], revision=2, clicks=[2], ctr=[0.25], orders=[3])
    rows = await get(service, ["1", "2", "3"], *STATS, "stats.orders", revision=2)
    assert status(rows) == [Status.OK, Status.OK, Status.MISSING]
    assert values(rows) == [1, 2, 0]
    assert values(rows, "stats.orders") == [9, 3, 9]
    assert rows.provenance["stats.orders"].tolist() == [
        Provenance.NOT_IN_VERSION,
        Provenance.STORED,
        Provenance.NO_ROW,
    ]
    assert rows.provenance["stats.clicks"].tolist() == [0, 0, Provenance.NO_ROW]
    with pytest.raises(InvalidInput, match="'orders' is missing"):
        await put(service, catalog, ["1"], revision=2, clicks=[1], ctr=[0.75])


async def test_a_write_with_an_unknown_schema_version_is_refused(service: FeatureService) -> None:
    write = FeatureWrite("product.stats", [], {}, np.array([], dtype=np.uint64), 2)
    with pytest.raises(InvalidInput, match="no schema version 2") as caught:
        await service.write(write, new_request(service._source))
    assert caught.value.field == "schema_version"


@pytest.fixture
async def newer_row(store: FeatureStore, catalog: CountedCatalog) -> None:
    """Publish revision 2; write product 2 by schema version 1 and product 1 by version 2."""
    publish(write_shop(catalog.folder, GROWN))
    writer = FeatureService(store, catalog)
    await put(writer, catalog, ["2"], clicks=[5], ctr=[0.125])
    await put(writer, catalog, ["1"], revision=2, clicks=[4], ctr=[0.75], orders=[3])


@pytest.mark.usefixtures("newer_row")
async def test_a_row_of_a_version_newer_than_the_readers_revision_is_read(
    service: FeatureService,
) -> None:
    rows = await get(service, ["1", "2", "3"])
    assert status(rows) == [Status.OK, Status.OK, Status.MISSING]
    assert values(rows) == [4, 5, 0]
    (by_matrix,) = await service.read(
        [FeatureQuery("product", ["1"], matrix=STATS)], new_request(service._source)
    )
    assert by_matrix.matrix.tolist() == [[4.0, 0.75]]
    with pytest.raises(Unknown):
        await get(service, ["1"], "stats.orders")


@pytest.mark.usefixtures("newer_row")
async def test_concurrent_readers_of_a_new_version_all_read_its_rows(
    service: FeatureService,
) -> None:
    await get(service, ["3"])
    results = await asyncio.gather(*(get(service, ["1"]) for _ in range(5)))
    assert [status(rows) for rows in results] == [[Status.OK]] * 5
    assert [values(rows) for rows in results] == [[4]] * 5


@pytest.mark.usefixtures("newer_row")
async def test_a_version_is_looked_up_in_the_catalog_that_replaced_a_lost_one(
    service: FeatureService, catalog: CountedCatalog, store: FeatureStore
) -> None:
    assert status(await get(service, ["1"])) == [Status.OK]
    shutil.rmtree(catalog.folder)
    publish(write_shop(catalog.folder))
    other_shop = SHOP.replace(CTR, CTR + "  - {name: views, dtype: int64, default: 1}\n")
    publish(write_shop(catalog.folder, other_shop))
    writer = FeatureService(store, DirectoryCatalog(catalog.folder, catalog_checks()))
    await put(writer, catalog, ["8"], revision=2, clicks=[8], ctr=[0.5], views=[2])
    rows = await get(service, ["8"])
    assert (status(rows), values(rows)) == ([Status.OK], [8])


async def test_an_unknown_version_is_looked_up_once(
    service: FeatureService, catalog: CountedCatalog, store: FeatureStore
) -> None:
    await put(service, catalog, ["1"], clicks=[3], ctr=[0.25])
    (value,) = await read_values(store, [b"f:product.stats:1"])
    assert value is not None
    unknown_version = value[:2] + (9).to_bytes(2, "little") + value[4:]
    await write_rows(
        store, [b"f:product.stats:1"], [unknown_version], ByOrder(lambda value: (0, False))
    )
    lookups = catalog.current_calls
    for _ in range(3):
        rows = await get(service, ["1"])
        assert (status(rows), values(rows)) == ([Status.CORRUPT], [0])
    assert catalog.current_calls == lookups + 1


async def test_a_version_that_is_published_later_is_read_on_its_own_revision(
    service: FeatureService, catalog: CountedCatalog, store: FeatureStore, tmp_path: Path
) -> None:
    elsewhere = write_shop(tmp_path / "elsewhere", SHOP)
    publish(elsewhere)
    publish(write_shop(elsewhere, GROWN))
    writer = FeatureService(store, DirectoryCatalog(elsewhere, catalog_checks()))
    await put(
        writer,
        DirectoryCatalog(elsewhere, catalog_checks()),
        ["1"],
        revision=2,
        clicks=[4],
        ctr=[0.75],
        orders=[3],
    )
    assert status(await get(service, ["1"])) == [Status.CORRUPT]
    publish(write_shop(catalog.folder, GROWN))
    rows = await get(service, ["1"], "stats.clicks", "stats.orders", revision=2)
    assert (status(rows), values(rows), values(rows, "stats.orders")) == ([Status.OK], [4], [3])


async def test_a_removed_feature_is_unknown_and_the_others_remain(
    service: FeatureService, catalog: CountedCatalog
) -> None:
    await put(service, catalog, ["1"], clicks=[4], ctr=[0.75])
    shrunk = SHOP.replace(CTR, "").replace("  - product.stats.ctr\n", "")
    publish(write_shop(catalog.folder, shrunk), models=False)
    rows = await get(service, ["1"], "stats.clicks", revision=2)
    assert (status(rows), values(rows)) == ([Status.OK], [4])
    with pytest.raises(Unknown):
        await get(service, ["1"], "stats.ctr", revision=2)


# the store


async def test_a_store_that_does_not_answer_makes_its_rows_unavailable(
    catalog: CountedCatalog,
) -> None:
    service = FeatureService(DownStore(), catalog)
    rows = await get(service, ["1", "2"], *STATS)
    assert status(rows) == [Status.UNAVAILABLE] * 2
    assert (values(rows), values(rows, "stats.ctr")) == ([0, 0], [0.5, 0.5])
    (by_matrix,) = await service.read(
        [FeatureQuery("product", ["1"], matrix=STATS)], new_request(service._source)
    )
    assert by_matrix.matrix.tolist() == [[0.0, 0.5]]
    with pytest.raises(Unavailable):
        await put(service, catalog, ["1"], clicks=[1], ctr=[0.5])


@pytest.mark.parametrize("key", ["a\0b", "7|8", "é", "a:b", "f:product.stats:1", " "])
async def test_keys_with_special_characters_are_not_confused(
    service: FeatureService, catalog: CountedCatalog, key: str
) -> None:
    await put(service, catalog, [key, "1"], clicks=[1, 2], ctr=[0.5, 0.5])
    rows = await get(service, ["1", key, "a", "b"])
    assert values(rows) == [2, 1, 0, 0]


# rows from clocks that were ahead


@pytest.fixture
async def ahead(service: FeatureService, catalog: CountedCatalog) -> int:
    """Store a row that is a year ahead under the key 1, and a normal one under 2."""
    year_ahead_ms = NOW_MS + 365 * DAY_MS
    stats = {"clicks": [7], "ctr": [0.5]}
    await put(service, catalog, ["1"], [year_ahead_ms], now_ms=year_ahead_ms, **stats)
    await put(service, catalog, ["2"], **stats)
    return year_ahead_ms


async def delete(service: FeatureService, keys: list[str], *, force: bool) -> WriteResult:
    times = np.full(len(keys), NOW_MS + 1, dtype=np.uint64)
    request = new_request(service._source)
    return await service.delete("product.stats", keys, times, force, request)


@pytest.mark.usefixtures("ahead")
async def test_a_forced_delete_removes_rows_that_are_ahead_without_a_trace(
    service: FeatureService, catalog: CountedCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    assert await delete(service, ["1"], force=False) == STALE
    assert await delete(service, ["1", "2", "3"], force=True) == WriteResult(3, 0)
    assert status(await get(service, ["1", "2"])) == [Status.MISSING] * 2
    assert "removing 1 rows of product.stats" in caplog.text
    assert await put(service, catalog, ["1"], clicks=[1], ctr=[0.5]) == WRITTEN
    assert await put(service, catalog, ["2"], clicks=[1], ctr=[0.5]) == STALE


@pytest.mark.usefixtures("ahead")
async def test_a_store_that_can_not_forget_refuses_a_forced_delete(
    service: FeatureService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(service._store), "forgets", False)
    with pytest.raises(Conflict, match="1 rows are more than five minutes"):
        await delete(service, ["1", "2"], force=True)
    assert status(await get(service, ["2"])) == [Status.OK]
    assert await delete(service, ["2"], force=True) == WriteResult(1, 0)
