"""`kirana.native.rows.sort_rows`: plain rows by schema version, and positions of the others."""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from kirana.native import rows
from kirana.native.borrowed import Borrowed

STRIDE = 16
NOW = 1_000


def versions() -> rows.Versions:
    """Return one schema version, 1, whose bodies have 16 bytes. The last is the null bitmap."""
    return rows.Versions([(1 << 16 | 1, STRIDE, 15, 1)])


def row(body: bytes, *, number: int = 1, expiry: int = 0, time: int = 7) -> bytes:
    head = (number << 16 | 1).to_bytes(8, "little")
    sizes = expiry.to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return head + sizes + time.to_bytes(8, "little") + body


def whole(bodies: rows.Bodies) -> bytes:
    return bodies.cells(0, STRIDE).tobytes()


BODY = bytes(range(15)) + b"\0"


def test_a_batch_of_one_version_is_one_section() -> None:
    result = rows.sort_rows([row(BODY), row(b"\1" * 16)], versions(), NOW)
    assert (result.status.tolist(), result.event_time_ms.tolist()) == ([0, 0], [7, 7])
    ((number, positions, bodies, has_nulls),) = result.sections
    assert (number, positions, has_nulls, result.other_rows) == (1, None, True, [])
    assert whole(bodies) == BODY + b"\1" * 16


def test_missing_and_expired_rows_are_in_no_section() -> None:
    values = [None, row(BODY, expiry=NOW), row(BODY, expiry=NOW + 1), None]
    result = rows.sort_rows(values, versions(), NOW)
    assert result.status.tolist() == [1, 2, 0, 1]
    assert result.event_time_ms.tolist() == [0, 7, 7, 0]
    ((_, positions, bodies, has_nulls),) = result.sections
    assert positions is not None
    assert (positions.tolist(), whole(bodies), has_nulls) == ([2], BODY, False)


@pytest.mark.parametrize(
    "value",
    [
        b"",
        b"short",
        row(BODY)[:-1],
        row(BODY) + b"x",
        row(BODY[:-1]),
        row(BODY, number=0),
        row(BODY, number=2),
        row(BODY, number=65_535),
        b"\x02" + row(BODY)[1:],
        row(BODY)[:1] + b"\x01" + row(BODY)[2:],
        bytearray(row(BODY)),
        "text",
    ],
    ids=str,
)
def test_rows_that_are_not_plain_are_left_to_python(value: object) -> None:
    result = rows.sort_rows([row(BODY), value], versions(), NOW)  # type: ignore[list-item]
    assert result.other_rows == [1]
    assert [part[1].tolist() for part in result.sections if part[1] is not None] == [[0]]


def test_a_version_with_strings_has_no_plain_rows() -> None:
    result = rows.sort_rows([row(b"")], rows.Versions([(1 << 16 | 1, 0, 0, 1)]), NOW)
    assert result.other_rows == [0]


def test_cells_of_bodies_are_copies() -> None:
    table = np.frombuffer(row(BODY) * 3, dtype=np.uint8).reshape(3, -1).copy()
    ((_, positions, bodies, _),) = rows.sort_rows(table, versions(), NOW).sections
    assert (positions, len(bodies)) == (None, 3)
    cells = bodies.cells(4, 8)
    assert cells.tolist() == [[4, 5, 6, 7]] * 3
    assert cells.flags.c_contiguous
    assert bodies.cells(3, 3).shape == (3, 0)
    cells[:] = 0
    assert whole(bodies) == BODY * 3
    for start, stop in ((-1, 3), (2, 1), (0, STRIDE + 1)):
        with pytest.raises(ValueError, match="within a body"):
            bodies.cells(start, stop)


def test_cells_are_read_from_the_values_of_their_rows() -> None:
    values = [None, *(row(bytes([i]) * 15 + b"\0") for i in range(40)), row(b"short")]
    values[5] = row(BODY, expiry=1)
    ((_, positions, bodies, _),) = rows.sort_rows(values, versions(), NOW).sections
    assert positions is not None
    assert bodies.cells(0, 1)[:, 0].tolist() == [position - 1 for position in positions.tolist()]
    assert len(bodies) == 39


@pytest.mark.parametrize(
    "change", [lambda values: values.pop(), lambda values: values.__setitem__(1, None)]
)
def test_values_that_have_changed_since_they_were_sorted_are_refused(
    change: Callable[[list[bytes | None]], object],
) -> None:
    values: list[bytes | None] = [row(BODY), row(BODY)]
    ((_, _, bodies, _),) = rows.sort_rows(values, versions(), NOW).sections
    change(values)
    with pytest.raises(ValueError, match="changed"):
        bodies.cells(0, 1)


def test_strided_tables_are_read() -> None:
    strided = np.frombuffer((row(BODY) + b"--") * 3, dtype=np.uint8).reshape(3, -1)[:, :-2]
    result = rows.sort_rows(strided, versions(), NOW)
    assert result.status.tolist() == [0, 0, 0]
    assert whole(result.sections[0][2]) == BODY * 3


@pytest.mark.parametrize("detached", [False, True])
def test_borrowed_rows_are_read_from_the_table_until_they_are_detached(detached: bool) -> None:
    values = [row(bytes([i]) * 15 + b"\0", time=i) for i in range(6)]
    table = np.frombuffer(b"".join(values), np.uint8).reshape(6, -1).copy()
    borrowed = Borrowed(table, np.array([4, 0, 4]))
    result = rows.sort_rows(borrowed, versions(), NOW)
    ((_, _, bodies, _),) = result.sections
    if detached:
        borrowed.detach()
    table[:] = 0
    expected = [4, 0, 4] if detached else [0, 0, 0]
    assert result.event_time_ms.tolist() == [4, 0, 4]
    assert bodies.cells(0, 1)[:, 0].tolist() == expected


def test_a_table_may_be_empty_but_must_hold_whole_rows_of_bytes() -> None:
    assert rows.sort_rows(np.zeros((0, 40), np.uint8), versions(), NOW).other_rows == []
    assert rows.sort_rows(np.zeros((2, 0), np.uint8), versions(), NOW).other_rows == [0, 1]
    with pytest.raises(ValueError, match="side by side"):
        rows.sort_rows(np.zeros((40, 2), np.uint8).T, versions(), NOW)
    with pytest.raises(ValueError, match="Buffer"):
        rows.sort_rows(np.zeros((2, 40), np.uint16), versions(), NOW)  # type: ignore[arg-type]


def test_no_references_are_leaked() -> None:
    value = row(BODY)
    before = sys.getrefcount(value)
    for _ in range(100):
        rows.sort_rows([value, None, value], versions(), NOW)
    assert sys.getrefcount(value) == before


class Longer(list[bytes | None]):
    """A list whose `__len__` returns more than its real length."""

    def __len__(self) -> int:
        return 10_000


def test_the_length_of_a_list_subclass_is_ignored() -> None:
    result = rows.sort_rows(Longer([row(BODY)]), versions(), NOW)
    assert result.status.tolist() == [0]


@pytest.mark.parametrize("order", ["backward", "one row", "every other"])
def test_tables_with_any_row_stride_are_read(order: str) -> None:
    values = [row(bytes([i]) * 15 + b"\0", time=i) for i in range(6)]
    table = np.frombuffer(b"".join(values), np.uint8).reshape(6, -1)
    expected, rearranged = {
        "backward": ([5, 4, 3, 2, 1, 0], table[::-1]),
        "one row": ([0, 0, 0], np.broadcast_to(table[:1], (3, table.shape[1]))),
        "every other": ([5, 3, 1], table[::-2]),
    }[order]
    result = rows.sort_rows(rearranged, versions(), NOW)
    ((_, _, bodies, _),) = result.sections
    assert result.event_time_ms.tolist() == bodies.cells(0, 1)[:, 0].tolist() == expected


def test_the_highest_version_number_is_supported() -> None:
    known = rows.Versions([(number << 16 | 1, STRIDE, 15, 1) for number in range(1, 65_536)])
    numbers = [65_535, 1, 256, 65_535, 65_534]
    result = rows.sort_rows([row(BODY, number=number) for number in numbers], known, NOW)
    by_number = {
        number: positions.tolist()
        for number, positions, _, _ in result.sections
        if positions is not None
    }
    assert by_number == {1: [1], 256: [2], 65_534: [4], 65_535: [0, 3]}


def test_the_largest_times_and_expiries_are_supported() -> None:
    last = (1 << 32) - 1
    values: list[bytes | None] = [
        row(BODY, expiry=last, time=(1 << 64) - 1),
        row(BODY, expiry=last),
    ]
    for now, status in ((last - 1, 0), (last, 2), ((1 << 64) - 1, 2)):
        result = rows.sort_rows(values, versions(), now)
        assert result.status.tolist() == [status] * 2
        assert result.event_time_ms.tolist() == [(1 << 64) - 1, 7]
    with pytest.raises(OverflowError):
        rows.sort_rows(values, versions(), -1)
