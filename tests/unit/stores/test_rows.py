"""`RowBlock`: selected rows of a block, and the order in which its rows may be written."""

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
    return np.cumsum([len(piece) for piece in pieces], dtype=np.int64)


@given(ROWS)
def test_the_round_of_a_row_is_the_number_of_earlier_rows_with_its_key(
    rows: list[tuple[bytes, bytes, bool]],
) -> None:
    keys = [key for key, _, _ in rows]
    earlier = [keys[:i].count(key) for i, key in enumerate(keys)]
    uniform = len({(len(value), expires) for _, value, expires in rows}) <= 1
    # If all values have one size, and all or none of the rows expire, one round is enough.
    assert block_of(rows).rounds.tolist() == ([0] * len(rows) if uniform else earlier)


@given(ROWS, st.data())
def test_rows_are_selected_from_a_block_in_any_order(
    rows: list[tuple[bytes, bytes, bool]], data: st.DataObject
) -> None:
    positions = data.draw(st.permutations(range(len(rows))))[: len(rows) // 2]
    selected = block_of(rows).select(np.array(positions, dtype=np.intp))
    assert selected.key_list() == [rows[i][0] for i in positions]
    assert selected.value_list() == [rows[i][1] for i in positions]
    assert selected.expiry_s.tolist() == [rows[i][2] for i in positions]
    assert selected.event_time_ms.tolist() == positions
