"""Blocks of rows: parts of them, and which may be written in any order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from hypothesis import given
from hypothesis import strategies as st

from kirana.codecs import CODECS
from kirana.stores import RowBlock

ROWS = st.lists(
    st.tuples(
        st.sampled_from([b"a", b"b", b"a\0", b"ab", b"a\0\0", b"\0\0a", "é".encode()]),
        st.sampled_from([b"", b"x", b"xyz"]),
        st.booleans(),
    ),
    max_size=30,
)


def block_of(rows: Sequence[tuple[bytes, bytes, bool]]) -> RowBlock:
    keys, values = [key for key, _, _ in rows], [value for _, value, _ in rows]
    return RowBlock(
        "product.g",
        CODECS["packed"],
        np.frombuffer(b"".join(keys), np.uint8),
        ends_of(keys),
        np.frombuffer(b"".join(values), np.uint8),
        ends_of(values),
        np.array([expires for _, _, expires in rows], dtype=np.uint32),
        np.arange(len(rows), dtype=np.uint64),
    )


def ends_of(pieces: Sequence[bytes]) -> npt.NDArray[np.int64]:
    return np.cumsum([len(each) for each in pieces], dtype=np.int64)


@given(ROWS)
def test_a_turn_is_how_often_a_key_stands_before(rows: list[tuple[bytes, bytes, bool]]) -> None:
    keys = [key for key, _, _ in rows]
    before = [keys[:at].count(key) for at, key in enumerate(keys)]
    alike = len({(len(value), expires) for _, value, expires in rows}) <= 1
    # rows of one shape stay in their order
    assert block_of(rows).turns.tolist() == ([0] * len(rows) if alike else before)


@given(ROWS, st.data())
def test_some_rows_of_a_block(rows: list[tuple[bytes, bytes, bool]], data: st.DataObject) -> None:
    places = data.draw(st.permutations(range(len(rows))))[: len(rows) // 2]
    some = block_of(rows).take(np.array(places, dtype=np.intp))
    assert some.key_list() == [rows[at][0] for at in places]
    assert some.value_list() == [rows[at][1] for at in places]
    assert some.expiry_s.tolist() == [rows[at][2] for at in places]
    assert some.event_time_ms.tolist() == places
