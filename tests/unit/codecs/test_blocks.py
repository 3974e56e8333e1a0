"""Rows of a bulk load are, byte for byte, what rows of any other write are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.codecs import Column
from kirana.codecs.packed import MAX_BODY_BYTES, Packed
from kirana.codecs.rows import Texts
from kirana.errors import TooLarge
from kirana.schema import Feature, FeatureGroup
from tests.unit.codecs.packed_batches import NOW_MS, Row, column, encode, group_of, tables

PACKED = Packed()


def texts_of(given: Column, *, before: bytes = b"") -> Texts:
    """The same strings side by side, behind bytes that are none of theirs."""
    pieces = [text.encode() for text in given.values.tolist()]
    sizes = np.array([len(each) for each in pieces], dtype=np.int64)
    data = np.frombuffer(before + b"".join(pieces), dtype=np.uint8)
    return Texts(data, len(before) + np.cumsum(sizes) - sizes, sizes, given.nulls)


def block_of(group: FeatureGroup, rows: Sequence[Row]) -> list[bytes]:
    columns: dict[str, Column | Texts] = {}
    for feature in group.current.features:
        found = column(feature, [row[feature.name] for row in rows])
        is_text = feature.dtype == "string"
        columns[feature.name] = texts_of(found, before=b"other") if is_text else found
    times = np.full(len(rows), NOW_MS, dtype=np.uint64)
    data, ends = PACKED.encode_block(group, group.current, columns, times)
    joined = data.tobytes()
    assert len(joined) == (ends[-1] if len(ends) else 0)
    return [
        joined[start:end] for start, end in zip([0, *ends.tolist()], ends.tolist(), strict=False)
    ]


@settings(deadline=None)
@given(tables(), st.booleans())
def test_a_block_is_the_values_side_by_side(
    table: tuple[FeatureGroup, list[Row]], checksum: bool
) -> None:
    group, rows = table
    group = replace(group, checksum=checksum)
    assert block_of(group, rows) == encode(group, rows)


def test_nulls_and_empty_strings_between_others() -> None:
    group = group_of([Feature("a", "string"), Feature("x", "int8"), Feature("b", "string")])
    words = ["", None, "ü", "long " * 40]
    rows = [{"a": a, "x": 1, "b": b} for a in words for b in words]
    assert block_of(group, rows) == encode(group, rows)


def test_a_string_that_is_too_long_is_refused() -> None:
    group = group_of([Feature("a", "string")])
    with pytest.raises(TooLarge, match=str(MAX_BODY_BYTES)):
        block_of(group, [{"a": ""}, {"a": "x" * MAX_BODY_BYTES}])


def test_texts_are_a_column_again() -> None:
    given = Column(np.array(["a", "", "ü"], dtype=object), np.array([False, True, False]))
    again = texts_of(given).column()
    assert again.values.tolist() == ["a", "", "ü"]
    assert again.nulls is given.nulls
