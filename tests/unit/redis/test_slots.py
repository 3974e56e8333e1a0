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
def test_slots_are_those_of_redis(keys: list[bytes]) -> None:
    wanted = list(map(key_slot, keys))
    assert key_slots(keys) == wanted
    block = block_of(keys)
    assert joined_slots(block.keys, block.key_ends).tolist() == wanted
    for prefix in (b"f:a.b:", b"{a}"):
        slots = joined_slots(block.keys, block.key_ends, prefix).tolist()
        assert slots == [key_slot(prefix + key) for key in keys]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "COMPILED", False)
        assert key_slots(keys) == wanted


@given(KEYS, st.data())
def test_rows_of_a_block_are_taken_whole(keys: list[bytes], data: st.DataObject) -> None:
    rows = data.draw(st.permutations(range(len(keys))))
    rows = rows[: data.draw(st.integers(0, len(rows)))]
    taken = block_of(keys).take(np.array(rows, dtype=np.intp))
    assert taken.key_list() == [keys[at] for at in rows]
    assert taken.value_list() == [bytes([at]) * at for at in rows]
    assert taken.expiry_s.tolist() == taken.event_time_ms.tolist() == rows
