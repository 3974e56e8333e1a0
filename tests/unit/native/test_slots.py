from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.features.slot_index import DictIndex, SlotIndex
from kirana.native import slots

INDEXES = [slots.SlotIndex, DictIndex]
TEXTS = st.sampled_from(
    [f"{prefix}{at}" for at in range(60) for prefix in ("", "\u00e9", "\u4e2d")]
)


@pytest.mark.parametrize("make", INDEXES)
def test_fresh_rows_are_taken_and_counted(make: Callable[[], SlotIndex]) -> None:
    table = np.arange(12, dtype=np.uint8).reshape(4, 3)
    loaded = np.array([5.0, 9.0, 5.1, 7.0])
    uses = np.zeros(4, dtype=np.uint32)
    index = make()
    for slot, key in enumerate("abcd"):
        index.put(key, slot)
    found, rows = index.take(["d", "a", "x", "b"], loaded, 5.0, uses, table)
    assert found.tolist() == [3, -1, -1, 1]
    assert rows.tolist() == [[9, 10, 11], [3, 4, 5]]
    assert uses.tolist() == [0, 1, 0, 1]
    table[3] = 0
    assert rows[0].tolist() == [9, 10, 11]


@pytest.mark.parametrize("make", INDEXES)
def test_rows_without_bytes_are_found(make: Callable[[], SlotIndex]) -> None:
    index = make()
    index.put("a", 1)
    empty = np.empty((2, 0), dtype=np.uint8)
    found, rows = index.take(["a"], np.ones(2), 0.0, np.zeros(2, np.uint32), empty)
    assert (found.tolist(), rows.shape) == ([1], (1, 0))


@pytest.mark.parametrize("make", INDEXES)
def test_a_key_and_a_slot_belong_to_one_another_alone(make: Callable[[], SlotIndex]) -> None:
    index = make()
    index.put("a", 3)
    for key, slot in (("a", 4), ("b", 3)):
        with pytest.raises(ValueError, match="slot"):
            index.put(key, slot)
    assert (index.get("a"), index.get("b"), index.key_of(3), index.key_of(9)) == (3, -1, "a", None)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["put", "pop"]), TEXTS), max_size=300))
def test_any_changes_leave_what_a_dict_would_have(changes: list[tuple[str, str]]) -> None:
    index, known = slots.SlotIndex(), DictIndex()
    free = list(range(300))
    for what, key in changes:
        if what == "put" and known.get(key) < 0:
            slot = free.pop()
            index.put(key, slot)
            known.put(key, slot)
        elif what == "pop":
            slot = known.pop(key)
            assert index.pop(key) == slot
            free += [slot] if slot >= 0 else []
    keys = list({key for _, key in changes})
    assert len(index) == len(known)
    assert [*map(index.get, keys)] == [*map(known.get, keys)]
    assert index.slots() == known.slots()
    assert [*map(index.key_of, range(300))] == [*map(known.key_of, range(300))]
    loaded, table = np.ones(300), np.arange(300, dtype=np.uint8)[:, None].copy()
    taken = [
        each.take(keys, loaded, 0.0, np.zeros(300, np.uint32), table) for each in (index, known)
    ]
    for one, other in zip(*taken, strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_no_text_is_refused() -> None:
    index = slots.SlotIndex()
    index.put("a", 0)
    columns = (np.ones(1), 0.0, np.zeros(1, np.uint32), np.zeros((1, 1), np.uint8))
    for key in (b"a", None, [], 7):
        with pytest.raises(TypeError):
            index.take([key], *columns)  # type: ignore[list-item]
        with pytest.raises(TypeError):
            index.get(key)  # type: ignore[arg-type]
