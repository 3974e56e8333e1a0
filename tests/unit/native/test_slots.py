"""`kirana.native.slots.SlotIndex`, compared with `DictIndex`, and rows borrowed from a table."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.features.cache.slot_index import DictIndex, SlotIndex
from kirana.native import slots
from kirana.native.borrowed import Borrowed

INDEXES: list[Callable[[], SlotIndex]] = [slots.SlotIndex, DictIndex]
TEXTS = st.sampled_from([f"{prefix}{i}" for i in range(60) for prefix in ("", "\u00e9", "\u4e2d")])


@pytest.mark.parametrize("make", INDEXES)
def test_fresh_rows_are_found_and_counted(make: Callable[[], SlotIndex]) -> None:
    table = np.arange(12, dtype=np.uint8).reshape(4, 3)
    loaded = np.array([5.0, 9.0, 5.1, 7.0])
    uses = np.zeros(4, dtype=np.uint32)
    index = make()
    for slot, key in enumerate("abcd"):
        index.put(key, slot)
    found_slots, hits = index.find_all(["d", "a", "x", "b"], loaded, 5.0, uses, table)
    assert (found_slots.tolist(), hits) == ([3, -1, -1, 1], 2)
    assert uses.tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("make", INDEXES)
def test_rows_without_bytes_are_found(make: Callable[[], SlotIndex]) -> None:
    index = make()
    index.put("a", 1)
    empty = np.empty((2, 0), dtype=np.uint8)
    found_slots, hits = index.find_all(["a"], np.ones(2), 0.0, np.zeros(2, np.uint32), empty)
    assert (found_slots.tolist(), hits) == ([1], 1)


@pytest.mark.parametrize("make", INDEXES)
def test_a_key_has_one_slot_and_a_slot_has_one_key(make: Callable[[], SlotIndex]) -> None:
    index = make()
    index.put("a", 3)
    for key, slot in (("a", 4), ("b", 3)):
        with pytest.raises(ValueError, match="slot"):
            index.put(key, slot)
    assert (index.get("a"), index.get("b"), index.key_of(3), index.key_of(9)) == (3, -1, "a", None)


@settings(max_examples=200)
@given(st.lists(st.tuples(st.sampled_from(["put", "pop"]), TEXTS), max_size=300))
def test_an_index_agrees_with_a_dict_after_any_changes(changes: list[tuple[str, str]]) -> None:
    index, model = slots.SlotIndex(), DictIndex()
    free = list(range(300))
    for change, key in changes:
        if change == "put" and model.get(key) < 0:
            slot = free.pop()
            index.put(key, slot)
            model.put(key, slot)
        elif change == "pop":
            slot = model.pop(key)
            assert index.pop(key) == slot
            free += [slot] if slot >= 0 else []
    keys = list({key for _, key in changes})
    assert len(index) == len(model)
    assert [*map(index.get, keys)] == [*map(model.get, keys)]
    assert [*map(index.key_of, range(300))] == [*map(model.key_of, range(300))]
    loaded, table = np.ones(300), np.arange(300, dtype=np.uint8)[:, None].copy()
    actual, expected = (
        any_index.find_all(keys, loaded, 0.0, np.zeros(300, np.uint32), table)
        for any_index in (index, model)
    )
    assert (actual[0].tolist(), actual[1]) == (expected[0].tolist(), expected[1])


def test_keys_that_are_not_text_are_refused() -> None:
    index = slots.SlotIndex()
    index.put("a", 0)
    for key in (b"a", None, [], 7):
        with pytest.raises(TypeError):
            index.find_all([key], *columns(1))  # type: ignore[list-item]
        with pytest.raises(TypeError):
            index.get(key)  # type: ignore[arg-type]


def columns(count: int) -> tuple[Any, ...]:
    """Return the last four arguments of `find_all`, for `count` slots.

    Each row of the table contains the number of its slot.
    """
    table = np.arange(count, dtype="<u4").view(np.uint8).reshape(count, 4)
    return np.ones(count), 0.0, np.zeros(count, np.uint32), table


def test_negative_slots_are_refused() -> None:
    index = slots.SlotIndex()
    for slot in (-1, -(1 << 62)):
        with pytest.raises(ValueError, match="from 0"):
            index.put("a", slot)
        assert index.key_of(slot) is None
    assert (len(index), index.get("a"), index.pop("a")) == (0, -1, -1)


@pytest.mark.parametrize("position", [0, 2, 3])
def test_columns_with_too_few_slots_are_refused(position: int) -> None:
    index = slots.SlotIndex()
    index.put("a", 3)
    arguments = list(columns(4))
    assert index.find_all(["a"], *arguments)[0].tolist() == [3]
    arguments[position] = columns(3)[position]
    with pytest.raises(ValueError, match="more slots"):
        index.find_all(["a"], *arguments)


def test_keys_with_colliding_hashes_are_distinguished() -> None:
    # The lowest bits of all hashes are equal, so all searches start at the same entry of the index,
    # even after it has grown.
    colliding = [key for key in map(str, range(200_000)) if hash(key) & 1023 == 1020][:150]
    index = slots.SlotIndex()
    for round_ in range(3):
        for slot, key in enumerate(colliding):
            index.put(key, slot)
        removed = colliding[round_::2]
        for key in removed:
            index.pop(key)
        found_slots, hits = index.find_all(colliding, *columns(len(colliding)))
        kept = [slot for slot, key in enumerate(colliding) if key not in removed]
        assert [slot for slot in found_slots.tolist() if slot >= 0] == kept
        assert hits == len(kept)
        for key in colliding:
            index.pop(key)
        assert len(index) == 0


def test_uses_wrap_around_in_both_indexes() -> None:
    for make in INDEXES:
        index = make()
        index.put("a", 0)
        loaded, oldest, _, table = columns(1)
        uses = np.full(1, (1 << 32) - 1, np.uint32)
        index.find_all(["a"], loaded, oldest, uses, table)
        assert uses.tolist() == [0]


def test_no_references_are_leaked() -> None:
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


def test_borrowed_rows_are_copied_only_by_detach() -> None:
    table = np.arange(12, dtype=np.uint8).reshape(4, 3).copy()
    borrowed = Borrowed(table, np.array([3, 1, 3]))
    assert [*borrowed] == [bytes([9, 10, 11]), bytes([3, 4, 5]), bytes([9, 10, 11])]
    assert (len(borrowed), borrowed[-1], borrowed[-3]) == (3, borrowed[2], borrowed[0])
    for position in (3, -4):
        with pytest.raises(IndexError):
            borrowed[position]
    table[3] = 0
    assert borrowed[0] == bytes(3)
    for _ in range(2):
        borrowed.detach()
        table[1] = 0
        assert [*borrowed] == [bytes(3), bytes([3, 4, 5]), bytes(3)]
        assert borrowed.rows().tolist() == [[0, 0, 0], [3, 4, 5], [0, 0, 0]]


def test_rows_outside_the_table_cannot_be_borrowed() -> None:
    for slot in (-1, 2, 1 << 62):
        with pytest.raises(ValueError, match="not in the table"):
            Borrowed(np.zeros((2, 3), np.uint8), np.array([0, slot]))
    empty = Borrowed(np.zeros((2, 0), np.uint8), np.array([1, 0]))
    empty.detach()
    assert ([*empty], empty.rows().shape) == ([b"", b""], (2, 0))


def test_a_borrowed_row_keeps_its_table_alive() -> None:
    table = np.full((4, 1_000_000), 7, np.uint8)
    borrowed = Borrowed(table, np.array([2]))
    del table
    assert borrowed[0] == b"\7" * 1_000_000
