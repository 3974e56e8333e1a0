"""Rows that come as the rows of a table, or in pieces, mean what they mean one by one."""

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

pytestmark = pytest.mark.usefixtures("inmost_loops")

PACKED = CODECS["packed"]
TEXT = CODECS["text"]
FEW = settings(max_examples=50)
Values = list[bytes | None]


@st.composite
def batches(draw: st.DrawFn) -> tuple[FeatureGroup, Values]:
    """A history, and rows of all of its versions, with and without checksums, good and bad."""
    group = draw(histories())
    foreign = replace(
        group, versions=tuple(replace(each, group="other.g") for each in group.versions)
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
        elif kind == "dead":
            value = tombstone(NOW_MS, NOW + 9)
        elif value and draw(st.booleans()):
            bit = draw(st.integers(0, len(value) * 8 - 1))
            damaged = bytearray(value)
            damaged[bit // 8] ^= 1 << bit % 8
            value = bytes(damaged)
        values.append(None if kind == "missing" else value)
    return group, values


def assert_same_rows(one: Rows, other: Rows, group: FeatureGroup) -> None:
    assert one.status.tolist() == other.status.tolist()
    assert one.event_time_ms.tolist() == other.event_time_ms.tolist()
    assert one.unknown_versions == other.unknown_versions
    assert one.any_nulls == other.any_nulls
    for feature in group.current.features:
        assert same(cells(one, feature.name), cells(other, feature.name))
        first, second = one.column(feature.name).values, other.column(feature.name).values
        assert (first.dtype, first.shape) == (second.dtype, second.shape)
        assert same(first.tolist(), second.tolist())
        codes = one.provenance(feature.name).tolist()
        assert codes == other.provenance(feature.name).tolist()
    numeric = [each for each in group.current.features if each.dtype != "string"]
    if numeric:
        plan = MatrixPlan(group.current, tuple(each.name for each in numeric))
        width = sum(each.size for each in numeric)
        matrices = []
        for rows in (one, other):
            out = np.full((len(one.status), width), 12345.0, dtype=np.float32)
            # damage may make an infinity a signalling NaN
            with np.errstate(over="ignore", invalid="ignore"):
                rows.fill(out, plan)
            matrices.append(out)
            view = rows.view(plan)
            if view is not None:
                np.testing.assert_array_equal(view, out)
        np.testing.assert_array_equal(matrices[0], matrices[1])


def table_of(values: Sequence[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    size = len(values[0])
    joined = np.frombuffer(b"".join(values), dtype=np.uint8)
    return joined.reshape(len(values), size)


def by_length(values: Values) -> dict[int, list[int]]:
    places: dict[int, list[int]] = {}
    for at, value in enumerate(values):
        if value is not None:
            places.setdefault(len(value), []).append(at)
    return places


def piece_of(values: Values, places: Sequence[int], *, as_table: bool) -> Piece:
    chosen = [value for at in places if (value := values[at]) is not None]
    where = np.array(places, dtype=np.intp)
    return Piece(where, table_of(chosen) if as_table and chosen else chosen)


@FEW
@given(batches(), st.data())
def test_tables_agree_with_the_values_that_are_in_them(
    batch: tuple[FeatureGroup, Values], data: st.DataObject
) -> None:
    """One table a length; what is in none is missing."""
    group, values = batch
    pieces = [
        piece_of(values, places, as_table=data.draw(st.integers(0, 3)) > 0)
        for places in by_length(values).values()
    ]
    pieces = data.draw(st.permutations(pieces))
    expected = PACKED.decode(values, group, NOW)
    assert_same_rows(PACKED.decode_pieces(len(values), pieces, group, NOW), expected, group)


@FEW
@given(batches())
def test_each_table_alone_agrees_with_its_values(batch: tuple[FeatureGroup, Values]) -> None:
    group, values = batch
    for places in by_length(values).values():
        chosen: Values = [values[at] for at in places]
        piece = piece_of(chosen, range(len(chosen)), as_table=True)
        rows = PACKED.decode_pieces(len(chosen), [piece], group, NOW)
        assert_same_rows(rows, PACKED.decode(chosen, group, NOW), group)


@FEW
@given(batches(), st.data())
def test_values_in_pieces_agree_with_the_whole(
    batch: tuple[FeatureGroup, Values], data: st.DataObject
) -> None:
    group, values = batch
    owner = [data.draw(st.integers(0, 2)) for _ in values]
    pieces = []
    for each in range(3):
        places = [at for at, mine in enumerate(owner) if mine == each]
        pieces.append(Piece(np.array(places, dtype=np.intp), [values[at] for at in places]))
    expected = PACKED.decode(values, group, NOW)
    assert_same_rows(PACKED.decode_pieces(len(values), pieces, group, NOW), expected, group)


@FEW
@given(batches(), st.data())
def test_a_piece_may_have_its_rows_in_any_order(
    batch: tuple[FeatureGroup, Values], data: st.DataObject
) -> None:
    group, values = batch
    places = data.draw(st.permutations(range(len(values))))
    piece = Piece(np.array(places, dtype=np.intp), [values[at] for at in places])
    rows = PACKED.decode_pieces(len(values), [piece] if values else [], group, NOW)
    assert_same_rows(rows, PACKED.decode(values, group, NOW), group)


@pytest.mark.parametrize("codec", ["packed", "text"])
def test_what_is_in_no_piece_is_missing(codec: str) -> None:
    group = group_of([Feature("a", "int8", default=9)])
    nothing = Piece(np.array([], dtype=np.intp), [])
    for pieces in ([], [nothing]):
        rows = CODECS[codec].decode_pieces(2, pieces, group, NOW)
        assert rows.status.tolist() == [Status.MISSING] * 2
        assert cells(rows, "a") == [9, 9]
        assert CODECS[codec].decode_pieces(0, pieces, group, NOW).status.tolist() == []


def test_a_table_whose_rows_have_strings_is_read() -> None:
    """A group that had strings, or will have them, may have rows of the length of the newest."""
    number, text = Feature("a", "int64"), Feature("s", "string", default="?")
    for versions in ([[number, text], [number, Feature("b", "int64")]], [[number], [number, text]]):
        group = group_of(*versions)
        with_string = next(at for at, each in enumerate(versions, start=1) if text in each)
        values = encode(group, [{"a": 5, "s": ""}, {"a": 6, "s": ""}], version=with_string)
        table = Piece(np.arange(2), table_of(values))
        rows = PACKED.decode_pieces(2, [table], group, NOW)
        assert rows.status.tolist() == [Status.OK] * 2
        assert cells(rows, "a") == [5, 6]


def test_a_table_of_anything_is_text_that_is_read() -> None:
    group = replace(group_of([Feature("a", "int8", default=9)]), codec="text")
    good = b"7;0;1;5;" + f"{group.current.fingerprint:08x}".encode()
    table = Piece(np.arange(2), table_of([good, b"\0" * len(good)]))
    rows = TEXT.decode_pieces(2, [table], group, NOW)
    assert rows.status.tolist() == [Status.OK, Status.CORRUPT]
    assert cells(rows, "a") == [7, 9]
