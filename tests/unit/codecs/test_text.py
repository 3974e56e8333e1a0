"""The text codec: encoded rows, rows that people write, and damaged rows."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.codecs import CODECS, Status
from kirana.codecs.rows import Provenance
from kirana.schema import Feature, FeatureGroup
from tests.unit.codecs.packed_batches import (
    FEW,
    MIXED,
    NOW,
    NOW_MS,
    Row,
    cells,
    column,
    group_of,
    listed,
    same,
    tables,
)
from tests.unit.codecs.packed_batches import encode as encode_any

pytestmark = pytest.mark.usefixtures("inner_loops")

TEXT = CODECS["text"]
PACKED = CODECS["packed"]
DAY_MS = 86_400_000
OLD, NEW = MIXED[:2], MIXED[:3]


encode = partial(encode_any, codec=TEXT)


def decode_one(group: FeatureGroup, value: bytes) -> tuple[Status, list[Any]]:
    """Decode one value. Return its status, and its values in the order of the features."""
    rows = TEXT.decode([value], group, NOW)
    names = [feature.name for feature in group.current.features]
    return Status(int(rows.status[0])), [cells(rows, name)[0] for name in names]


@FEW
@given(tables())
def test_encoded_rows_decode_to_the_same_values(table: tuple[FeatureGroup, list[Row]]) -> None:
    group, rows = table
    decoded = TEXT.decode(encode(group, rows), group, NOW)
    assert decoded.status.tolist() == [Status.OK] * len(rows)
    assert decoded.event_time_ms.tolist() == [NOW_MS] * len(rows)
    for feature in group.current.features:
        if any(row[feature.name] is None for row in rows):
            nulls = [row[feature.name] is None for row in rows]
            codes = decoded.provenance(feature.name).tolist()
            assert codes == [Provenance.NULL if null else Provenance.STORED for null in nulls]
        expected = column(feature, [row[feature.name] for row in rows]).values.tolist()
        for i, value in enumerate(cells(decoded, feature.name)):
            if value is not None:
                assert same(listed(value, feature.shape), listed(expected[i], feature.shape))


def test_a_row_is_written_as_documented() -> None:
    features = (
        Feature("clicks", "int32"),
        Feature("ctr", "float32"),
        Feature("title", "string"),
        Feature("hot", "bool"),
        Feature("vec", "float16", (2,)),
    )
    group = group_of(features, ttl_ms=7 * DAY_MS)
    row = {"clicks": -7, "ctr": 0.1, "title": "a,b;c\\", "hot": True, "vec": [1, -2.5]}
    none = dict.fromkeys(row)
    empty = {**row, "title": ""}
    end = f"{NOW + 7 * 86_400};1;{NOW_MS};{group.current.fingerprint:08x}".encode()
    assert encode(group, [row, none, empty]) == [
        b"-7,0.1,a\\,b\\;c\\\\,1,[1.0 -2.5];" + end,
        b",,,,;" + end,
        b"-7,0.1,\\e,1,[1.0 -2.5];" + end,
    ]


NUMBERS = group_of((Feature("a", "int32"), Feature("b", "float32", default=0.5)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1,2.5", (Status.OK, [1, 2.5])),
        ("1,2.5;0", (Status.OK, [1, 2.5])),
        (f"1,2.5;{NOW + 1};1", (Status.OK, [1, 2.5])),
        (f"1,2.5;{NOW};1", (Status.EXPIRED, [0, 0.5])),
        ("1,2.5;0;1;5", (Status.OK, [1, 2.5])),
        ("1,;0;1;5", (Status.OK, [1, None])),
        ("1,nan;0;1", (Status.OK, [1, "nan"])),
        ("1,-inf;0", (Status.OK, [1, float("-inf")])),
        ("1,1e-3;0", (Status.OK, [1, pytest.approx(1e-3)])),
        (";9999999999;0;5", (Status.CORRUPT, [0, 0.5])),
        (f";{NOW + 1};0;5", (Status.MISSING, [0, 0.5])),
        *(
            (text, (Status.CORRUPT, [0, 0.5]))
            for text in (
                *("", "1", "1,2,3", "x,2", "1.0,2", "1,2;x", "1,2;-1", "1,2;0;70000", "1,2;0;1;x"),
                *("1,1e39", "1,_1", "1, 2", "1,Infinity", "4294967296,2", "1,2;0;1;5;zzzzzzzz"),
                *("1,2;0;1;5;00000000", "1,2;0;1;5;00000000;6", "1\\,2", "1,2\\", "1,[2]", "x;0;0"),
                *("1,2;0;9", "٣,2", "1,2;0;1;99999999999999999999"),
            )
        ),
    ],
)
def test_rows_that_people_write_get_their_status_and_values(
    text: str, expected: tuple[Status, list[Any]]
) -> None:
    status, values = decode_one(NUMBERS, text.encode())
    shown = ["nan" if value != value else value for value in values]
    assert (status, shown) == expected


def test_bytes_that_are_not_a_text_row_are_corrupt() -> None:
    assert decode_one(NUMBERS, b"\xff\xfe")[0] == Status.CORRUPT
    assert decode_one(NUMBERS, b"1,2;0" + b" " * (3 << 20))[0] == Status.CORRUPT


@FEW
@given(tables(), st.data())
def test_damage_to_a_row_affects_no_other_row(
    table: tuple[FeatureGroup, list[Row]], data: st.DataObject
) -> None:
    group, rows = table
    values = encode(group, rows)
    position = data.draw(st.integers(0, len(values) - 1))
    length = data.draw(st.integers(0, len(values[position])))
    junk = data.draw(st.binary(max_size=4))
    damaged = [*values[:position], values[position][:length] + junk, *values[position + 1 :]]
    expected, decoded = TEXT.decode(values, group, NOW), TEXT.decode(damaged, group, NOW)
    for i in range(len(values)):
        if i != position:
            assert decoded.status[i] == expected.status[i]
            for feature in group.current.features:
                name = feature.name
                assert same(cells(decoded, name)[i], cells(expected, name)[i])


def test_rows_of_older_versions_are_read_by_the_newest() -> None:
    group = group_of(OLD, NEW)
    row = {feature.name: None for feature in NEW}
    old = encode(group, [{**row, "clicks": 7}], version=1)
    new = encode(group, [{**row, "clicks": 9, "vector": [1, 2, 3]}], version=2)
    unknown = [new[0].replace(b";2;", b";3;")]
    rows = TEXT.decode([*old, None, *new, *unknown], group, NOW)
    statuses = [Status(int(code)).name for code in rows.status]
    assert statuses == ["OK", "MISSING", "OK", "CORRUPT"]
    assert rows.unknown_versions == {3}
    assert cells(rows, "clicks") == [7, -1, 9, -1]
    assert cells(rows, "vector")[:3] == [[0.5] * 3, [0.5] * 3, [1.0, 2.0, 3.0]]
    assert rows.provenance("vector").tolist()[0] == Provenance.NOT_IN_VERSION


def test_a_tombstone_is_ordered_after_a_value_of_the_same_time() -> None:
    (value,) = encode(NUMBERS, [{"a": 1, "b": 2.0}])
    (deleted,) = TEXT.tombstones(np.array([NOW_MS], dtype=np.uint64), NOW + 5)
    assert deleted == f";{NOW + 5};0;{NOW_MS}".encode()
    assert TEXT.write_order(value) == (NOW_MS, False) < TEXT.write_order(deleted) == (NOW_MS, True)
    assert TEXT.write_order(b"\xff") == TEXT.write_order(b"1,2") == (0, False)
