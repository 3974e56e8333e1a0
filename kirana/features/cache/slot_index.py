"""Which slot of the cache has the row of a key."""

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
    """Keys have numbered slots; a slot has one key, or none."""

    def __len__(self) -> int: ...

    def get(self, key: str) -> int:
        """Return the slot of a key, -1 if it has none."""

    def key_of(self, slot: int) -> str | None:
        """Return the key that a slot has, None if it has none."""

    def put(self, key: str, slot: int) -> None:
        """Give a slot that no key has to a key that has none; raise `ValueError` otherwise."""

    def pop(self, key: str) -> int:
        """Take its slot from a key; return it, -1 if it had none."""

    def get_all(self, keys: list[str]) -> Slots:
        """Return the slot of each key, -1 where it has none."""

    def put_all(self, keys: list[str], slots: Slots) -> Slots:
        """Give each key its slot, one that no key has; return the slots that the keys have.

        A key that has a slot keeps that.
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
        """Copy values into the rows of keys that have a slot, as loaded `now` and used once more.

        Return the positions of the others: keys without a slot, values of another size than a row.
        """

    def replace(
        self,
        keys: list[str],
        positions: Slots,
        candidates: Slots,
        slots: Slots,
        uses: npt.NDArray[np.uint32],
    ) -> int:
        """Give the keys at some positions each its candidate, in the stead of the key that has it.

        A candidate that no key has, or that is among `slots` already, is left alone. `slots` has
        the slot of each key, and uses begin at 0. Return how many keys had to go.
        """

    def find_all(
        self,
        keys: list[str],
        loaded: npt.NDArray[np.float64],
        oldest: float,
        uses: npt.NDArray[np.uint32],
        table: Table,
    ) -> tuple[Slots, int]:
        """Return for each key its slot, -1 where it has none or was loaded at `oldest` or before,
        and how many have one. Their uses are counted; `table` has the rows that will be read.
        """


def slot_index() -> SlotIndex:
    """Return an empty one: compiled, if it can be."""
    return native.slots.SlotIndex() if native.COMPILED else DictIndex()


class DictIndex:
    """See `SlotIndex`."""

    def __init__(self) -> None:
        self._slots: dict[str, int] = {}
        self._keys: dict[int, str] = {}

    def __len__(self) -> int:
        return len(self._slots)

    def get(self, key: str) -> int:
        return self._slots.get(key, -1)

    def key_of(self, slot: int) -> str | None:
        return self._keys.get(slot)

    def put(self, key: str, slot: int) -> None:
        if key in self._slots or slot in self._keys:
            raise ValueError("the key has a slot, or the slot a key")
        self._slots[key] = slot
        self._keys[slot] = key

    def pop(self, key: str) -> int:
        slot = self._slots.pop(key, -1)
        self._keys.pop(slot, None)
        return slot

    def get_all(self, keys: list[str]) -> Slots:
        return np.fromiter(map(self._slots.get, keys, repeat(-1)), np.intp, len(keys))

    def put_all(self, keys: list[str], slots: Slots) -> Slots:
        taken = slots.copy()
        for at, (key, slot) in enumerate(zip(keys, slots.tolist(), strict=True)):
            own = self.get(key)
            if own >= 0:
                taken[at] = own
            else:
                self.put(key, slot)
        return taken

    def refill(
        self,
        keys: list[str],
        values: Sequence[bytes | None],
        table: Table,
        loaded: npt.NDArray[np.float64],
        now: float,
        uses: npt.NDArray[np.uint32],
    ) -> list[int]:
        left = []
        size = table.shape[1]
        for at, (key, value) in enumerate(zip(keys, values, strict=True)):
            slot = self._slots.get(key, -1)
            if slot < 0 or value is None or len(value) != size or not size:
                left.append(at)
                continue
            table[slot] = np.frombuffer(value, dtype=np.uint8)
            loaded[slot] = now
            uses[slot] += 1
        return left

    def replace(
        self,
        keys: list[str],
        positions: Slots,
        candidates: Slots,
        slots: Slots,
        uses: npt.NDArray[np.uint32],
    ) -> int:
        gone, taken = 0, set(slots.tolist())
        for at, slot in zip(positions.tolist(), candidates.tolist(), strict=True):
            old, own = self.key_of(slot), self.get(keys[at])
            if own >= 0:
                slots[at] = own
            elif old is not None and slot not in taken:
                taken.add(slot)
                self.pop(old)
                self.put(keys[at], slot)
                uses[slot] = 0
                slots[at] = slot
                gone += 1
        return gone

    def find_all(
        self,
        keys: list[str],
        loaded: npt.NDArray[np.float64],
        oldest: float,
        uses: npt.NDArray[np.uint32],
        table: Table,
    ) -> tuple[Slots, int]:
        slots = np.fromiter(map(self._slots.get, keys, repeat(-1)), np.intp, len(keys))
        fresh = (loaded[slots] > oldest) & (slots >= 0)
        slots[~fresh] = -1
        found = slots[fresh]
        uses[found] += 1
        return slots, len(found)
