"""Blocks of encoded rows for bulk loads. They decode like the rows that `encode` returns."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.codecs import CODECS, Codec, Column, Status
from kirana.codecs.packed.codec import MAX_BODY_BYTES
from kirana.codecs.rows import Texts
from kirana.errors import TooLarge
from kirana.schema import Feature, FeatureGroup
from tests.unit.codecs.packed_batches import (
    MIXED,
    NOW,
    NOW_MS,
    Row,
    cells,
    columns_of,
    encode,
    group_of,
    same,
    tables,
)

PACKED, TEXT = CODECS["packed"], CODECS["text"]


def texts_of(given: Column, *, before: bytes = b"") -> Texts:
    """Return the strings of a column as `Texts`. The unrelated bytes `before` precede them."""
    pieces = [text.encode() for text in given.values.tolist()]
    sizes = np.array([len(piece) for piece in pieces], dtype=np.int64)
    data = np.frombuffer(before + b"".join(pieces), dtype=np.uint8)
    return Texts(data, len(before) + np.cumsum(sizes) - sizes, sizes, given.nulls)


def block_of(group: FeatureGroup, rows: Sequence[Row], codec: Codec = PACKED) -> list[bytes]:
    """Encode rows as one block, and return the value of each row."""
    columns: dict[str, Column | Texts] = {**columns_of(group, rows)}
    for feature in group.current.features:
        column = columns[feature.name]
        if feature.dtype == "string" and isinstance(column, Column):
            columns[feature.name] = texts_of(column, before=b"other")
    times = np.full(len(rows), NOW_MS, dtype=np.uint64)
    data, ends = codec.encode_block(group, group.current, columns, times)
    joined = data.tobytes()
    assert len(joined) == (ends[-1] if len(ends) else 0)
    return [
        joined[start:end] for start, end in zip([0, *ends.tolist()], ends.tolist(), strict=False)
    ]


@given(tables(), st.booleans())
def test_a_block_holds_the_same_bytes_as_single_values(
    table: tuple[FeatureGroup, list[Row]], checksum: bool
) -> None:
    group, rows = table
    group = replace(group, checksum=checksum)
    assert block_of(group, rows) == encode(group, rows)


def test_nulls_and_empty_strings_are_encoded_between_other_strings() -> None:
    group = group_of([Feature("a", "string"), Feature("x", "int8"), Feature("b", "string")])
    words = ["", None, "ü", "long " * 40]
    rows = [{"a": a, "x": 1, "b": b} for a in words for b in words]
    assert block_of(group, rows) == encode(group, rows)


@pytest.mark.parametrize("codec", [PACKED, TEXT])
@pytest.mark.parametrize("checksum", [False, True])
def test_encoding_a_block_creates_no_object_per_row(codec: Codec, checksum: bool) -> None:
    count = 20_000
    features = [Feature("a", "string"), Feature("b", "float32"), Feature("c", "bool")]
    group = replace(group_of(features), checksum=checksum)
    data = np.full(4 * count, ord("x"), np.uint8)
    columns = {
        "a": Texts(data, np.arange(count) * 4, np.arange(count) % 5),
        "b": Column(np.zeros(count, np.float32)),
        "c": Column(np.zeros(count, np.bool_)),
    }
    times = np.full(count, NOW_MS, dtype=np.uint64)
    codec.encode_block(group, group.current, columns, times)
    before = sys.getallocatedblocks()
    block = codec.encode_block(group, group.current, columns, times)
    assert sys.getallocatedblocks() - before < 200
    assert len(block[1]) == count


@pytest.mark.parametrize("codec", [PACKED, TEXT])
def test_an_empty_batch_encodes_to_no_values(codec: Codec) -> None:
    group = group_of(MIXED)
    times = np.zeros(0, dtype=np.uint64)
    assert codec.encode(group, group.current, columns_of(group, []), times) == []
    assert block_of(group, [], codec) == []


@pytest.mark.parametrize("codec", [PACKED, TEXT])
def test_a_string_that_is_too_long_is_refused(codec: Codec) -> None:
    group = group_of([Feature("a", "string")])
    with pytest.raises(TooLarge, match=str(MAX_BODY_BYTES)):
        block_of(group, [{"a": ""}, {"a": "x" * MAX_BODY_BYTES}], codec)


@pytest.mark.parametrize("codec", [PACKED, TEXT])
def test_a_string_that_is_far_too_long_is_refused_without_a_copy(codec: Codec) -> None:
    group = group_of([Feature("a", "string")])
    texts = Texts(np.zeros(1, np.uint8), np.zeros(1, np.int64), np.array([1 << 50]))
    times = np.full(1, NOW_MS, dtype=np.uint64)
    with pytest.raises(TooLarge, match=str(MAX_BODY_BYTES)):
        codec.encode_block(group, group.current, {"a": texts}, times)


@pytest.mark.usefixtures("inner_loops")
@given(tables())
def test_a_text_block_decodes_like_single_rows(table: tuple[FeatureGroup, list[Row]]) -> None:
    group, rows = table
    decoded = TEXT.decode(block_of(group, rows, TEXT), group, NOW)
    expected = TEXT.decode(encode(group, rows, codec=TEXT), group, NOW)
    assert decoded.status.tolist() == expected.status.tolist() == [Status.OK] * len(rows)
    assert decoded.event_time_ms.tolist() == expected.event_time_ms.tolist()
    for feature in group.current.features:
        assert same(cells(decoded, feature.name), cells(expected, feature.name))


def test_a_text_block_is_written_as_documented() -> None:
    features = [
        Feature("words", "string"),
        Feature("stock", "bool"),
        Feature("vector", "float32", (3,)),
        Feature("half", "float16"),
        Feature("count", "uint64"),
    ]
    group = group_of(features, ttl_ms=60_000)
    row = {
        "words": "a,b;c\\d",
        "stock": False,
        "vector": [0.1, 1, -1e-30],
        "half": 0.1,
        "count": 2**64 - 1,
    }
    rows = [row, dict.fromkeys(row), {**row, "words": ""}]
    end = f"{NOW + 60};1;{NOW_MS};{group.current.fingerprint:08x}".encode()
    assert block_of(group, rows, TEXT) == [
        b"a\\,b\\;c\\\\d,0,[0.1 1 -1e-30],0.1,18446744073709551615;" + end,
        b",,,,;" + end,
        b"\\e,0,[0.1 1 -1e-30],0.1,18446744073709551615;" + end,
    ]
