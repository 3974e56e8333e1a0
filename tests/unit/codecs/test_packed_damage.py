"""Damaged rows of the packed codec: they get a status, and do not affect other rows."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.codecs import Status
from kirana.schema import Feature
from tests.unit.codecs.packed_batches import (
    FEW,
    MIXED,
    NOW,
    NUMBERS,
    PACKED,
    ROWS,
    assert_fill_agrees,
    assert_neighbours_are_right,
    cells,
    encode,
    group_of,
)

pytestmark = pytest.mark.usefixtures("inner_loops")

BOTH_SCHEMAS = pytest.mark.parametrize("schema", [MIXED, NUMBERS], ids=["with strings", "numbers"])


@BOTH_SCHEMAS
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_flipped_bit_of_a_header_changes_no_value(
    schema: Sequence[Feature], position: int
) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    for bit in range(24 * 8):
        damaged = bytearray(values[position])
        damaged[bit // 8] ^= 1 << bit % 8
        rows = assert_neighbours_are_right(
            group, [*values[:position], bytes(damaged), *values[position + 1 :]], position
        )
        if rows.status[position] == Status.OK:
            cells_of_row = {feature.name: cells(rows, feature.name)[position] for feature in schema}
            assert cells_of_row == {
                feature.name: ROWS[position][feature.name] for feature in schema
            }
        byte = bit // 8
        # All bytes of the header but those of the flags, the expiry and the event time.
        if byte in (0, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15):
            assert rows.status[position] == Status.CORRUPT


@BOTH_SCHEMAS
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_flipped_bit_of_a_body_changes_no_other_row(
    schema: Sequence[Feature], position: int
) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    for bit in range(24 * 8, len(values[position]) * 8):
        damaged = bytearray(values[position])
        damaged[bit // 8] ^= 1 << bit % 8
        assert_neighbours_are_right(
            group, [*values[:position], bytes(damaged), *values[position + 1 :]], position
        )


@BOTH_SCHEMAS
@pytest.mark.parametrize("position", [0, 1, 2])
def test_a_row_of_the_wrong_length_is_corrupt(schema: Sequence[Feature], position: int) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    truncated = [values[position][:length] for length in range(len(values[position]))]
    for damaged in (*truncated, values[position] + b"\0", values[position] * 2):
        rows = assert_neighbours_are_right(
            group, [*values[:position], damaged, *values[position + 1 :]], position
        )
        assert rows.status[position] == Status.CORRUPT
        alone = PACKED.decode([damaged], group, NOW)
        assert alone.status.tolist() == [Status.CORRUPT]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 4), (8, 4), (2**32 - 1, 4), (48, 2**32 - 1), (2**31, 2**31)]
)
def test_a_string_that_points_outside_its_row_is_corrupt(offset: int, length: int) -> None:
    group = group_of(MIXED)
    values = encode(group, ROWS)
    title_start = 24 + 8 + 4  # after the header, `price` and `clicks`
    assert values[1][title_start + 4 : title_start + 8] == len("zwei").to_bytes(4, "little")
    damaged = (
        values[1][:title_start]
        + offset.to_bytes(4, "little")
        + length.to_bytes(4, "little")
        + values[1][title_start + 8 :]
    )
    rows = assert_neighbours_are_right(group, [values[0], damaged, values[2]], 1)
    assert rows.status[1] == Status.CORRUPT


def test_a_string_that_is_not_utf8_is_corrupt() -> None:
    group = group_of(MIXED)
    values = encode(group, ROWS)
    damaged = values[1].replace(b"zwei", b"zw\xffi")
    rows = assert_neighbours_are_right(group, [values[0], damaged, values[2]], 1)
    assert rows.status[1] == Status.CORRUPT


@BOTH_SCHEMAS
@FEW
@given(data=st.data())
def test_any_bytes_give_a_status(schema: Sequence[Feature], data: st.DataObject) -> None:
    group = group_of(schema)
    header = encode(group, ROWS)[0][:24]
    noise = st.binary(max_size=80) | st.binary(min_size=0, max_size=80).map(
        lambda body: header[:12] + len(body).to_bytes(4, "little") + header[16:] + body
    )
    values = data.draw(st.lists(st.none() | noise, max_size=6))
    decoded = PACKED.decode(values, group, NOW)
    assert len(decoded.status) == len(values)
    for position, value in enumerate(values):
        assert (decoded.status[position] == Status.MISSING) >= (value is None)
    for feature in schema:
        assert len(cells(decoded, feature.name)) == len(values)
        assert len(decoded.provenance(feature.name)) == len(values)
    assert_fill_agrees(decoded, [feature for feature in schema if feature.dtype != "string"], group)
