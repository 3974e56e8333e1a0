"""History from files of an archive: schema versions, defaults, expiry, and wrong points."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from kirana.archive.folder import ArchiveFolder, file_name
from kirana.archive.tables import ArchivedRows, tables_of
from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.snapshot import Catalog
from kirana.codecs import Column
from kirana.errors import InvalidInput, Unknown
from kirana.history import history
from kirana.serving.checks import catalog_checks
from tests.support import SHOP, publish, write_shop

DAY = 86_400_000
T0 = 20_000 * DAY
CTR = "  - {name: ctr, dtype: float32, default: 0.5}\n"
NEWER = SHOP.replace(
    CTR, CTR.replace("ctr,", "rate, aliases: [ctr],") + "  - {name: n, dtype: int32, default: 9}\n"
)


def published(folder: Path) -> Catalog:
    publish(folder)
    backend = DirectoryCatalog(folder, catalog_checks())
    return backend.load(backend.current())


@pytest.fixture
def archive(tmp_path: Path) -> str:
    (tmp_path / "archive").mkdir()
    return f"file://{tmp_path}/archive"


def write(
    archive: str,
    catalog: Catalog,
    rows: list[tuple[str, int, dict[str, Any] | None]],
    *,
    group: str = "product.stats",
    version: int = 1,
    stored_ms: int = T0,
    offset: int = 0,
) -> None:
    """Write rows (key, event time, values) as messages of one row each."""
    of_group = catalog.group(group)
    messages = [
        ArchivedRows(
            of_group,
            of_group.version(version),
            [key],
            None
            if values is None
            else {
                feature.name: Column(np.array([values[feature.name]], dtype=dtype_of(feature)))
                for feature in of_group.version(version).features
            },
            np.array([event_time], np.uint64),
            stored_ms,
            "rows",
            0,
            offset + number,
        )
        for number, (key, event_time, values) in enumerate(rows)
    ]
    for file in tables_of(messages):
        name = file_name("rows", 0, offset, offset + len(rows), file.version)
        ArchiveFolder(archive).write(file, name)


def dtype_of(feature: Any) -> Any:
    return object if feature.dtype == "string" else feature.dtype


def points(*rows: tuple[str, int]) -> pa.Table:
    keys, times = zip(*rows, strict=True)
    return pa.table({"product_id": list(keys), "time": list(times)})


def stats(clicks: int, ctr: float = 0.25) -> dict[str, Any]:
    return {"clicks": clicks, "ctr": ctr}


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    return published(write_shop(tmp_path / "shop"))


def test_a_point_has_the_newest_row_before_it(archive: str, catalog: Catalog) -> None:
    write(archive, catalog, [("a", T0, stats(1)), ("a", T0 + 10, stats(2)), ("b", T0, stats(3))])
    write(archive, catalog, [("a", T0 + 5, stats(4))], offset=10)
    table = history(
        catalog,
        archive,
        points(("a", T0 - 1), ("a", T0), ("a", T0 + 9), ("b", T0 + 99), ("a", T0 + 10), ("c", T0)),
        ["product.stats.clicks"],
        status=True,
    )
    assert table.column("product.stats.clicks").to_pylist() == [0, 1, 4, 3, 2, 0]
    states = ["missing", "ok", "ok", "ok", "ok", "missing"]
    assert table.column("product.stats._status").to_pylist() == states
    assert table.column_names[:2] == ["product_id", "time"]


def test_a_row_expires_by_the_ttl_that_it_was_written_with(archive: str, catalog: Catalog) -> None:
    shorter = replace(catalog.group("product.stats"), ttl_ms=DAY)
    write(archive, catalog, [("a", T0, stats(1))])
    at = [T0 + 7 * DAY - 1, T0 + 7 * DAY, T0 + 30 * DAY]
    table = history(
        catalog, archive, points(*(("a", t) for t in at)), ["product.stats.clicks"], status=True
    )
    assert shorter.ttl_ms != catalog.group("product.stats").ttl_ms
    assert table.column("product.stats.clicks").to_pylist() == [1, 0, 0]
    assert table.column("product.stats._status").to_pylist() == ["ok", "expired", "expired"]


def test_a_delete_wins_over_a_row_of_the_same_time(archive: str, catalog: Catalog) -> None:
    write(archive, catalog, [("a", T0, None), ("a", T0, stats(1)), ("a", T0 + 2, stats(2))])
    table = history(
        catalog,
        archive,
        points(("a", T0), ("a", T0 + 1), ("a", T0 + 2)),
        ["product.stats.clicks"],
        status=True,
    )
    assert table.column("product.stats.clicks").to_pylist() == [0, 0, 2]
    assert table.column("product.stats._status").to_pylist() == ["missing", "missing", "ok"]


def test_rows_that_the_store_did_not_have_yet_are_not_known(archive: str, catalog: Catalog) -> None:
    write(archive, catalog, [("a", T0, stats(1))], stored_ms=T0 + 100)
    write(archive, catalog, [("a", T0 + 200, stats(2))], stored_ms=T0 + 150, offset=10)
    at = points(("a", T0 + 99), ("a", T0 + 100), ("a", T0 + 150), ("a", T0 + 200))
    known = history(catalog, archive, at, ["product.stats.clicks"], as_known=True)
    # A row that is a little ahead is served as soon as the store has it.
    assert known.column("product.stats.clicks").to_pylist() == [0, 1, 2, 2]
    by_time = history(catalog, archive, at, ["product.stats.clicks"])
    assert by_time.column("product.stats.clicks").to_pylist() == [1, 1, 1, 2]


def test_rows_of_an_older_schema_version_have_the_defaults_of_the_newest(
    archive: str, catalog: Catalog, tmp_path: Path
) -> None:
    write(archive, catalog, [("a", T0, stats(1, 0.75))])
    newer = published(write_shop(tmp_path / "shop", NEWER))
    row = {"clicks": 2, "rate": 0.5, "n": 3}
    write(archive, newer, [("a", T0 + 5, row)], version=2, offset=10)
    names = ["product.stats.n", "product.stats.rate", "product.stats.ctr", "product.stats.clicks"]
    table = history(newer, archive, points(("a", T0), ("a", T0 + 5)), names)
    assert [table.column(name).to_pylist() for name in names] == [
        [9, 3],
        [0.75, 0.5],
        [0.75, 0.5],
        [1, 2],
    ]


def test_points_are_joined_in_chunks(
    archive: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("kirana.history.join.CHUNK_ROWS", 3)
    write(archive, catalog, [(str(i), T0 + i, stats(i)) for i in range(10)])
    table = history(
        catalog,
        archive,
        points(*((str(i), T0 + i) for i in range(10))),
        ["product.stats.clicks"],
    )
    assert table.column("product.stats.clicks").to_pylist() == list(range(10))


def test_wrong_points_are_named(archive: str, catalog: Catalog) -> None:
    names = ["product.stats.clicks"]
    with pytest.raises(Unknown, match="clocks"):
        history(catalog, archive, points(("a", T0)), ["product.stats.clocks"])
    with pytest.raises(InvalidInput, match="lack the column of times") as error:
        history(catalog, archive, points(("a", T0)), names, time="at")
    assert error.value.field == "at"
    with pytest.raises(InvalidInput, match="the event time is missing") as error:
        history(catalog, archive, pa.table({"product_id": ["a"], "time": [None]}), names)
    assert error.value.field == "time"
    with pytest.raises(InvalidInput, match="needs this key") as error:
        history(catalog, archive, pa.table({"user": ["a"], "time": [T0]}), names)
    assert error.value.field == "product_id"
    with pytest.raises(InvalidInput, match="there is no file"):
        history(catalog, f"{archive}/nowhere", points(("a", T0)), names)
