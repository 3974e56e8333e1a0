from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
import pytest

from kirana.native import borrowed as lending
from kirana.native import rows

STRIDE = 16
NOW = 1_000


def versions() -> rows.Versions:
    """One version, whose first word says number 1; 16 bytes, the last of them the bitmap."""
    return rows.Versions([(1 << 16 | 1, STRIDE, 15, 1)])


def row(body: bytes, *, number: int = 1, expiry: int = 0, time: int = 7) -> bytes:
    head = (number << 16 | 1).to_bytes(8, "little")
    sizes = expiry.to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return head + sizes + time.to_bytes(8, "little") + body


def whole(bodies: rows.Bodies) -> bytes:
    return bodies.cells(0, STRIDE).tobytes()


BODY = bytes(range(15)) + b"\0"


def test_a_batch_of_one_version_is_all_of_its_part() -> None:
    found = rows.sort_rows([row(BODY), row(b"\1" * 16)], versions(), NOW)
    assert (found.status.tolist(), found.event_time_ms.tolist()) == ([0, 0], [7, 7])
    ((number, places, bodies, has_nulls),) = found.sections
    assert (number, places, has_nulls, found.odd) == (1, None, True, [])
    assert whole(bodies) == BODY + b"\1" * 16


def test_missing_and_expired_rows_are_in_no_part() -> None:
    values = [None, row(BODY, expiry=NOW), row(BODY, expiry=NOW + 1), None]
    found = rows.sort_rows(values, versions(), NOW)
    assert found.status.tolist() == [1, 2, 0, 1]
    assert found.event_time_ms.tolist() == [0, 7, 7, 0]
    ((_, places, bodies, has_nulls),) = found.sections
    assert places is not None
    assert (places.tolist(), whole(bodies), has_nulls) == ([2], BODY, False)


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
def test_what_is_not_plain_is_left_to_python(value: object) -> None:
    found = rows.sort_rows([row(BODY), value], versions(), NOW)  # type: ignore[list-item]
    assert found.odd == [1]
    assert [part[1].tolist() for part in found.sections if part[1] is not None] == [[0]]


def test_a_version_with_strings_has_no_plain_rows() -> None:
    found = rows.sort_rows([row(b"")], rows.Versions([(1 << 16 | 1, 0, 0, 1)]), NOW)
    assert found.odd == [0]


def test_what_is_asked_for_of_bodies_is_copied() -> None:
    table = np.frombuffer(row(BODY) * 3, dtype=np.uint8).reshape(3, -1).copy()
    ((_, places, bodies, _),) = rows.sort_rows(table, versions(), NOW).sections
    assert (places, len(bodies)) == (None, 3)
    cells = bodies.cells(4, 8)
    assert cells.tolist() == [[4, 5, 6, 7]] * 3
    assert cells.flags.c_contiguous
    assert bodies.cells(3, 3).shape == (3, 0)
    cells[:] = 0
    assert whole(bodies) == BODY * 3
    for start, stop in ((-1, 3), (2, 1), (0, STRIDE + 1)):
        with pytest.raises(ValueError, match="within a body"):
            bodies.cells(start, stop)


def test_bodies_of_some_rows_are_cut_out_of_their_values() -> None:
    values = [None, *(row(bytes([at]) * 15 + b"\0") for at in range(40)), row(b"short")]
    values[5] = row(BODY, expiry=1)
    ((_, places, bodies, _),) = rows.sort_rows(values, versions(), NOW).sections
    assert places is not None
    assert bodies.cells(0, 1)[:, 0].tolist() == [at - 1 for at in places.tolist()]
    assert len(bodies) == 39


@pytest.mark.parametrize("change", [lambda of: of.pop(), lambda of: of.__setitem__(1, None)])
def test_values_that_changed_since_are_told(change: Callable[[list[bytes | None]], object]) -> None:
    values: list[bytes | None] = [row(BODY), row(BODY)]
    ((_, _, bodies, _),) = rows.sort_rows(values, versions(), NOW).sections
    change(values)
    with pytest.raises(ValueError, match="changed"):
        bodies.cells(0, 1)


def test_tables_that_are_strided_are_read() -> None:
    strided = np.frombuffer((row(BODY) + b"--") * 3, dtype=np.uint8).reshape(3, -1)[:, :-2]
    found = rows.sort_rows(strided, versions(), NOW)
    assert found.status.tolist() == [0, 0, 0]
    assert whole(found.sections[0][2]) == BODY * 3


@pytest.mark.parametrize("kept", [False, True])
def test_borrowed_rows_are_read_where_they_lie(kept: bool) -> None:
    values = [row(bytes([at]) * 15 + b"\0", time=at) for at in range(6)]
    table = np.frombuffer(b"".join(values), np.uint8).reshape(6, -1).copy()
    borrowed = lending.Borrowed(table, np.array([4, 0, 4]))
    found = rows.sort_rows(borrowed, versions(), NOW)
    ((_, _, bodies, _),) = found.sections
    if kept:
        borrowed.keep()
    table[:] = 0
    wanted = [4, 0, 4] if kept else [0, 0, 0]
    assert found.event_time_ms.tolist() == [4, 0, 4]
    assert bodies.cells(0, 1)[:, 0].tolist() == wanted


def test_tables_of_other_shapes_are_told() -> None:
    assert rows.sort_rows(np.zeros((0, 40), np.uint8), versions(), NOW).odd == []
    assert rows.sort_rows(np.zeros((2, 0), np.uint8), versions(), NOW).odd == [0, 1]
    with pytest.raises(ValueError, match="side by side"):
        rows.sort_rows(np.zeros((40, 2), np.uint8).T, versions(), NOW)
    with pytest.raises(ValueError, match="Buffer"):
        rows.sort_rows(np.zeros((2, 40), np.uint16), versions(), NOW)  # type: ignore[arg-type]


def test_no_reference_is_kept() -> None:
    value = row(BODY)
    before = sys.getrefcount(value)
    for _ in range(100):
        rows.sort_rows([value, None, value], versions(), NOW)
    assert sys.getrefcount(value) == before


class Longer(list[bytes | None]):
    """Says that it is longer than it is."""

    def __len__(self) -> int:
        return 10_000


def test_a_list_of_another_kind_is_read_as_a_list() -> None:
    found = rows.sort_rows(Longer([row(BODY)]), versions(), NOW)
    assert found.status.tolist() == [0]


@pytest.mark.parametrize("order", ["backward", "one row", "every other"])
def test_tables_of_any_step_are_read(order: str) -> None:
    values = [row(bytes([at]) * 15 + b"\0", time=at) for at in range(6)]
    table = np.frombuffer(b"".join(values), np.uint8).reshape(6, -1)
    wanted, given_ = {
        "backward": ([5, 4, 3, 2, 1, 0], table[::-1]),
        "one row": ([0, 0, 0], np.broadcast_to(table[:1], (3, table.shape[1]))),
        "every other": ([5, 3, 1], table[::-2]),
    }[order]
    found = rows.sort_rows(given_, versions(), NOW)
    ((_, _, bodies, _),) = found.sections
    assert found.event_time_ms.tolist() == bodies.cells(0, 1)[:, 0].tolist() == wanted


def test_the_highest_number_of_a_version_is_one_too() -> None:
    known = rows.Versions([(at << 16 | 1, STRIDE, 15, 1) for at in range(1, 65_536)])
    numbers = [65_535, 1, 256, 65_535, 65_534]
    found = rows.sort_rows([row(BODY, number=each) for each in numbers], known, NOW)
    places = {number: where.tolist() for number, where, _, _ in found.sections if where is not None}
    assert places == {1: [1], 256: [2], 65_534: [4], 65_535: [0, 3]}


def test_times_and_expiries_may_be_as_large_as_they_get() -> None:
    last = (1 << 32) - 1
    values: list[bytes | None] = [
        row(BODY, expiry=last, time=(1 << 64) - 1),
        row(BODY, expiry=last),
    ]
    for now, status in ((last - 1, 0), (last, 2), ((1 << 64) - 1, 2)):
        found = rows.sort_rows(values, versions(), now)
        assert found.status.tolist() == [status] * 2
        assert found.event_time_ms.tolist() == [(1 << 64) - 1, 7]
    with pytest.raises(OverflowError):
        rows.sort_rows(values, versions(), -1)
