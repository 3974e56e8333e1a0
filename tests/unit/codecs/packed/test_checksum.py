"""Packed rows with `checksum: crc32`: what was damaged is corrupt, and never another value."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from zlib import crc32

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.codecs import CODECS, Rows, Status
from kirana.codecs.packed.layout import row_bytes
from kirana.codecs.rows import Provenance
from kirana.schema import Feature, FeatureGroup
from tests.unit.codecs.packed_batches import (
    MIXED,
    NOW,
    NUMBERS,
    ROWS,
    Row,
    assert_fill_agrees,
    assert_neighbours_are_right,
    cells,
    encode,
    group_of,
    listed,
    same,
    tables,
    tombstone,
)
from tests.unit.codecs.packed_reader import read_row

pytestmark = pytest.mark.usefixtures("inmost_loops")

PACKED = CODECS["packed"]
FEW = settings(max_examples=25)
HEADER = 24
SUM = 4
BOTH = pytest.mark.parametrize("schema", [MIXED, NUMBERS], ids=["with strings", "numbers"])


def summed(group: FeatureGroup) -> FeatureGroup:
    return replace(group, checksum=True)


def flipped(value: bytes, bit: int) -> bytes:
    damaged = bytearray(value)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def assert_holds(rows: Rows, group: FeatureGroup, wanted: Sequence[Row]) -> None:
    assert rows.status.tolist() == [Status.OK] * len(wanted)
    for feature in group.current.features:
        found = [listed(row[feature.name], feature.shape) for row in wanted]
        assert same(cells(rows, feature.name), found)
    assert_fill_agrees(rows, [f for f in group.current.features if f.dtype != "string"], group)


# the format


@FEW
@given(tables())
def test_what_was_encoded_is_decoded(table: tuple[FeatureGroup, list[Row]]) -> None:
    group, rows = table
    values = encode(summed(group), rows)
    assert_holds(PACKED.decode(values, summed(group), NOW), group, rows)
    for value, row in zip(values, rows, strict=True):
        assert_holds(PACKED.decode([value], summed(group), NOW), group, [row])


@FEW
@given(tables())
def test_a_row_is_the_plain_one_with_a_flag_and_the_crc_of_its_body(
    table: tuple[FeatureGroup, list[Row]],
) -> None:
    group, rows = table
    specs = [(f.name, f.dtype, f.shape) for f in group.current.features]
    for value, plain in zip(encode(summed(group), rows), encode(group, rows), strict=True):
        body = plain[HEADER:]
        assert value == plain[:1] + b"\x02" + plain[2:] + crc32(body).to_bytes(4, "little")
        assert PACKED.order(value) == PACKED.order(plain)
        assert PACKED.expiry_s(value) == PACKED.expiry_s(plain)
        assert read_row(value[:-SUM], specs).body == body


@BOTH
def test_the_size_of_a_row_that_a_cache_reckons_with_is_its_length(
    schema: Sequence[Feature],
) -> None:
    group = summed(group_of(schema))
    lengths = {len(value) for value in encode(group, ROWS)}
    assert {row_bytes(group)} == ({0} if schema is MIXED else lengths)


@FEW
@given(tables(), st.data())
def test_the_rows_tell_by_themselves_whether_they_have_one(
    table: tuple[FeatureGroup, list[Row]], data: st.DataObject
) -> None:
    """The group's choice is that of its writers: it may change while rows stay."""
    group, rows = table
    with_sum, without = encode(summed(group), rows), encode(group, rows)
    picked = [data.draw(st.booleans()) for _ in rows]
    values = [with_sum[at] if each else without[at] for at, each in enumerate(picked)]
    for reader in (group, summed(group)):
        assert_holds(PACKED.decode(values, reader, NOW), group, rows)


@BOTH
def test_tombstones_missing_and_expired_rows_stay_what_they_are(schema: Sequence[Feature]) -> None:
    group = summed(group_of(schema, ttl_ms=1_000))
    first, second, third = encode(group, ROWS, [NOW * 1000, 0, NOW * 1000])
    values = [tombstone(NOW * 1000, NOW + 9), first, None, second, third]
    rows = PACKED.decode(values, group, NOW)
    missing, okay = Status.MISSING, Status.OK
    assert rows.status.tolist() == [missing, okay, missing, Status.EXPIRED, okay]
    assert cells(rows, "clicks") == [-1, 1, -1, -1, 3]


# damage


@FEW
@given(tables(), st.data())
def test_any_flipped_bit_of_a_body_makes_its_row_corrupt(
    table: tuple[FeatureGroup, list[Row]], data: st.DataObject
) -> None:
    group, rows = table
    values: list[bytes] = encode(summed(group), rows)
    at = data.draw(st.integers(0, len(rows) - 1))
    bit = data.draw(st.integers(HEADER * 8, len(values[at]) * 8 - 1))
    whole = list(rows)
    values[at] = flipped(values[at], bit)
    for reader in (summed(group), group):
        decoded = PACKED.decode(values, reader, NOW)
        expected = [Status.OK] * len(rows)
        expected[at] = Status.CORRUPT
        assert decoded.status.tolist() == expected
        for feature in group.current.features:
            found = cells(decoded, feature.name)
            assert same(found[at], feature.default_array().tolist())
            assert decoded.provenance(feature.name)[at] == Provenance.NO_ROW
            others = [each for place, each in enumerate(found) if place != at]
            wanted = [
                listed(row[feature.name], feature.shape)
                for place, row in enumerate(whole)
                if place != at
            ]
            assert same(others, wanted)
        assert PACKED.decode([values[at]], reader, NOW).status.tolist() == [Status.CORRUPT]


@BOTH
@pytest.mark.parametrize("at", [0, 1, 2])
def test_every_flipped_bit_of_a_body_or_its_sum_is_seen(schema: Sequence[Feature], at: int) -> None:
    group = summed(group_of(schema))
    values = encode(group, ROWS)
    for bit in range(HEADER * 8, len(values[at]) * 8):
        damaged = [*values[:at], flipped(values[at], bit), *values[at + 1 :]]
        assert assert_neighbours_are_right(group, damaged, at).status[at] == Status.CORRUPT


@BOTH
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_flipped_bit_of_a_header_harms_no_value(schema: Sequence[Feature], at: int) -> None:
    """The sum is over the body alone; layout, version, fingerprint and length check the header."""
    group = summed(group_of(schema))
    values = encode(group, ROWS)
    for bit in range(HEADER * 8):
        damaged = [*values[:at], flipped(values[at], bit), *values[at + 1 :]]
        rows = assert_neighbours_are_right(group, damaged, at)
        if rows.status[at] == Status.OK:
            assert bit // 8 in (8, 9, 10, 11, *range(16, 24)), "expiry and event time"
            for feature in schema:
                assert cells(rows, feature.name)[at] == ROWS[at][feature.name]


@BOTH
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_of_a_wrong_length_is_corrupt(schema: Sequence[Feature], at: int) -> None:
    group = summed(group_of(schema))
    values = encode(group, ROWS)
    cut = [values[at][:length] for length in range(len(values[at]))]
    for damaged in (*cut, values[at] + b"\0", values[at] + bytes(SUM), values[at] * 2):
        batch = [*values[:at], damaged, *values[at + 1 :]]
        assert assert_neighbours_are_right(group, batch, at).status[at] == Status.CORRUPT
        assert PACKED.decode([damaged], group, NOW).status.tolist() == [Status.CORRUPT]


@BOTH
def test_a_plain_row_that_claims_a_sum_and_a_summed_one_that_denies_it_are_corrupt(
    schema: Sequence[Feature],
) -> None:
    group = group_of(schema)
    plain, with_sum = encode(group, ROWS)[1], encode(summed(group), ROWS)[1]
    for value in (plain[:1] + b"\x02" + plain[2:], with_sum[:1] + b"\0" + with_sum[2:]):
        for reader in (group, summed(group)):
            assert PACKED.decode([value], reader, NOW).status.tolist() == [Status.CORRUPT]
            batch = [encode(reader, ROWS)[0], value, encode(reader, ROWS)[2]]
            assert assert_neighbours_are_right(reader, batch, 1).status[1] == Status.CORRUPT


@BOTH
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_a_length_that_wraps_round_is_corrupt(schema: Sequence[Feature], flags: int) -> None:
    """2**32 - 1 and the header's 24 are 23, in 32 bits."""
    group = summed(group_of(schema))
    values = encode(group, ROWS)
    for short in range(1, 60):
        for size in (*range(HEADER, HEADER + 9), HEADER + 16, HEADER + 35):
            header = values[1][:1] + bytes([flags]) + values[1][2:12]
            header += (2**32 - short).to_bytes(4, "little") + values[1][16:HEADER]
            damaged = header + bytes(size - HEADER)
            rows = PACKED.decode([values[0], damaged, values[2]], group, NOW)
            assert rows.status.tolist() == [Status.OK, Status.CORRUPT, Status.OK]
            assert cells(rows, "clicks") == [1, -1, 3]


def test_a_string_that_points_into_the_sum_is_corrupt() -> None:
    group = summed(group_of([Feature("title", "string", default="?")]))
    first, second = encode(group, [{"title": "tea"}, {"title": "jam"}])
    for longer in range(1, 9):
        body = second[HEADER : HEADER + 4] + (3 + longer).to_bytes(4, "little")
        body += second[HEADER + 8 : -SUM]
        value = second[:HEADER] + body + crc32(body).to_bytes(4, "little")
        rows = PACKED.decode([first, value], group, NOW)
        assert rows.status.tolist() == [Status.OK, Status.CORRUPT]
        assert cells(rows, "title") == ["tea", "?"]


@BOTH
@FEW
@given(data=st.data())
def test_any_bytes_behind_a_header_give_a_status(
    schema: Sequence[Feature], data: st.DataObject
) -> None:
    group = summed(group_of(schema))
    first, second, third = encode(group, ROWS)
    flags = data.draw(st.integers(0, 3))
    body = data.draw(st.binary(max_size=80))
    off = data.draw(st.sampled_from([0, 0, 0, -SUM, SUM, 1, -1]))
    length = max(len(body) + off, 0).to_bytes(4, "little")
    tail = data.draw(st.sampled_from([b"", crc32(body).to_bytes(4, "little")]))
    value = second[:1] + bytes([flags]) + second[2:12] + length + second[16:HEADER] + body + tail
    rows = assert_neighbours_are_right(group, [first, value, third], 1)
    for feature in schema:
        assert len(cells(rows, feature.name)) == 3
    assert_fill_agrees(rows, [feature for feature in schema if feature.dtype != "string"], group)
