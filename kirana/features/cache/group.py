"""The rows of one feature group in this process's memory.

They lie in one table, as the store has them: a batch of hits is decoded where it lies, and found to
have expired, like a batch that was just read. What is one-off does not push out what is hot: where
the table is full, a key gets in only if it was asked for more often than the row that it would
replace (as in TinyLFU, Einziger et al., 2017).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from weakref import WeakSet

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.features.cache.frequency import FrequencySketch, hashes_of
from kirana.features.cache.slot_index import slot_index
from kirana.features.cache.values import copy_values

Positions = npt.NDArray[np.intp]
Sizes = npt.NDArray[np.int64]
Table = npt.NDArray[np.uint8]

SLOT_BYTES = 200
"""What a row takes beside its own bytes: the key's text, its position, times and counts."""

ABSENT_SHARE = 8
"""One part in so many of a group's bytes is for keys that are remembered to have no row."""

_AGE_AFTER = 10
"""So many uses a slot, and all counts are halved: what was hot last week is not."""

_SAMPLED = 8
"""Slots that are looked at for the least used one."""

_MARKS = np.dtype([("loaded", np.float64), ("uses", np.uint32)], align=True)
"""When a slot's row was fetched, and how often it was used: side by side, a look-up needs both."""


_NOWHERE: Positions = np.empty(0, dtype=np.intp)


@dataclass(slots=True)
class CacheCounts:
    """Keys that were looked up, and what became of rows that were fetched."""

    hits: int = 0
    misses: int = 0
    refused: int = 0
    evicted: int = 0


@dataclass(slots=True)
class CacheRead:
    """What the cache has of a batch of keys, by their positions in it.

    `table` holds the rows of `in_table`, and goes on to, whatever is kept later; `values` are
    rows of other lengths, and None for keys that have no row; `missing` must be fetched.
    """

    in_table: Positions
    table: Table | native.borrowed.Borrowed
    values: dict[int, bytes | None]
    missing: Positions


class CachedGroup:
    """Rows of one group. Its methods are for `FeatureCache`, which has the law of freshness."""

    def __init__(self, versions: int, row_bytes: int, max_bytes: int, now: float) -> None:
        """`row_bytes` is the size of rows that lie in the table, others are kept beside it."""
        self.versions = versions
        self.read_at = now
        self._size = row_bytes
        self._max_bytes = max_bytes
        self._max_absent = max_bytes // ABSENT_SHARE // SLOT_BYTES
        self._capacity = max(max_bytes // (self._size + SLOT_BYTES), 1)
        self._index = slot_index()
        self._opened = 0
        self._free: list[int] = []
        # memory that nobody has touched yet costs nothing
        self._table: Table = np.empty((self._capacity, self._size), dtype=np.uint8)
        self._lent: WeakSet[native.borrowed.Borrowed] = WeakSet()
        self._marks = np.zeros(self._capacity, dtype=_MARKS)
        self._loose: dict[int, bytes] = {}
        self._loose_bytes = 0
        self._absent: dict[str, float] = {}
        self._sketch = FrequencySketch(self._capacity)
        self._counted = 0
        self._random = np.random.default_rng()

    @property
    def _loaded(self) -> npt.NDArray[np.float64]:
        return self._marks["loaded"]

    @property
    def _uses(self) -> npt.NDArray[np.uint32]:
        return self._marks["uses"]

    @property
    def row_bytes(self) -> int:
        """The size of a row of the table."""
        return self._size

    @property
    def capacity(self) -> int:
        """The rows that the table has room for."""
        return self._capacity

    @property
    def max_bytes(self) -> int:
        return self._max_bytes

    def __len__(self) -> int:
        return len(self._index)

    @property
    def nbytes(self) -> int:
        return self._used + len(self._absent) * SLOT_BYTES + self._sketch.nbytes

    @property
    def _used(self) -> int:
        """The bytes of all rows that are kept."""
        return len(self._index) * (self._size + SLOT_BYTES) + self._loose_bytes

    def look_up(self, keys: Sequence[str], oldest: float, now: float) -> CacheRead:
        wanted = keys if isinstance(keys, list) else list(keys)
        slots, hits = self._index.find_all(wanted, self._loaded, oldest, self._uses, self._table)
        self._age(hits)
        if hits == len(keys) and not self._loose:
            return CacheRead(np.arange(hits), self._lend(slots), {}, _NOWHERE)
        if not hits and not self._absent:
            return CacheRead(_NOWHERE, self._table[:0], {}, np.arange(len(keys)))
        hit = slots >= 0
        positions = np.flatnonzero(hit)
        table = self._table[slots[positions]]
        values: dict[int, bytes | None] = {}
        if self._loose:
            loose = [self._loose.get(slot) for slot in slots[positions].tolist()]
            values = {
                at: value
                for at, value in zip(positions.tolist(), loose, strict=True)
                if value is not None
            }
            tabled = np.array([value is None for value in loose], dtype=np.bool_)
            positions, table = positions[tabled], table[tabled]
        missing = np.flatnonzero(~hit)
        if self._absent and not self._absent.keys().isdisjoint(wanted):
            until = self._absent.get
            absent = [at for at in missing.tolist() if until(keys[at], 0.0) > now]
            if absent:
                values.update(dict.fromkeys(absent))
                missing = np.setdiff1d(missing, absent, assume_unique=True)
        return CacheRead(positions, table, values, missing)

    def _lend(self, slots: Positions) -> Table | native.borrowed.Borrowed:
        if not native.COMPILED:
            return self._table[slots]
        lent = native.borrowed.Borrowed(self._table, slots)
        self._lent.add(lent)
        return lent

    def _age(self, uses: int) -> None:
        self._counted += uses
        if self._counted > _AGE_AFTER * self._capacity:
            self._counted = 0
            self._marks["uses"] >>= 1
            self._sketch.halve()

    def has(self, key: str) -> bool:
        """Whether a row is kept of a key, however old it is."""
        return self._index.get(key) >= 0

    def remember_absent(self, keys: Sequence[str], until: float, now: float) -> None:
        self.forget(keys)
        if len(self._absent) + len(keys) > self._max_absent:
            self._absent = {key: end for key, end in self._absent.items() if end > now}
            if len(self._absent) + len(keys) > self._max_absent:
                self._absent.clear()
        if len(keys) <= self._max_absent:
            self._absent.update(dict.fromkeys(keys, until))

    def forget(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._absent.pop(key, None)
            slot = self._index.pop(key)
            if slot >= 0:
                self._free.append(slot)
                self._drop_loose(slot)

    def _drop_loose(self, slot: int) -> None:
        value = self._loose.pop(slot, None)
        if value is not None:
            self._loose_bytes -= len(value)

    def refill(self, keys: list[str], values: Sequence[bytes | None], now: float) -> list[int]:
        """Renew the rows that are in the table already; return the positions of all others."""
        if self._loose:
            return list(range(len(keys)))
        self._take_back()
        return self._index.refill(keys, values, self._table, self._loaded, now, self._uses)

    def fill(
        self,
        keys: list[str],
        values: Sequence[bytes | None],
        sizes: Sizes,
        now: float,
        counts: CacheCounts,
    ) -> None:
        """Keep rows, as far as there is room or they are asked for more often than others.

        `sizes` are the bytes of each value: none of them is missing.
        """
        frequency = self._sketch.add(hashes_of(keys))
        self._counted += len(keys)
        slots = self._slots_for(keys, sizes, frequency, counts)
        kept = np.flatnonzero(slots >= 0)
        if not len(kept):
            return
        chosen = slots[kept]
        self._loaded[chosen] = now
        self._uses[chosen] = np.maximum(self._uses[chosen], frequency[kept])
        fits = (sizes[kept] == self._size) & (self._size > 0)
        if fits.any():
            self._take_back()
            copy_values(values, kept[fits], self._table, chosen[fits])
            for slot in chosen[fits].tolist() if self._loose else ():
                self._drop_loose(slot)
        if not fits.all():
            self._keep_loose(values, kept[~fits], chosen[~fits])
        self._trim(counts)

    def _take_back(self) -> None:
        """Have what was lent copied, before the table changes."""
        for lent in self._lent:
            lent.keep()
        self._lent.clear()

    def _keep_loose(
        self, values: Sequence[bytes | None], positions: Positions, slots: Positions
    ) -> None:
        """Keep the values at some positions beside the table."""
        for at, slot in zip(positions.tolist(), slots.tolist(), strict=True):
            self._drop_loose(slot)
            value = values[at]
            assert value is not None
            self._loose[slot] = value
            self._loose_bytes += len(value)

    def _trim(self, counts: CacheCounts) -> None:
        """Let the least used go of rows that are not in the table, if they take too much."""
        over = self._used - self._max_bytes
        if over <= 0:
            return
        for slot in sorted(self._loose, key=self._uses.__getitem__):
            over -= len(self._loose[slot]) + self._size + SLOT_BYTES
            self._drop_loose(slot)
            self._index.pop(self._key_of(slot))
            self._free.append(slot)
            counts.evicted += 1
            if over <= 0:
                return

    def _slots_for(
        self,
        keys: list[str],
        sizes: Sizes,
        frequency: npt.NDArray[np.uint8],
        counts: CacheCounts,
    ) -> Positions:
        """Return a slot per key, its own, a free one or that of one less used; -1 for none."""
        slots = self._index.get_all(keys)
        new = np.flatnonzero(slots < 0)
        if not len(new):
            return slots
        if self._absent and not self._absent.keys().isdisjoint(keys):
            for key in keys:
                self._absent.pop(key, None)
        beside = np.where(sizes[new] == self._size, 0, sizes[new])
        needed = np.cumsum(beside + (self._size + SLOT_BYTES))
        fitting = int(np.searchsorted(needed, self._max_bytes - self._used, side="right"))
        given = self._give(min(fitting, len(self._free) + self._capacity - self._opened))
        if len(given):
            names = keys if len(given) == len(keys) else [keys[at] for at in new[: len(given)]]
            taken = self._index.put_all(names, given)
            slots[new[: len(given)]] = taken
            self._uses[taken] = 0
            # of a key that is twice among them, one is left over
            self._free += given[taken != given].tolist()
        waiting = new[len(given) :]
        if len(waiting) and self._opened:
            self._replace(keys, waiting, slots, frequency, counts)
        return slots

    def _give(self, count: int) -> Positions:
        """Return so many slots that no key has, those first that one had."""
        again = self._free[len(self._free) - min(count, len(self._free)) :]
        del self._free[len(self._free) - len(again) :]
        fresh = np.arange(self._opened, self._opened + count - len(again))
        self._opened += len(fresh)
        return np.concatenate([np.array(again[::-1], dtype=np.intp), fresh]) if again else fresh

    def _take(self, key: str, slot: int) -> int:
        self._index.put(key, slot)
        self._uses[slot] = 0
        return slot

    def _key_of(self, slot: int) -> str:
        key = self._index.key_of(slot)
        assert key is not None
        return key

    def _replace(
        self,
        keys: list[str],
        waiting: Positions,
        slots: Positions,
        frequency: npt.NDArray[np.uint8],
        counts: CacheCounts,
    ) -> None:
        """Give each key that waits the least used of some slots, if that is used less often."""
        sampled = self._random.integers(0, self._opened, size=(len(waiting), _SAMPLED))
        least = sampled[np.arange(len(waiting)), self._uses[sampled].argmin(axis=1)]
        better = np.flatnonzero(frequency[waiting] > self._uses[least])
        before = slots[waiting]
        gone = self._index.replace(keys, waiting[better], least[better], slots, self._uses)
        counts.refused += len(waiting) - gone
        counts.evicted += gone
        if self._loose:
            for slot in slots[waiting][slots[waiting] != before].tolist():
                self._drop_loose(slot)

    def most_used(self, count: int) -> Positions:
        """Return the slots of the `count` most used rows, or of as many as there are, in order."""
        least_first = np.argsort(self._uses[: self._opened], kind="stable")
        return least_first[::-1][:count]

    def resized(self, max_bytes: int) -> CachedGroup:
        """Return one of another size for the same group, with no row yet: see `adopt`."""
        made = CachedGroup(self.versions, self._size, max_bytes, self.read_at)
        if len(self._absent) <= made._max_absent:
            made._absent.update(self._absent)
        return made

    def adopt(self, other: CachedGroup, slots: Positions) -> None:
        """Take over what another one has in these slots, as long as there is room."""
        own, theirs = [], []
        for slot in slots.tolist():
            key = other._index.key_of(slot)
            if key is None or self.has(key) or self._opened == self._capacity:
                continue
            loose = other._loose.get(slot)
            beside = 0 if loose is None else len(loose)
            if self._used + self._size + SLOT_BYTES + beside > self._max_bytes:
                continue
            if loose is not None:
                self._loose[self._opened] = loose
                self._loose_bytes += beside
            own.append(self._take(key, self._opened))
            theirs.append(slot)
            self._opened += 1
        self._table[own] = other._table[theirs]
        self._marks[own] = other._marks[theirs]
