"""Cluster slots of keys, and selected rows of row blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from redis.crc import key_slot

from kirana import native
from kirana.codecs import CODECS
from kirana.redis.slots import joined_slots, key_slots
from kirana.stores import RowBlock

KEYS = st.lists(
    st.binary(max_size=20) | st.text("{}ab\u00e9", max_size=6).map(str.encode), max_size=20
)


def block_of(keys: list[bytes]) -> RowBlock:
    """Return a block in which the value of row i consists of i times the byte i."""
    count = len(keys)
    return RowBlock(
        "product.g",
        CODECS["packed"],
        np.frombuffer(b"".join(keys), dtype=np.uint8),
        np.cumsum([len(key) for key in keys], dtype=np.int64),
        np.repeat(np.arange(count, dtype=np.uint8), range(count)),
        np.cumsum(np.arange(count)),
        np.arange(count, dtype=np.uint32),
        np.arange(count, dtype=np.uint64),
    )


@given(KEYS)
@example([b"123456789", b"{}", b"{a}", b"a{b}c", b"a{}{b}", b"{a", b"a}{b}", b""])
def test_slots_agree_with_redis_py(keys: list[bytes]) -> None:
    expected = list(map(key_slot, keys))
    assert key_slots(keys) == expected
    block = block_of(keys)
    assert joined_slots(block.keys, block.key_ends).tolist() == expected
    for prefix in (b"f:a.b:", b"{a}"):
        slots = joined_slots(block.keys, block.key_ends, prefix).tolist()
        assert slots == [key_slot(prefix + key) for key in keys]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "COMPILED", False)
        assert key_slots(keys) == expected


@given(KEYS, st.data())
def test_selected_rows_of_a_block_have_all_their_values(
    keys: list[bytes], data: st.DataObject
) -> None:
    rows = data.draw(st.permutations(range(len(keys))))
    rows = rows[: data.draw(st.integers(0, len(rows)))]
    selected = block_of(keys).select(np.array(rows, dtype=np.intp))
    assert selected.key_list() == [keys[row] for row in rows]
    assert selected.value_list() == [bytes([row]) * row for row in rows]
    assert selected.expiry_s.tolist() == selected.event_time_ms.tolist() == rows
