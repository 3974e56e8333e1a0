"""The cached rows of one feature group.

Rows of the size `row_bytes` are in a table, in their stored form, so a batch of hits is decoded and
checked for expiry like a batch that was read from the store. Rows of other sizes, such as rows with
strings, are in a dictionary. When the memory is full, a new key is admitted only if it was used
more often than the row that it would replace, as in TinyLFU (Einziger et al., 2017). So keys that
are read once do not evict keys that are read often.
"""

from __future__ import annotations

from collections.abc import Sequence
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.features.cache.frequency import FrequencySketch, hashes_of
from kirana.features.cache.reads import CacheCounts, CacheRead, Positions, Table
from kirana.features.cache.slot_index import slot_index
from kirana.features.cache.values import copy_values

Sizes = npt.NDArray[np.int64]

SLOT_BYTES = 200
"""Estimated bytes per row besides its value: key text, index entry, load time and counts."""

ABSENT_SHARE = 8
"""Besides its rows, a group may use 1 / `ABSENT_SHARE` of `max_bytes` for keys that have no row."""

_AGE_AFTER = 10
"""All use counts are halved after this many uses per slot, so that older uses weigh less."""

_SAMPLED = 8
"""How many random slots are compared to find a row that a new key may replace."""

_MARKS = np.dtype([("loaded", np.float64), ("uses", np.uint32)], align=True)
"""The load time and the uses of a slot's row, side by side because a look-up reads both."""

_NO_POSITIONS: Positions = np.empty(0, dtype=np.intp)


class CachedGroup:
    """The cached rows of one group. `FeatureCache` decides how long they are fresh.

    `versions` is the number of schema versions that the group has. `row_bytes` is the size of a row
    of the table (0: no rows are in the table). `max_bytes` limits the memory of the rows. `read_at`
    is the time of the last look-up, at first `now`. All times are in seconds of the cache's clock.
    """

    def __init__(self, versions: int, row_bytes: int, max_bytes: int, now: float) -> None:
        self.versions = versions
        self.read_at = now
        self._size = row_bytes
        self._max_bytes = max_bytes
        self._max_absent = max_bytes // ABSENT_SHARE // SLOT_BYTES
        self._capacity = max(max_bytes // (self._size + SLOT_BYTES), 1)
        self._index = slot_index()
        self._opened = 0
        """The number of slots that are or were in use; all slots from this number on are new."""
        self._free: list[int] = []
        """The slots below `_opened` that are not in use."""
        # `np.empty` does not write to the memory of the table.
        self._table: Table = np.empty((self._capacity, self._size), dtype=np.uint8)
        self._borrowed: WeakSet[native.borrowed.Borrowed] = WeakSet()
        self._marks = np.zeros(self._capacity, dtype=_MARKS)
        self._loose: dict[int, bytes] = {}
        """The rows that are not in the table, by slot."""
        self._loose_bytes = 0
        self._absent: dict[str, float] = {}
        """The keys that have no row, each with the time until which this is assumed."""
        self._sketch = FrequencySketch(self._capacity)
        self._uses_since_halving = 0
        self._random = np.random.default_rng()

    @property
    def _loaded(self) -> npt.NDArray[np.float64]:
        """The load time of the row in each slot."""
        return self._marks["loaded"]

    @property
    def _uses(self) -> npt.NDArray[np.uint32]:
        """The number of uses of the row in each slot."""
        return self._marks["uses"]

    @property
    def row_bytes(self) -> int:
        """The size of a row of the table, in bytes (0: no rows are in the table)."""
        return self._size

    @property
    def capacity(self) -> int:
        """The number of slots."""
        return self._capacity

    @property
    def max_bytes(self) -> int:
        """The limit for the memory of all rows, in bytes."""
        return self._max_bytes

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        """The approximate memory of the group, in bytes."""
        return self._used + len(self._absent) * SLOT_BYTES + self._sketch.nbytes

    @property
    def _used(self) -> int:
        """The approximate memory of all rows, in bytes."""
        return len(self._index) * (self._size + SLOT_BYTES) + self._loose_bytes

    def look_up(self, keys: Sequence[str], oldest: float, now: float) -> CacheRead:
        """Return the rows of `keys` that were loaded after `oldest`, and count one use per row.

        The value of a key that is recorded at `now` to have no row is None.
        """
        key_list = keys if isinstance(keys, list) else list(keys)
        slots, hits = self._index.find_all(key_list, self._loaded, oldest, self._uses, self._table)
        self._age(hits)
        if hits == len(keys) and not self._loose:
            return CacheRead(np.arange(hits), self._borrow(slots), {}, _NO_POSITIONS)
        if not hits and not self._absent:
            return CacheRead(_NO_POSITIONS, self._table[:0], {}, np.arange(len(keys)))
        hit = slots >= 0
        positions = np.flatnonzero(hit)
        table = self._table[slots[positions]]
        values: dict[int, bytes | None] = {}
        if self._loose:
            loose = [self._loose.get(slot) for slot in slots[positions].tolist()]
            values = {
                position: value
                for position, value in zip(positions.tolist(), loose, strict=True)
                if value is not None
            }
            table_positions = np.array([value is None for value in loose], dtype=np.bool_)
            positions, table = positions[table_positions], table[table_positions]
        missing = np.flatnonzero(~hit)
        if self._absent and not self._absent.keys().isdisjoint(key_list):
            absent_until = self._absent.get
            absent = [
                position for position in missing.tolist() if absent_until(keys[position], 0.0) > now
            ]
            if absent:
                values.update(dict.fromkeys(absent))
                missing = np.setdiff1d(missing, absent, assume_unique=True)
        return CacheRead(positions, table, values, missing)

    def _borrow(self, slots: Positions) -> Table | native.borrowed.Borrowed:
        """Return the rows at `slots`: borrowed if the loops are compiled, otherwise copied."""
        if not native.COMPILED:
            return self._table[slots]
        borrowed = native.borrowed.Borrowed(self._table, slots)
        self._borrowed.add(borrowed)
        return borrowed

    def _age(self, uses: int) -> None:
        """Record that rows were used, and halve all counts after `_AGE_AFTER` uses per slot."""
        self._uses_since_halving += uses
        if self._uses_since_halving > _AGE_AFTER * self._capacity:
            self._uses_since_halving = 0
            self._marks["uses"] >>= 1
            self._sketch.halve()

    def has(self, key: str) -> bool:
        """Return whether a row of `key` is cached, fresh or not."""
        return self._index.get(key) >= 0

    def remember_absent(self, keys: Sequence[str], until: float, now: float) -> None:
        """Remove the rows of `keys`, and record that these keys have no row.

        The record is valid until the time `until`. If there would be too many records, first drop
        the outdated ones. If that is not enough, drop all earlier records. Nothing is recorded if
        `keys` alone exceed the limit.
        """
        self.forget(keys)
        if len(self._absent) + len(keys) > self._max_absent:
            self._absent = {key: end for key, end in self._absent.items() if end > now}
            if len(self._absent) + len(keys) > self._max_absent:
                self._absent.clear()
        if len(keys) <= self._max_absent:
            self._absent.update(dict.fromkeys(keys, until))

    def forget(self, keys: Sequence[str]) -> None:
        """Remove the rows of `keys`, or the record that a key has no row."""
        for key in keys:
            self._absent.pop(key, None)
            slot = self._index.pop(key)
            if slot >= 0:
                self._free.append(slot)
                self._drop_loose(slot)

    def _drop_loose(self, slot: int) -> None:
        """Remove the row of `slot` that is not in the table, if there is one."""
        value = self._loose.pop(slot, None)
        if value is not None:
            self._loose_bytes -= len(value)

    def refill(self, keys: list[str], values: Sequence[bytes | None], now: float) -> list[int]:
        """Overwrite the cached rows of `keys`; return the positions that were skipped.

        Skip keys without a cached row, and values that are None or differ in size from a row of the
        table. If any rows are outside the table, skip all positions. `now` is the load time of the
        rows. The caller must pass skipped values to `fill`, and keys whose value is None to
        `remember_absent`.
        """
        if self._loose:
            return list(range(len(keys)))
        self._copy_borrowed()
        return self._index.refill(keys, values, self._table, self._loaded, now, self._uses)

    def fill(
        self,
        keys: list[str],
        values: Sequence[bytes | None],
        sizes: Sizes,
        now: float,
        counts: CacheCounts,
    ) -> None:
        """Cache rows: in unused memory while there is some, then in place of less used rows.

        `sizes` has the size of each value in bytes. `values` must not contain None. `now` is the
        load time of the rows. Refused and evicted rows are added to `counts`.
        """
        frequency = self._sketch.add(hashes_of(keys))
        self._uses_since_halving += len(keys)
        slots = self._slots_for(keys, sizes, frequency, counts)
        kept = np.flatnonzero(slots >= 0)
        if not len(kept):
            return
        kept_slots = slots[kept]
        self._loaded[kept_slots] = now
        self._uses[kept_slots] = np.maximum(self._uses[kept_slots], frequency[kept])
        in_table = (sizes[kept] == self._size) & (self._size > 0)
        if in_table.any():
            self._copy_borrowed()
            copy_values(values, kept[in_table], self._table, kept_slots[in_table])
            for slot in kept_slots[in_table].tolist() if self._loose else ():
                self._drop_loose(slot)
        if not in_table.all():
            self._put_loose(values, kept[~in_table], kept_slots[~in_table])
        self._trim(counts)

    def _copy_borrowed(self) -> None:
        """Copy the rows that are still borrowed, before the table changes."""
        for borrowed in self._borrowed:
            borrowed.detach()
        self._borrowed.clear()

    def _put_loose(
        self, values: Sequence[bytes | None], positions: Positions, slots: Positions
    ) -> None:
        """Store the values at `positions` outside the table, as the rows of `slots`."""
        for position, slot in zip(positions.tolist(), slots.tolist(), strict=True):
            self._drop_loose(slot)
            value = values[position]
            assert value is not None
            self._loose[slot] = value
            self._loose_bytes += len(value)

    def _trim(self, counts: CacheCounts) -> None:
        """Evict the least used rows outside the table until the group is within its limit."""
        excess = self._used - self._max_bytes
        if excess <= 0:
            return
        for slot in sorted(self._loose, key=self._uses.__getitem__):
            excess -= len(self._loose[slot]) + self._size + SLOT_BYTES
            self._drop_loose(slot)
            self._index.pop(self._key_of(slot))
            self._free.append(slot)
            counts.evicted += 1
            if excess <= 0:
                return

    def _slots_for(
        self,
        keys: list[str],
        sizes: Sizes,
        frequency: npt.NDArray[np.uint8],
        counts: CacheCounts,
    ) -> Positions:
        """Return one slot per key, or -1 for a key that gets no slot.

        A key that has a slot keeps it. A new key gets an unused slot, or the slot of a key that was
        used less often.
        """
        slots = self._index.get_all(keys)
        new = np.flatnonzero(slots < 0)
        if not len(new):
            return slots
        if self._absent and not self._absent.keys().isdisjoint(keys):
            for key in keys:
                self._absent.pop(key, None)
        extra_bytes = np.where(sizes[new] == self._size, 0, sizes[new])
        needed = np.cumsum(extra_bytes + (self._size + SLOT_BYTES))
        fitting = int(np.searchsorted(needed, self._max_bytes - self._used, side="right"))
        unused = self._take_unused(min(fitting, len(self._free) + self._capacity - self._opened))
        if len(unused):
            added_keys = keys if len(unused) == len(keys) else [keys[i] for i in new[: len(unused)]]
            assigned = self._index.put_all(added_keys, unused)
            slots[new[: len(unused)]] = assigned
            self._uses[assigned] = 0
            # A key that occurs twice needs one slot. The slot of its second occurrence is free.
            self._free += unused[assigned != unused].tolist()
        without_slot = new[len(unused) :]
        if len(without_slot) and self._opened:
            self._replace(keys, without_slot, slots, frequency, counts)
        return slots

    def _take_unused(self, count: int) -> Positions:
        """Return `count` unused slots; slots that were used before come first."""
        reused = self._free[len(self._free) - min(count, len(self._free)) :]
        del self._free[len(self._free) - len(reused) :]
        new = np.arange(self._opened, self._opened + count - len(reused))
        self._opened += len(new)
        return np.concatenate([np.array(reused[::-1], dtype=np.intp), new]) if reused else new

    def _assign(self, key: str, slot: int) -> int:
        """Assign an unused slot to a new key, and reset its uses."""
        self._index.put(key, slot)
        self._uses[slot] = 0
        return slot

    def _key_of(self, slot: int) -> str:
        """Return the key of a slot that is in use."""
        key = self._index.key_of(slot)
        assert key is not None
        return key

    def _replace(
        self,
        keys: list[str],
        without_slot: Positions,
        slots: Positions,
        frequency: npt.NDArray[np.uint8],
        counts: CacheCounts,
    ) -> None:
        """Give keys at the positions `without_slot` the slots of rows that were used less often.

        For each of these keys, only the least used of `_SAMPLED` random slots is considered. The
        new slots are written to `slots`.
        """
        sampled = self._random.integers(0, self._opened, size=(len(without_slot), _SAMPLED))
        candidates = sampled[np.arange(len(without_slot)), self._uses[sampled].argmin(axis=1)]
        admitted = np.flatnonzero(frequency[without_slot] > self._uses[candidates])
        before = slots[without_slot]
        evicted = self._index.replace(
            keys, without_slot[admitted], candidates[admitted], slots, self._uses
        )
        counts.refused += len(without_slot) - evicted
        counts.evicted += evicted
        if self._loose:
            after = slots[without_slot]
            for slot in after[after != before].tolist():
                self._drop_loose(slot)

    def most_used(self, count: int) -> Positions:
        """Return the `count` most used slots, or all slots if there are fewer, most used first.

        Slots that are no longer in use may be among them.
        """
        least_first = np.argsort(self._uses[: self._opened], kind="stable")
        return least_first[::-1][:count]

    def resized(self, max_bytes: int) -> CachedGroup:
        """Return a `CachedGroup` with the limit `max_bytes` and no rows.

        Call `adopt` on it to copy rows. The record of keys that have no row is copied if it fits.
        """
        target = CachedGroup(self.versions, self._size, max_bytes, self.read_at)
        if len(self._absent) <= target._max_absent:
            target._absent.update(self._absent)
        return target

    def adopt(self, other: CachedGroup, slots: Positions) -> None:
        """Copy rows of `other` into this group, in the order of `slots`. Skip rows that do not fit.

        `slots` are slots of `other`. Keys that already have a row in this group keep it.
        """
        own_slots, other_slots = [], []
        for slot in slots.tolist():
            key = other._index.key_of(slot)
            if key is None or self.has(key) or self._opened == self._capacity:
                continue
            loose = other._loose.get(slot)
            extra_bytes = 0 if loose is None else len(loose)
            if self._used + self._size + SLOT_BYTES + extra_bytes > self._max_bytes:
                continue
            if loose is not None:
                self._loose[self._opened] = loose
                self._loose_bytes += extra_bytes
            own_slots.append(self._assign(key, self._opened))
            other_slots.append(slot)
            self._opened += 1
        self._table[own_slots] = other._table[other_slots]
        self._marks[own_slots] = other._marks[other_slots]
