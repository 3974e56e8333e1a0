from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.features.cache.slot_index import DictIndex, SlotIndex
from kirana.native import borrowed as lending
from kirana.native import slots

INDEXES: list[Callable[[], SlotIndex]] = [slots.SlotIndex, DictIndex]
TEXTS = st.sampled_from(
    [f"{prefix}{at}" for at in range(60) for prefix in ("", "\u00e9", "\u4e2d")]
)


@pytest.mark.parametrize("make", INDEXES)
def test_fresh_rows_are_found_and_counted(make: Callable[[], SlotIndex]) -> None:
    table = np.arange(12, dtype=np.uint8).reshape(4, 3)
    loaded = np.array([5.0, 9.0, 5.1, 7.0])
    uses = np.zeros(4, dtype=np.uint32)
    index = make()
    for slot, key in enumerate("abcd"):
        index.put(key, slot)
    found, hits = index.find_all(["d", "a", "x", "b"], loaded, 5.0, uses, table)
    assert (found.tolist(), hits) == ([3, -1, -1, 1], 2)
    assert uses.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("make", INDEXES)
def test_rows_without_bytes_are_found(make: Callable[[], SlotIndex]) -> None:
    index = make()
    index.put("a", 1)
    empty = np.empty((2, 0), dtype=np.uint8)
    found, hits = index.find_all(["a"], np.ones(2), 0.0, np.zeros(2, np.uint32), empty)
    assert (found.tolist(), hits) == ([1], 1)


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
    assert [*map(index.key_of, range(300))] == [*map(known.key_of, range(300))]
    loaded, table = np.ones(300), np.arange(300, dtype=np.uint8)[:, None].copy()
    one, other = (
        each.find_all(keys, loaded, 0.0, np.zeros(300, np.uint32), table) for each in (index, known)
    )
    assert (one[0].tolist(), one[1]) == (other[0].tolist(), other[1])


def test_what_is_no_text_is_refused() -> None:
    index = slots.SlotIndex()
    index.put("a", 0)
    columns = (np.ones(1), 0.0, np.zeros(1, np.uint32), np.zeros((1, 1), np.uint8))
    for key in (b"a", None, [], 7):
        with pytest.raises(TypeError):
            index.find_all([key], *columns)  # type: ignore[list-item]
        with pytest.raises(TypeError):
            index.get(key)  # type: ignore[arg-type]


def columns(count: int) -> tuple[Any, ...]:
    """Columns of so many slots, each row of which holds its number."""
    table = np.arange(count, dtype="<u4").view(np.uint8).reshape(count, 4)
    return np.ones(count), 0.0, np.zeros(count, np.uint32), table


def test_slots_that_can_not_be_are_refused() -> None:
    index = slots.SlotIndex()
    for slot in (-1, -(1 << 62)):
        with pytest.raises(ValueError, match="from 0"):
            index.put("a", slot)
        assert index.key_of(slot) is None
    assert (len(index), index.get("a"), index.pop("a")) == (0, -1, -1)


@pytest.mark.parametrize("short", [0, 2, 3])
def test_columns_that_lack_a_slot_are_refused(short: int) -> None:
    index = slots.SlotIndex()
    index.put("a", 3)
    given_, fewer = list(columns(4)), columns(3)
    assert index.find_all(["a"], *given_)[0].tolist() == [3]
    given_[short] = fewer[short]
    with pytest.raises(ValueError, match="more slots"):
        index.find_all(["a"], *given_)


def test_keys_whose_searches_begin_at_one_place_are_told_apart() -> None:
    # with a table of 64, and as it grows: what is left of the hash is the same for all
    alike = [key for key in map(str, range(200_000)) if hash(key) & 1023 == 1020][:150]
    index = slots.SlotIndex()
    for round_ in range(3):
        for slot, key in enumerate(alike):
            index.put(key, slot)
        gone = alike[round_::2]
        for key in gone:
            index.pop(key)
        found, hits = index.find_all(alike, *columns(len(alike)))
        kept = [slot for slot, key in enumerate(alike) if key not in gone]
        assert [slot for slot in found.tolist() if slot >= 0] == kept
        assert hits == len(kept)
        for key in alike:
            index.pop(key)
        assert len(index) == 0


def test_uses_wrap_round_in_both() -> None:
    for make in INDEXES:
        index = make()
        index.put("a", 0)
        loaded, oldest, _, table = columns(1)
        uses = np.full(1, (1 << 32) - 1, np.uint32)
        index.find_all(["a"], loaded, oldest, uses, table)
        assert uses.tolist() == [0]


def test_no_reference_is_kept() -> None:
    index = slots.SlotIndex()
    key = "k" * 40
    before = sys.getrefcount(key)
    for _ in range(50):
        index.put(key, 5)
        index.find_all([key, "x"], *columns(6))
        index.get(key)
        index.pop(key)
        with pytest.raises(TypeError):
            index.find_all([key, None], *columns(6))  # type: ignore[list-item]
    assert sys.getrefcount(key) == before


def test_borrowed_rows_stay_where_they_are_until_they_are_kept() -> None:
    table = np.arange(12, dtype=np.uint8).reshape(4, 3).copy()
    borrowed = lending.Borrowed(table, np.array([3, 1, 3]))
    assert [*borrowed] == [bytes([9, 10, 11]), bytes([3, 4, 5]), bytes([9, 10, 11])]
    assert (len(borrowed), borrowed[-1], borrowed[-3]) == (3, borrowed[2], borrowed[0])
    for place in (3, -4):
        with pytest.raises(IndexError):
            borrowed[place]
    table[3] = 0
    assert borrowed[0] == bytes(3)
    for _ in range(2):
        borrowed.keep()
        table[1] = 0
        assert [*borrowed] == [bytes(3), bytes([3, 4, 5]), bytes(3)]
        assert borrowed.rows().tolist() == [[0, 0, 0], [3, 4, 5], [0, 0, 0]]


def test_rows_that_are_not_there_can_not_be_borrowed() -> None:
    for slot in (-1, 2, 1 << 62):
        with pytest.raises(ValueError, match="no such row"):
            lending.Borrowed(np.zeros((2, 3), np.uint8), np.array([0, slot]))
    empty = lending.Borrowed(np.zeros((2, 0), np.uint8), np.array([1, 0]))
    empty.keep()
    assert ([*empty], empty.rows().shape) == ([b"", b""], (2, 0))


def test_a_table_lives_as_long_as_its_rows_are_borrowed() -> None:
    table = np.full((4, 1_000_000), 7, np.uint8)
    borrowed = lending.Borrowed(table, np.array([2]))
    del table
    assert borrowed[0] == b"\7" * 1_000_000
