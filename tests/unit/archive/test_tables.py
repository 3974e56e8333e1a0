"""Tables of the archive: the types of their columns, nulls, and how rows are divided."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa

from kirana.archive.tables import ArchivedRows, arrow_column, tables_of
from kirana.codecs import Column
from kirana.schema import Entity, Feature, FeatureGroup, Key, SchemaVersion

DAY_MS = 86_400_000
FEATURES = (
    Feature("n", "int16"),
    Feature("h", "float16"),
    Feature("b", "bool"),
    Feature("s", "string"),
    Feature("v", "float32", (2, 2)),
)
ONE = SchemaVersion("shop_user.g", 1, FEATURES[:1])
TWO = SchemaVersion("shop_user.g", 2, FEATURES)
ENTITY = Entity("shop_user", (Key("shop"), Key("user_id", "int64")))
GROUP = FeatureGroup("shop_user.g", ENTITY, 60_000, "packed", (ONE, TWO))


def rows(version: SchemaVersion, columns: dict[str, Column] | None, offset: int) -> ArchivedRows:
    times = np.array([5, DAY_MS + 5], np.uint64)
    keys = ["a\\|b|7", "c|-8"]
    return ArchivedRows(GROUP, version, keys, columns, times, 9_000, "rows", 3, offset)


def test_rows_are_divided_by_version_and_day() -> None:
    numbers = Column(np.array([1, 2], np.int16), np.array([False, True]))
    all_values = {
        "n": numbers,
        "h": Column(np.array([0.5, -1], np.float16)),
        "b": Column(np.array([True, False])),
        "s": Column(np.array(["x", ""], object), np.array([False, True])),
        "v": Column(np.arange(8, dtype=np.float32).reshape(2, 2, 2), np.array([True, False])),
    }
    messages = [rows(TWO, all_values, 4), rows(ONE, {"n": numbers}, 5), rows(TWO, None, 6)]
    files = list(tables_of(messages))
    assert [(file.version, file.day, len(file.table)) for file in files] == [
        (1, "1970-01-01", 1),
        (1, "1970-01-02", 1),
        (2, "1970-01-01", 2),
        (2, "1970-01-02", 2),
    ]
    put, delete = files[3].table.to_pylist()
    assert put == {
        "shop": "c",
        "user_id": -8,
        "event_time": datetime(1970, 1, 2, 0, 0, 0, 5000, UTC),
        "n": None,
        "h": -1.0,
        "b": False,
        "s": None,
        "v": [4, 5, 6, 7],
        "_deleted": False,
        "_schema_version": 2,
        "_expires": datetime(1970, 1, 2, 0, 1, 1, 0, UTC),
        "_stored": datetime(1970, 1, 1, 0, 0, 9, 0, UTC),
        "_topic": "rows",
        "_partition": 3,
        "_offset": 4,
        "_row": 1,
    }
    assert (delete["_deleted"], delete["_schema_version"], delete["v"]) == (True, 0, None)
    assert delete["_expires"] is None
    assert files[2].table.to_pylist()[0]["shop"] == "a|b"
    assert files[2].table.to_pylist()[0]["v"] is None


def test_all_bits_of_a_float_are_kept() -> None:
    bits = np.array([0x7FC00001, 0x80000000, 0x00000001], np.uint32)
    array = arrow_column(Feature("f", "float32"), Column(bits.view(np.float32)))
    assert np.array_equal(array.to_numpy().view(np.uint32), bits)
    assert array.type == pa.float32()
