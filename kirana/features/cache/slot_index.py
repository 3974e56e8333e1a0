"""Which slot of the cache has the row of a key."""

from __future__ import annotations

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
