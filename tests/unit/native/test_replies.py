"""The compiled reader of answers against hiredis, in whatever pieces the bytes come."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import hiredis
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.native import rows
from kirana.native.replies import Unusual, ValueReader, Values
from tests.unit.native.test_rows import BODY, NOW, row, versions

ARRAY = -1
FEW = settings(max_examples=150)

NILS = (b"$-1\r\n", b"_\r\n")
STRINGS = st.sampled_from(NILS) | st.binary(max_size=12).map(lambda each: string(each))
ANSWERS = st.lists(st.tuples(st.booleans(), st.lists(STRINGS, max_size=4)), max_size=5)
CUTS = st.lists(st.integers(0, 200), max_size=8)

# what is like an answer, and mostly is none
SHREDS = st.lists(
    st.sampled_from(
        b"$|$1\r\na\r\n|$-1\r\n|$0\r\n\r\n|_\r\n|_|1|0|-1|\r\n|\r|\n|a|$01\r\n|$-0\r\n|$+1\r\n|$-2\r\n"
        b"|:1\r\n|+OK\r\n|-ERR\r\n|*0\r\n|*1\r\n|#t\r\n|>1\r\n|$1\n|$12\n|$99999999999\r\n".split(
            b"|"
        )
    ),
    max_size=8,
).map(b"".join)


def string(value: bytes) -> bytes:
    return b"$%d\r\n%b\r\n" % (len(value), value)


def array(*strings: bytes) -> bytes:
    return b"*%d\r\n%b" % (len(strings), b"".join(strings))


def parsed(data: bytes) -> list[Any]:
    """What hiredis finds in it, up to what is not whole, or is no answer."""
    parser = hiredis.Reader()
    parser.feed(data)
    found = []
    try:
        while (answer := parser.gets()) is not False:
            found.append(answer)
    except hiredis.ProtocolError:
        pass
    return found


def read(data: bytes, strings: int = ARRAY) -> Values | None:
    return ValueReader().read(bytearray(data), 0, len(data), strings)


def whole(data: bytes, strings: int = ARRAY) -> Values:
    found = read(data, strings)
    assert found is not None
    return found


@FEW
@given(ANSWERS, CUTS, st.booleans())
def test_what_comes_in_pieces_is_what_hiredis_reads(
    answers: list[tuple[bool, list[bytes]]], cuts: list[int], moved: bool
) -> None:
    data = b"".join(array(*each) if is_array else b"".join(each) for is_array, each in answers)
    wanted = [ARRAY if is_array else len(each) for is_array, each in answers]
    expected: list[Any] = parsed(data)
    reader, buffer, start = ValueReader(), bytearray(), 0
    found: list[Any] = []
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for before, end in [(0, 0), *pairwise(ends)]:
        if moved:
            # as when a full buffer is changed for another one
            buffer, start = buffer[start:], 0
        buffer += data[before:end]
        while len(found) < len(wanted):
            values = reader.read(buffer, start, len(buffer), wanted[len(found)])
            if values is None:
                break
            start += reader.used
            found.append(list(values))
    for (is_array, each), values in zip(answers, found, strict=True):
        size = 1 if is_array else len(each)
        taken, expected = expected[:size], expected[size:]
        assert values == (taken[0] if is_array else taken)


@settings(max_examples=500)
@given(st.sampled_from([b"", b"*1\r\n", b"*2\r\n", b"*3\r\n"]), SHREDS, st.sampled_from([ARRAY, 2]))
def test_of_any_bytes_nothing_is_read_that_hiredis_does_not_read(
    head: bytes, shreds: bytes, strings: int
) -> None:
    data = head + shreds
    answers = parsed(data)
    complete = len(answers) >= (1 if strings == ARRAY else strings)
    expected = answers[0] if strings == ARRAY and answers else answers[:strings]
    try:
        values = read(data, strings)
    except Unusual:
        return
    assert (values is not None) == complete
    if values is not None:
        assert values == expected


@pytest.mark.parametrize(
    "data",
    [
        b"*-1\r\n",
        b"*-2\r\n",
        b"*\r\n",
        b"\r\n*0\r\n",
        b"\n",
        b"*999999999999\r\n",
        b"*99999999999999999999\r\n",
        b"-ERR no\r\n",
        b">1\r\n:1\r\n",
        b"$1\r\na\r\n",
        b"*1\r\n:1\r\n",
        b"*1\r\n*0\r\n",
        b"*1\r\n$-2\r\n",
        b"*1\r\n$9999999999999\r\n",
        b"*1\r\n_x\r\n",
        b"*1\r\n$12\na\r\n",
        b"*1\n$1\r\na\r\n",
    ],
    ids=str,
)
def test_what_is_no_array_of_strings_is_unusual(data: bytes) -> None:
    with pytest.raises(Unusual):
        read(data)


def test_a_reader_begins_anew_after_what_was_unusual() -> None:
    reader = ValueReader()
    data = bytearray(array(string(b"a"), b":1\r\n") + array(string(b"bc")))
    second = len(array(string(b"a"), b":1\r\n"))
    assert reader.read(data, 0, second - 3, ARRAY) is None
    with pytest.raises(Unusual):
        reader.read(data, 0, len(data), ARRAY)
    assert list(reader.read(data, second, len(data), ARRAY) or ()) == [b"bc"]
    assert reader.used == len(data) - second


def test_a_string_of_a_size_that_never_comes_is_waited_for() -> None:
    assert read(b"*2\r\n$1\r\na\r\n$99999999999\r\nabc") is None


@pytest.mark.parametrize("data", [b"*0\r\n", b""], ids=["array", "strings"])
def test_no_strings_are_an_answer(data: bytes) -> None:
    values = whole(data, ARRAY if data else 0)
    assert (len(values), list(values), list(values[0:0])) == (0, [], [])


@given(st.lists(st.none() | st.binary(max_size=3), max_size=6), st.data())
def test_slices_of_slices_are_those_of_a_list(
    expected: Sequence[bytes | None], data: st.DataObject
) -> None:
    values = whole(array(*(NILS[0] if each is None else string(each) for each in expected)))
    places = st.none() | st.integers(-8, 8)
    for _ in range(3):
        part = slice(data.draw(places), data.draw(places))
        # what it was cut from is gone then
        values, expected = values[part], expected[part]
        assert (len(values), list(values)) == (len(expected), expected)
        for at in range(-len(expected), len(expected)):
            assert values[at] == expected[at]
        for at in (len(expected), -len(expected) - 1, 1 << 62):
            with pytest.raises(IndexError):
                values[at]


def test_steps_and_other_places_are_refused() -> None:
    values = whole(array(string(b"a"), string(b"b")))
    with pytest.raises(ValueError, match="piece"):
        values[::2]
    with pytest.raises(TypeError):
        values["a"]  # type: ignore[call-overload]


def test_what_was_read_is_not_of_the_buffer() -> None:
    data = bytearray(array(string(b"abc")))
    values = ValueReader().read(data, 0, len(data), ARRAY)
    data[:] = bytes(len(data))
    data.clear()
    assert list(values or ()) == [b"abc"]


@pytest.mark.parametrize("part_first", [True, False])
def test_the_collector_may_find_a_part_before_what_holds_it(part_first: bool) -> None:
    # a part that the collector had cleared took the whole's memory for its own, and freed it
    for _ in range(50):
        cycle: list[Any] = [] if not part_first else [whole(array(string(b"a"), string(b"b")))[1:]]
        cycle.append(cycle)
        if not part_first:
            cycle.append(whole(array(string(b"a"), string(b"b")))[1:])
        del cycle
    assert gc.collect() >= 50
    assert not gc.is_tracked(whole(array(string(b"a")))[0:])


def test_rows_are_sorted_in_a_part_as_in_a_list() -> None:
    values = whole(array(string(b"x"), NILS[0], string(row(BODY)), string(b""), string(row(BODY))))
    part = values[1:][:3]
    del values
    found = rows.sort_rows(part, versions(), NOW)
    assert (found.status.tolist()[:2], found.odd) == ([1, 0], [2])
    del part
    ((_, places, bodies, _),) = found.sections
    assert places is not None
    assert (places.tolist(), bodies.cells(0, len(BODY)).tobytes()) == ([1], BODY)
