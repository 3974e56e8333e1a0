"""Damaged rows of the packed codec have a status, and harm no other row."""

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

pytestmark = pytest.mark.usefixtures("inmost_loops")

DAMAGED = pytest.mark.parametrize("schema", [MIXED, NUMBERS], ids=["with strings", "numbers"])


@DAMAGED
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_flipped_bit_of_a_header_harms_no_value(schema: Sequence[Feature], at: int) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    for bit in range(24 * 8):
        damaged = bytearray(values[at])
        damaged[bit // 8] ^= 1 << bit % 8
        rows = assert_neighbours_are_right(
            group, [*values[:at], bytes(damaged), *values[at + 1 :]], at
        )
        if rows.status[at] == Status.OK:
            found = {feature.name: cells(rows, feature.name)[at] for feature in schema}
            assert found == {feature.name: ROWS[at][feature.name] for feature in schema}
        field = bit // 8
        if field in (0, 2, 3, 4, 5, 6, 7, 12, 13, 14, 15):
            assert rows.status[at] == Status.CORRUPT


@DAMAGED
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_flipped_bit_of_a_body_harms_no_neighbour(schema: Sequence[Feature], at: int) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    for bit in range(24 * 8, len(values[at]) * 8):
        damaged = bytearray(values[at])
        damaged[bit // 8] ^= 1 << bit % 8
        assert_neighbours_are_right(group, [*values[:at], bytes(damaged), *values[at + 1 :]], at)


@DAMAGED
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_row_of_a_wrong_length_is_corrupt(schema: Sequence[Feature], at: int) -> None:
    group = group_of(schema)
    values = encode(group, ROWS)
    cut = [values[at][:length] for length in range(len(values[at]))]
    for damaged in (*cut, values[at] + b"\0", values[at] * 2):
        rows = assert_neighbours_are_right(group, [*values[:at], damaged, *values[at + 1 :]], at)
        assert rows.status[at] == Status.CORRUPT
        alone = PACKED.decode([damaged], group, NOW)
        assert alone.status.tolist() == [Status.CORRUPT]


@pytest.mark.parametrize(
    ("offset", "length"), [(0, 4), (8, 4), (2**32 - 1, 4), (48, 2**32 - 1), (2**31, 2**31)]
)
def test_a_string_that_points_out_of_its_place_is_corrupt(offset: int, length: int) -> None:
    group = group_of(MIXED)
    values = encode(group, ROWS)
    at = 24 + 8 + 4  # after the header, price and clicks
    assert values[1][at + 4 : at + 8] == len("zwei").to_bytes(4, "little")
    damaged = (
        values[1][:at]
        + offset.to_bytes(4, "little")
        + length.to_bytes(4, "little")
        + values[1][at + 8 :]
    )
    rows = assert_neighbours_are_right(group, [values[0], damaged, values[2]], 1)
    assert rows.status[1] == Status.CORRUPT


def test_a_string_that_is_no_utf8_is_corrupt() -> None:
    group = group_of(MIXED)
    values = encode(group, ROWS)
    damaged = values[1].replace(b"zwei", b"zw\xffi")
    rows = assert_neighbours_are_right(group, [values[0], damaged, values[2]], 1)
    assert rows.status[1] == Status.CORRUPT


@DAMAGED
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
    for at, value in enumerate(values):
        assert (decoded.status[at] == Status.MISSING) >= (value is None)
    for feature in schema:
        assert len(cells(decoded, feature.name)) == len(values)
        assert len(decoded.provenance(feature.name)) == len(values)
    assert_fill_agrees(decoded, [feature for feature in schema if feature.dtype != "string"], group)
