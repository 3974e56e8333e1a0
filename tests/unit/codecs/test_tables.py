"""Batches that are given as tables or in pieces, and decode like batches of single values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.codecs import CODECS, Rows, Status
from kirana.codecs.rows import MatrixPlan, Piece
from kirana.schema import Feature, FeatureGroup
from tests.unit.codecs.packed_batches import (
    KINDS,
    NOW,
    NOW_MS,
    cells,
    encode,
    group_of,
    histories,
    row_of,
    same,
    tombstone,
)

pytestmark = pytest.mark.usefixtures("inner_loops")

PACKED = CODECS["packed"]
TEXT = CODECS["text"]
FEW = settings(max_examples=50)
Values = list[bytes | None]


@st.composite
def batches(draw: st.DrawFn) -> tuple[FeatureGroup, Values]:
    """Draw a group with up to three schema versions, and valid and invalid rows of them."""
    group = draw(histories())
    foreign = replace(
        group, versions=tuple(replace(version, group="other.g") for version in group.versions)
    )
    values: Values = []
    for kind in draw(st.lists(st.sampled_from(KINDS), max_size=8)):
        number = draw(st.integers(1, len(group.versions)))
        row = draw(row_of(group.versions[number - 1].features))
        time = NOW_MS - 1_000 if kind == "expired" else NOW_MS
        writer = foreign if kind == "foreign" else group
        writer = replace(writer, checksum=draw(st.booleans()))
        (value,) = encode(writer, [row], [time], number)
        if kind == "unknown":
            value = value[:2] + (len(group.versions) + 1).to_bytes(2, "little") + value[4:]
        elif kind == "cut":
            value = value[: draw(st.integers(0, len(value) - 1))]
        elif kind == "deleted":
            value = tombstone(NOW_MS, NOW + 9)
        elif value and draw(st.booleans()):
            bit = draw(st.integers(0, len(value) * 8 - 1))
            damaged = bytearray(value)
            damaged[bit // 8] ^= 1 << bit % 8
            value = bytes(damaged)
        values.append(None if kind == "missing" else value)
    return group, values


def assert_same_rows(actual: Rows, expected: Rows, group: FeatureGroup) -> None:
    """Assert that two decoded batches agree in every status, value and matrix."""
    assert actual.status.tolist() == expected.status.tolist()
    assert actual.event_time_ms.tolist() == expected.event_time_ms.tolist()
    assert actual.unknown_versions == expected.unknown_versions
    assert actual.any_nulls == expected.any_nulls
    for feature in group.current.features:
        assert same(cells(actual, feature.name), cells(expected, feature.name))
        first, second = actual.column(feature.name).values, expected.column(feature.name).values
        assert (first.dtype, first.shape) == (second.dtype, second.shape)
        assert same(first.tolist(), second.tolist())
        codes = actual.provenance(feature.name).tolist()
        assert codes == expected.provenance(feature.name).tolist()
    numeric = [feature for feature in group.current.features if feature.dtype != "string"]
    if numeric:
        plan = MatrixPlan(group.current, tuple(feature.name for feature in numeric))
        width = sum(feature.size for feature in numeric)
        matrices = []
        for rows in (actual, expected):
            out = np.full((len(actual.status), width), 12345.0, dtype=np.float32)
            # A flipped bit may turn an infinity into a signalling NaN.
            with np.errstate(over="ignore", invalid="ignore"):
                rows.fill(out, plan)
            matrices.append(out)
            view = rows.view(plan)
            if view is not None:
                np.testing.assert_array_equal(view, out)
        np.testing.assert_array_equal(matrices[0], matrices[1])


def table_of(values: Sequence[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    """Return values of one length as `uint8[rows, bytes]`."""
    size = len(values[0])
    joined = np.frombuffer(b"".join(values), dtype=np.uint8)
    return joined.reshape(len(values), size)


def by_length(values: Values) -> dict[int, list[int]]:
    """Return the positions of the values that are not None, by their length."""
    positions: dict[int, list[int]] = {}
    for position, value in enumerate(values):
        if value is not None:
            positions.setdefault(len(value), []).append(position)
    return positions


def piece_of(values: Values, positions: Sequence[int], *, as_table: bool) -> Piece:
    """Return the values at `positions` as a piece, in a table or one by one."""
    chosen = [value for position in positions if (value := values[position]) is not None]
    indices = np.array(positions, dtype=np.intp)
    return Piece(indices, table_of(chosen) if as_table and chosen else chosen)


@FEW
@given(batches(), st.data())
def test_tables_decode_like_their_values(
    batch: tuple[FeatureGroup, Values], data: st.DataObject
) -> None:
    """Decode one piece per row length. Some pieces are tables. Rows in no piece are missing."""
    group, values = batch
    pieces = [
        piece_of(values, positions, as_table=data.draw(st.integers(0, 3)) > 0)
        for positions in by_length(values).values()
    ]
    pieces = data.draw(st.permutations(pieces))
    expected = PACKED.decode(values, group, NOW)
    assert_same_rows(PACKED.decode_pieces(len(values), pieces, group, NOW), expected, group)


@FEW
@given(batches())
def test_a_single_table_decodes_like_its_values(batch: tuple[FeatureGroup, Values]) -> None:
    group, values = batch
    for positions in by_length(values).values():
        chosen: Values = [values[position] for position in positions]
        piece = piece_of(chosen, range(len(chosen)), as_table=True)
        rows = PACKED.decode_pieces(len(chosen), [piece], group, NOW)
        assert_same_rows(rows, PACKED.decode(chosen, group, NOW), group)


@FEW
@given(batches(), st.data())
def test_pieces_decode_like_the_whole_batch(
    batch: tuple[FeatureGroup, Values], data: st.DataObject
) -> None:
    group, values = batch
    numbers = [data.draw(st.integers(0, 2)) for _ in values]
    pieces = []
    for number in range(3):
        positions = [position for position, drawn in enumerate(numbers) if drawn == number]
        pieces.append(
            Piece(np.array(positions, dtype=np.intp), [values[position] for position in positions])
        )
    expected = PACKED.decode(values, group, NOW)
    assert_same_rows(PACKED.decode_pieces(len(values), pieces, group, NOW), expected, group)


@FEW
@given(batches(), st.data())
def test_a_piece_may_have_its_rows_in_any_order(
    batch: tuple[FeatureGroup, Values], data: st.DataObject
) -> None:
    group, values = batch
    positions = data.draw(st.permutations(range(len(values))))
    piece = Piece(np.array(positions, dtype=np.intp), [values[position] for position in positions])
    rows = PACKED.decode_pieces(len(values), [piece] if values else [], group, NOW)
    assert_same_rows(rows, PACKED.decode(values, group, NOW), group)


@pytest.mark.parametrize("codec", ["packed", "text"])
def test_a_row_in_no_piece_is_missing(codec: str) -> None:
    group = group_of([Feature("a", "int8", default=9)])
    nothing = Piece(np.array([], dtype=np.intp), [])
    for pieces in ([], [nothing]):
        rows = CODECS[codec].decode_pieces(2, pieces, group, NOW)
        assert rows.status.tolist() == [Status.MISSING] * 2
        assert cells(rows, "a") == [9, 9]
        assert CODECS[codec].decode_pieces(0, pieces, group, NOW).status.tolist() == []


def test_a_table_of_rows_with_strings_is_read() -> None:
    """Rows with strings may also form a table if they happen to have one length."""
    number, text = Feature("a", "int64"), Feature("s", "string", default="?")
    for versions in ([[number, text], [number, Feature("b", "int64")]], [[number], [number, text]]):
        group = group_of(*versions)
        with_string = next(i for i, features in enumerate(versions, start=1) if text in features)
        values = encode(group, [{"a": 5, "s": ""}, {"a": 6, "s": ""}], version=with_string)
        table = Piece(np.arange(2), table_of(values))
        rows = PACKED.decode_pieces(2, [table], group, NOW)
        assert rows.status.tolist() == [Status.OK] * 2
        assert cells(rows, "a") == [5, 6]


def test_the_text_codec_reads_a_table() -> None:
    group = replace(group_of([Feature("a", "int8", default=9)]), codec="text")
    good = b"7;0;1;5;" + f"{group.current.fingerprint:08x}".encode()
    table = Piece(np.arange(2), table_of([good, b"\0" * len(good)]))
    rows = TEXT.decode_pieces(2, [table], group, NOW)
    assert rows.status.tolist() == [Status.OK, Status.CORRUPT]
    assert cells(rows, "a") == [7, 9]
