"""The compiled reader of replies, compared with hiredis; bytes may arrive in any pieces."""

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
from kirana.native.replies import NotStrings, ValueReader, Values
from tests.unit.native.test_rows import BODY, NOW, row, versions

ARRAY = -1
FEWER_EXAMPLES = settings(max_examples=150)

NILS = (b"$-1\r\n", b"_\r\n")
STRINGS = st.sampled_from(NILS) | st.binary(max_size=12).map(lambda value: string(value))
REPLIES = st.lists(st.tuples(st.booleans(), st.lists(STRINGS, max_size=4)), max_size=5)
CUTS = st.lists(st.integers(0, 200), max_size=8)

# Byte strings that resemble replies; most of them are not valid.
FRAGMENTS = st.lists(
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
    """Return the replies that hiredis reads, up to the first that is incomplete or invalid."""
    parser = hiredis.Reader()
    parser.feed(data)
    replies = []
    try:
        while (reply := parser.gets()) is not False:
            replies.append(reply)
    except hiredis.ProtocolError:
        pass
    return replies


def read(data: bytes, strings: int = ARRAY) -> Values | None:
    return ValueReader().read(bytearray(data), 0, len(data), strings)


def whole(data: bytes, strings: int = ARRAY) -> Values:
    """Read a complete reply."""
    values = read(data, strings)
    assert values is not None
    return values


@FEWER_EXAMPLES
@given(REPLIES, CUTS, st.booleans())
def test_replies_in_pieces_are_read_as_hiredis_reads_them(
    replies: list[tuple[bool, list[bytes]]], cuts: list[int], replaces_buffer: bool
) -> None:
    data = b"".join(
        array(*strings) if is_array else b"".join(strings) for is_array, strings in replies
    )
    string_counts = [ARRAY if is_array else len(strings) for is_array, strings in replies]
    expected: list[Any] = parsed(data)
    reader, buffer, start = ValueReader(), bytearray(), 0
    results: list[Any] = []
    ends = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    for before, end in [(0, 0), *pairwise(ends)]:
        if replaces_buffer:
            # The connection replaces a full buffer in the same way.
            buffer, start = buffer[start:], 0
        buffer += data[before:end]
        while len(results) < len(string_counts):
            values = reader.read(buffer, start, len(buffer), string_counts[len(results)])
            if values is None:
                break
            start += reader.used
            results.append(list(values))
    for (is_array, strings), values in zip(replies, results, strict=True):
        size = 1 if is_array else len(strings)
        wanted, expected = expected[:size], expected[size:]
        assert values == (wanted[0] if is_array else wanted)


@settings(max_examples=500)
@given(
    st.sampled_from([b"", b"*1\r\n", b"*2\r\n", b"*3\r\n"]), FRAGMENTS, st.sampled_from([ARRAY, 2])
)
def test_any_bytes_are_read_as_by_hiredis_or_are_not_strings(
    head: bytes, fragments: bytes, strings: int
) -> None:
    data = head + fragments
    replies = parsed(data)
    complete = len(replies) >= (1 if strings == ARRAY else strings)
    expected = replies[0] if strings == ARRAY and replies else replies[:strings]
    try:
        values = read(data, strings)
    except NotStrings:
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
def test_replies_that_are_not_arrays_of_strings_are_refused(data: bytes) -> None:
    with pytest.raises(NotStrings):
        read(data)


def test_a_reader_starts_over_after_a_reply_that_is_refused() -> None:
    reader = ValueReader()
    data = bytearray(array(string(b"a"), b":1\r\n") + array(string(b"bc")))
    second = len(array(string(b"a"), b":1\r\n"))
    assert reader.read(data, 0, second - 3, ARRAY) is None
    with pytest.raises(NotStrings):
        reader.read(data, 0, len(data), ARRAY)
    assert list(reader.read(data, second, len(data), ARRAY) or ()) == [b"bc"]
    assert reader.used == len(data) - second


def test_an_incomplete_string_of_any_size_is_waited_for() -> None:
    assert read(b"*2\r\n$1\r\na\r\n$99999999999\r\nabc") is None


@pytest.mark.parametrize("data", [b"*0\r\n", b""], ids=["array", "strings"])
def test_an_empty_reply_is_read(data: bytes) -> None:
    values = whole(data, ARRAY if data else 0)
    assert (len(values), list(values), list(values[0:0])) == (0, [], [])


@given(st.lists(st.none() | st.binary(max_size=3), max_size=6), st.data())
def test_slices_of_slices_agree_with_those_of_a_list(
    expected: Sequence[bytes | None], data: st.DataObject
) -> None:
    values = whole(array(*(NILS[0] if value is None else string(value) for value in expected)))
    bounds = st.none() | st.integers(-8, 8)
    for _ in range(3):
        part = slice(data.draw(bounds), data.draw(bounds))
        # Keep no reference to the values from which the slice is taken.
        values, expected = values[part], expected[part]
        assert (len(values), list(values)) == (len(expected), expected)
        for i in range(-len(expected), len(expected)):
            assert values[i] == expected[i]
        for i in (len(expected), -len(expected) - 1, 1 << 62):
            with pytest.raises(IndexError):
                values[i]


def test_slices_with_steps_and_other_indexes_are_refused() -> None:
    values = whole(array(string(b"a"), string(b"b")))
    with pytest.raises(ValueError, match="step"):
        values[::2]
    with pytest.raises(TypeError):
        values["a"]  # type: ignore[call-overload]


def test_values_do_not_depend_on_the_buffer() -> None:
    data = bytearray(array(string(b"abc")))
    values = ValueReader().read(data, 0, len(data), ARRAY)
    data[:] = bytes(len(data))
    data.clear()
    assert list(values or ()) == [b"abc"]


@pytest.mark.parametrize("part_first", [True, False])
def test_the_garbage_collector_may_visit_a_slice_first(part_first: bool) -> None:
    # Regression: a slice that the collector had cleared freed the memory of the values from which
    # it was taken.
    for _ in range(50):
        cycle: list[Any] = [] if not part_first else [whole(array(string(b"a"), string(b"b")))[1:]]
        cycle.append(cycle)
        if not part_first:
            cycle.append(whole(array(string(b"a"), string(b"b")))[1:])
        del cycle
    assert gc.collect() >= 50
    assert not gc.is_tracked(whole(array(string(b"a")))[0:])


def test_rows_of_a_slice_are_sorted_like_rows_of_a_list() -> None:
    values = whole(array(string(b"x"), NILS[0], string(row(BODY)), string(b""), string(row(BODY))))
    part = values[1:][:3]
    del values
    result = rows.sort_rows(part, versions(), NOW)
    assert (result.status.tolist()[:2], result.other_rows) == ([1, 0], [2])
    del part
    ((_, positions, bodies, _),) = result.sections
    assert positions is not None
    assert (positions.tolist(), bodies.cells(0, len(BODY)).tobytes()) == ([1], BODY)
