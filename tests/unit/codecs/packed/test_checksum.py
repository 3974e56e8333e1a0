"""Packed rows with `checksum: crc32`: a damaged row is never read with a wrong value."""

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

pytestmark = pytest.mark.usefixtures("inner_loops")

PACKED = CODECS["packed"]
FEW = settings(max_examples=25)
HEADER_BYTES = 24
CHECKSUM_BYTES = 4
BOTH_SCHEMAS = pytest.mark.parametrize("schema", [MIXED, NUMBERS], ids=["with strings", "numbers"])


def checksummed(group: FeatureGroup) -> FeatureGroup:
    """Return the group with checksums."""
    return replace(group, checksum=True)


def flipped(value: bytes, bit: int) -> bytes:
    damaged = bytearray(value)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def assert_holds(rows: Rows, group: FeatureGroup, wanted: Sequence[Row]) -> None:
    """Assert that every decoded row is OK and holds the wanted values."""
    assert rows.status.tolist() == [Status.OK] * len(wanted)
    for feature in group.current.features:
        expected = [listed(row[feature.name], feature.shape) for row in wanted]
        assert same(cells(rows, feature.name), expected)
    assert_fill_agrees(rows, [f for f in group.current.features if f.dtype != "string"], group)


# the format


@FEW
@given(tables())
def test_encoded_rows_decode_to_the_same_values(table: tuple[FeatureGroup, list[Row]]) -> None:
    group, rows = table
    values = encode(checksummed(group), rows)
    assert_holds(PACKED.decode(values, checksummed(group), NOW), group, rows)
    for value, row in zip(values, rows, strict=True):
        assert_holds(PACKED.decode([value], checksummed(group), NOW), group, [row])


@FEW
@given(tables())
def test_a_row_is_a_plain_row_with_a_flag_and_the_crc_of_its_body(
    table: tuple[FeatureGroup, list[Row]],
) -> None:
    group, rows = table
    specs = [(f.name, f.dtype, f.shape) for f in group.current.features]
    for value, plain in zip(encode(checksummed(group), rows), encode(group, rows), strict=True):
        body = plain[HEADER_BYTES:]
        assert value == plain[:1] + b"\x02" + plain[2:] + crc32(body).to_bytes(4, "little")
        assert PACKED.write_order(value) == PACKED.write_order(plain)
        assert PACKED.expiry_s(value) == PACKED.expiry_s(plain)
        assert read_row(value[:-CHECKSUM_BYTES], specs).body == body


@BOTH_SCHEMAS
def test_row_bytes_gives_the_length_of_a_row_without_strings(
    schema: Sequence[Feature],
) -> None:
    group = checksummed(group_of(schema))
    lengths = {len(value) for value in encode(group, ROWS)}
    assert {row_bytes(group)} == ({0} if schema is MIXED else lengths)


@FEW
@given(tables(), st.data())
def test_each_row_records_whether_it_has_a_checksum(
    table: tuple[FeatureGroup, list[Row]], data: st.DataObject
) -> None:
    """The setting of the group applies only to writes: rows from before a change stay stored."""
    group, rows = table
    checksummed_values, plain_values = encode(checksummed(group), rows), encode(group, rows)
    picked = [data.draw(st.booleans()) for _ in rows]
    values = [
        checksummed_values[i] if with_checksum else plain_values[i]
        for i, with_checksum in enumerate(picked)
    ]
    for reader in (group, checksummed(group)):
        assert_holds(PACKED.decode(values, reader, NOW), group, rows)


@BOTH_SCHEMAS
def test_tombstones_missing_and_expired_rows_keep_their_status(schema: Sequence[Feature]) -> None:
    group = checksummed(group_of(schema, ttl_ms=1_000))
    first, second, third = encode(group, ROWS, [NOW * 1000, 0, NOW * 1000])
    values = [tombstone(NOW * 1000, NOW + 9), first, None, second, third]
    rows = PACKED.decode(values, group, NOW)
    missing, ok = Status.MISSING, Status.OK
    assert rows.status.tolist() == [missing, ok, missing, Status.EXPIRED, ok]
    assert cells(rows, "clicks") == [-1, 1, -1, -1, 3]


# damage


@FEW
@given(tables(), st.data())
def test_any_flipped_bit_of_a_body_makes_its_row_corrupt(
    table: tuple[FeatureGroup, list[Row]], data: st.DataObject
) -> None:
    group, rows = table
    values: list[bytes] = encode(checksummed(group), rows)
    position = data.draw(st.integers(0, len(rows) - 1))
    bit = data.draw(st.integers(HEADER_BYTES * 8, len(values[position]) * 8 - 1))
    values[position] = flipped(values[position], bit)
    for reader in (checksummed(group), group):
        decoded = PACKED.decode(values, reader, NOW)
        expected = [Status.OK] * len(rows)
        expected[position] = Status.CORRUPT
        assert decoded.status.tolist() == expected
        for feature in group.current.features:
            column = cells(decoded, feature.name)
            assert same(column[position], feature.default_array().tolist())
            assert decoded.provenance(feature.name)[position] == Provenance.NO_ROW
            other_cells = [value for i, value in enumerate(column) if i != position]
            wanted = [
                listed(row[feature.name], feature.shape)
                for i, row in enumerate(rows)
                if i != position
            ]
            assert same(other_cells, wanted)
        assert PACKED.decode([values[position]], reader, NOW).status.tolist() == [Status.CORRUPT]


@BOTH_SCHEMAS
@pytest.mark.parametrize("position", [0, 1, 2])
def test_every_flipped_bit_of_a_body_or_checksum_is_detected(
    schema: Sequence[Feature], position: int
) -> None:
    group = checksummed(group_of(schema))
    values = encode(group, ROWS)
    for bit in range(HEADER_BYTES * 8, len(values[position]) * 8):
        damaged = [*values[:position], flipped(values[position], bit), *values[position + 1 :]]
        assert (
            assert_neighbours_are_right(group, damaged, position).status[position] == Status.CORRUPT
        )


@BOTH_SCHEMAS
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_flipped_bit_of_a_header_changes_no_value(
    schema: Sequence[Feature], position: int
) -> None:
    """The checksum covers only the body. Other checks find damage to the header."""
    group = checksummed(group_of(schema))
    values = encode(group, ROWS)
    for bit in range(HEADER_BYTES * 8):
        damaged = [*values[:position], flipped(values[position], bit), *values[position + 1 :]]
        rows = assert_neighbours_are_right(group, damaged, position)
        if rows.status[position] == Status.OK:
            assert bit // 8 in (8, 9, 10, 11, *range(16, 24)), (
                "only damage to the expiry and the event time may be undetected"
            )
            for feature in schema:
                assert cells(rows, feature.name)[position] == ROWS[position][feature.name]


@BOTH_SCHEMAS
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_row_of_the_wrong_length_is_corrupt(schema: Sequence[Feature], position: int) -> None:
    group = checksummed(group_of(schema))
    values = encode(group, ROWS)
    truncated = [values[position][:length] for length in range(len(values[position]))]
    for damaged in (
        *truncated,
        values[position] + b"\0",
        values[position] + bytes(CHECKSUM_BYTES),
        values[position] * 2,
    ):
        batch = [*values[:position], damaged, *values[position + 1 :]]
        assert (
            assert_neighbours_are_right(group, batch, position).status[position] == Status.CORRUPT
        )
        assert PACKED.decode([damaged], group, NOW).status.tolist() == [Status.CORRUPT]


@BOTH_SCHEMAS
def test_a_row_with_the_wrong_checksum_flag_is_corrupt(
    schema: Sequence[Feature],
) -> None:
    group = group_of(schema)
    plain_value, checksummed_value = encode(group, ROWS)[1], encode(checksummed(group), ROWS)[1]
    for value in (
        plain_value[:1] + b"\x02" + plain_value[2:],
        checksummed_value[:1] + b"\0" + checksummed_value[2:],
    ):
        for reader in (group, checksummed(group)):
            assert PACKED.decode([value], reader, NOW).status.tolist() == [Status.CORRUPT]
            batch = [encode(reader, ROWS)[0], value, encode(reader, ROWS)[2]]
            assert assert_neighbours_are_right(reader, batch, 1).status[1] == Status.CORRUPT


@BOTH_SCHEMAS
@pytest.mark.parametrize("flags", [0, 1, 2, 3])
def test_a_length_that_overflows_32_bits_is_corrupt(schema: Sequence[Feature], flags: int) -> None:
    """In 32 bits, a length of 2**32 - 1 plus the 24 bytes of the header is 23."""
    group = checksummed(group_of(schema))
    values = encode(group, ROWS)
    for short in range(1, 60):
        for size in (*range(HEADER_BYTES, HEADER_BYTES + 9), HEADER_BYTES + 16, HEADER_BYTES + 35):
            header = values[1][:1] + bytes([flags]) + values[1][2:12]
            header += (2**32 - short).to_bytes(4, "little") + values[1][16:HEADER_BYTES]
            damaged = header + bytes(size - HEADER_BYTES)
            rows = PACKED.decode([values[0], damaged, values[2]], group, NOW)
            assert rows.status.tolist() == [Status.OK, Status.CORRUPT, Status.OK]
            assert cells(rows, "clicks") == [1, -1, 3]


def test_a_string_that_points_into_the_checksum_is_corrupt() -> None:
    group = checksummed(group_of([Feature("title", "string", default="?")]))
    first, second = encode(group, [{"title": "tea"}, {"title": "jam"}])
    for longer in range(1, 9):
        body = second[HEADER_BYTES : HEADER_BYTES + 4] + (3 + longer).to_bytes(4, "little")
        body += second[HEADER_BYTES + 8 : -CHECKSUM_BYTES]
        value = second[:HEADER_BYTES] + body + crc32(body).to_bytes(4, "little")
        rows = PACKED.decode([first, value], group, NOW)
        assert rows.status.tolist() == [Status.OK, Status.CORRUPT]
        assert cells(rows, "title") == ["tea", "?"]


@BOTH_SCHEMAS
@FEW
@given(data=st.data())
def test_any_bytes_after_a_header_give_a_status(
    schema: Sequence[Feature], data: st.DataObject
) -> None:
    group = checksummed(group_of(schema))
    first, second, third = encode(group, ROWS)
    flags = data.draw(st.integers(0, 3))
    body = data.draw(st.binary(max_size=80))
    difference = data.draw(st.sampled_from([0, 0, 0, -CHECKSUM_BYTES, CHECKSUM_BYTES, 1, -1]))
    length = max(len(body) + difference, 0).to_bytes(4, "little")
    checksum = data.draw(st.sampled_from([b"", crc32(body).to_bytes(4, "little")]))
    value = (
        second[:1]
        + bytes([flags])
        + second[2:12]
        + length
        + second[16:HEADER_BYTES]
        + body
        + checksum
    )
    rows = assert_neighbours_are_right(group, [first, value, third], 1)
    for feature in schema:
        assert len(cells(rows, feature.name)) == 3
    assert_fill_agrees(rows, [feature for feature in schema if feature.dtype != "string"], group)
