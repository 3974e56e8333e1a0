"""The index of the cache: which slot holds the row of which key."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from typing import Protocol

import numpy as np
import numpy.typing as npt

from kirana import native

Slots = npt.NDArray[np.intp]
Table = npt.NDArray[np.uint8]


class SlotIndex(Protocol):
    """A mapping between keys and slots, which are numbered from 0. A slot has at most one key."""

    def __len__(self) -> int:
        """Return the number of keys."""

    def get(self, key: str) -> int:
        """Return the slot of `key`; -1 if it has none."""

    def key_of(self, slot: int) -> str | None:
        """Return the key of `slot`, or None if the slot is unused."""

    def put(self, key: str, slot: int) -> None:
        """Assign `slot` to `key`. Raise `ValueError` if one of them is in the index already."""

    def pop(self, key: str) -> int:
        """Remove `key`; return the slot that it had, or -1 if it had none."""

    def get_all(self, keys: list[str]) -> Slots:
        """Return one slot per key; -1 for a key that has none."""

    def put_all(self, keys: list[str], slots: Slots) -> Slots:
        """Assign each key the slot at its position in `slots`; return the slots of the keys.

        A key that has a slot already keeps it. Raise `ValueError` if a slot that is to be
        assigned is in use.
        """

    def refill(
        self,
        keys: list[str],
        values: Sequence[bytes | None],
        table: Table,
        loaded: npt.NDArray[np.float64],
        now: float,
        uses: npt.NDArray[np.uint32],
    ) -> list[int]:
        """Overwrite the rows of the keys that have a slot; return the positions that were skipped.

        For each overwritten row, set the load time to `now`, and count one use. Skip keys without a
        slot, and values that are None or differ in size from a row of the table. If the rows of the
        table have 0 bytes, skip all positions.
        """

    def replace(
        self,
        keys: list[str],
        positions: Slots,
        candidates: Slots,
        slots: Slots,
        uses: npt.NDArray[np.uint32],
    ) -> int:
        """Assign slots of other keys to the keys at `positions`; return how many keys were removed.

        `candidates` has one slot per position, and `slots` one slot per key of `keys` (-1 for
        none). The key that had the candidate slot is removed, and the uses of the slot are set to
        0. A candidate is skipped if it has no key, or is in `slots` already. A key that has a slot
        keeps it. The new slots are written to `slots`.
        """

    def find_all(
        self,
        keys: list[str],
        loaded: npt.NDArray[np.float64],
        oldest: float,
        uses: npt.NDArray[np.uint32],
        table: Table,
    ) -> tuple[Slots, int]:
        """Return one slot per key, and the number of hits.

        The slot is -1 if the key has none, or if its row was loaded at `oldest` or before. All
        other keys are hits: count one use for each. `table` has the rows. The compiled index
        prefetches them, because the caller reads them next.
        """


def slot_index() -> SlotIndex:
    """Return an empty index: compiled if available, else in Python."""
    return native.slots.SlotIndex() if native.COMPILED else DictIndex()


class DictIndex:
    """`SlotIndex` in Python, as two dictionaries."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: str) -> int:
        """Return the slot of `key`; -1 if it has none."""
        return self._slots.get(key, -1)

    def key_of(self, slot: int) -> str | None:
        """Return the key of `slot`, or None if the slot is unused."""
        return self._keys.get(slot)

    def put(self, key: str, slot: int) -> None:
        """Assign `slot` to `key`. Raise `ValueError` if one of them is in the index already."""
        if key in self._slots or slot in self._keys:
            raise ValueError("the key has a slot already, or the slot has a key")
        self._slots[key] = slot
        self._keys[slot] = key

    def pop(self, key: str) -> int:
        """Remove `key`; return the slot that it had, or -1 if it had none."""
        slot = self._slots.pop(key, -1)
        self._keys.pop(slot, None)
        return slot

    def get_all(self, keys: list[str]) -> Slots:
        """Return one slot per key; -1 for a key that has none."""
        return np.fromiter(map(self._slots.get, keys, repeat(-1)), np.intp, len(keys))

    def put_all(self, keys: list[str], slots: Slots) -> Slots:
        """Assign slots to new keys, one by one; return the slots of all keys."""
        assigned = slots.copy()
        for position, (key, slot) in enumerate(zip(keys, slots.tolist(), strict=True)):
            current = self.get(key)
            if current >= 0:
                assigned[position] = current
            else:
                self.put(key, slot)
        return assigned

    def refill(
        self,
        keys: list[str],
        values: Sequence[bytes | None],
        table: Table,
        loaded: npt.NDArray[np.float64],
        now: float,
        uses: npt.NDArray[np.uint32],
    ) -> list[int]:
        """Overwrite the rows of known keys, one by one; return the positions that were skipped."""
        skipped = []
        size = table.shape[1]
        for position, (key, value) in enumerate(zip(keys, values, strict=True)):
            slot = self._slots.get(key, -1)
            if slot < 0 or value is None or len(value) != size or not size:
                skipped.append(position)
                continue
            table[slot] = np.frombuffer(value, dtype=np.uint8)
            loaded[slot] = now
            uses[slot] += 1
        return skipped

    def replace(
        self,
        keys: list[str],
        positions: Slots,
        candidates: Slots,
        slots: Slots,
        uses: npt.NDArray[np.uint32],
    ) -> int:
        """Assign candidate slots, one by one; return how many keys were removed."""
        removed, taken = 0, set(slots.tolist())
        for position, slot in zip(positions.tolist(), candidates.tolist(), strict=True):
            old_key, current = self.key_of(slot), self.get(keys[position])
            if current >= 0:
                slots[position] = current
            elif old_key is not None and slot not in taken:
                taken.add(slot)
                self.pop(old_key)
                self.put(keys[position], slot)
                uses[slot] = 0
                slots[position] = slot
                removed += 1
        return removed

    def find_all(
        self,
        keys: list[str],
        loaded: npt.NDArray[np.float64],
        oldest: float,
        uses: npt.NDArray[np.uint32],
        table: Table,
    ) -> tuple[Slots, int]:
        """Return one slot per key, and the number of hits. `table` is not used."""
        slots = np.fromiter(map(self._slots.get, keys, repeat(-1)), np.intp, len(keys))
        fresh = (loaded[slots] > oldest) & (slots >= 0)
        slots[~fresh] = -1
        hits = slots[fresh]
        uses[hits] += 1
        return slots, len(hits)
