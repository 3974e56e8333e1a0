"""A cache of feature rows in the memory of this process, with one limit for all feature groups."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kirana.codecs.packed.layout import row_bytes
from kirana.features.cache.group import CachedGroup, Sizes
from kirana.features.cache.reads import CacheCounts, CacheRead, Positions
from kirana.features.cache.values import sizes_of
from kirana.schema import FeatureGroup

IDLE_S = 600.0
"""Seconds without a look-up after which a group is idle.

Idle groups are dropped when a group that is not cached is looked up or filled.
"""

MOVED_PER_LOOK_UP = 250
"""The most rows that a look-up moves while groups move to tables of a different size.

A group that has at most this many rows to move is moved at once.
"""


@dataclass(slots=True)
class _Move:
    """A group whose rows are being moved to a table of a different size.

    Until all rows are moved, look-ups use the old table, and fills and removals change both.
    `slots` are the slots of the old table to move, in this order. The first `moved` of them are
    done.
    """

    target: CachedGroup
    slots: Positions
    moved: int = 0

    @property
    def spare_rows(self) -> int:
        """How many other rows the new table can take, besides those that are still to be moved."""
        return max(self.target.capacity - len(self.target) - len(self.slots) + self.moved, 0)


class FeatureCache:
    """A cache of feature rows, with a limit for their memory.

    Each cached group gets an equal share of `max_bytes` for its rows. While rows are moved to a
    table of a different size, both tables exist. A row is used for `fresh_s` seconds from the start
    of its fetch, so a write by another process can go unnoticed for that long. `clock` returns
    seconds. `counts` are the counters of all groups. Not thread-safe.
    """

    def __init__(
        self, max_bytes: int, fresh_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self.fresh_s = fresh_s
        self._clock = clock
        self._groups: dict[str, CachedGroup] = {}
        self._moves: dict[str, _Move] = {}
        self.counts = CacheCounts()

    @property
    def nbytes(self) -> int:
        """The approximate memory of all groups, in bytes."""
        targets = [move.target for move in self._moves.values()]
        return sum(rows.nbytes for rows in (*self._groups.values(), *targets))

    def now(self) -> float:
        """Return the time of the cache's clock, in seconds."""
        return self._clock()

    def look_up(self, group: FeatureGroup, keys: Sequence[str]) -> CacheRead:
        """Return the fresh rows of `keys`, and the positions of the keys that must be fetched.

        Each key counts as a hit or a miss. Each returned row is used once more.
        """
        now = self._clock()
        # Move rows of any group, because a group that is no longer read must shrink too.
        self._move_on(MOVED_PER_LOOK_UP)
        rows = self._rows(group)
        rows.read_at = now
        read = rows.look_up(keys, now - self.fresh_s, now)
        missed = len(read.missing)
        self.counts.misses += missed
        self.counts.hits += len(keys) - missed
        return read

    def fill(
        self,
        group: FeatureGroup,
        keys: Sequence[str],
        values: Sequence[bytes | None],
        *,
        since: float | None = None,
    ) -> None:
        """Cache the values that were fetched for `keys`; None means that a key has no row.

        In a full cache, a new row is kept only if its key was used more often than the row that it
        would replace. `since` is when the fetch began, by the cache's clock (default: now). The
        rows are fresh for `fresh_s` seconds from then on.
        """
        now = self._clock() if since is None else since
        # Move as many rows as this call may add, so that groups shrink as fast as others grow.
        self._move_on(max(len(keys), MOVED_PER_LOOK_UP))
        rows, move = self._rows(group), self._moves.get(group.name)
        texts = keys if isinstance(keys, list) else list(keys)
        if move is None:
            remaining = rows.refill(texts, values, now)
            if not remaining:
                return
            if len(remaining) < len(texts):
                texts, values = [texts[i] for i in remaining], [values[i] for i in remaining]
        sizes = sizes_of(values)
        without_row = np.flatnonzero(sizes < 0)
        if len(without_row):
            absent = [texts[i] for i in without_row.tolist()]
            for destination in [rows] if move is None else [rows, move.target]:
                destination.remember_absent(absent, now + self.fresh_s, now)
            texts, values, sizes = _rows_at(np.flatnonzero(sizes >= 0), texts, values, sizes)
        if len(texts):
            rows.fill(texts, values, sizes, now, self.counts)
        if move is not None:
            # Leave space in the new table for the rows that are still to be moved.
            in_new_table = np.array([move.target.has(key) for key in texts], dtype=np.bool_)
            kept = np.append(
                np.flatnonzero(in_new_table), np.flatnonzero(~in_new_table)[: move.spare_rows]
            )
            if len(kept):
                move.target.fill(*_rows_at(kept, texts, values, sizes), now, CacheCounts())

    def forget(self, group: str, keys: Sequence[str]) -> None:
        """Remove everything that is cached for `keys`, after they were written."""
        rows, move = self._groups.get(group), self._moves.get(group)
        if rows is not None:
            rows.forget(keys)
        if move is not None:
            move.target.forget(keys)

    def _rows(self, group: FeatureGroup) -> CachedGroup:
        """Return the cached rows of a group.

        Start with an empty table if the group is not cached, has more schema versions than when it
        was cached, or has a different row size. The other groups are then resized to their new
        share. A request on a revision with fewer schema versions uses the cached rows as they are.
        """
        rows = self._groups.get(group.name)
        if rows is not None and (
            rows.versions > len(group.versions)
            or (rows.versions, rows.row_bytes) == (len(group.versions), row_bytes(group))
        ):
            return rows
        if rows is None:
            self._drop_idle()
        self._moves.pop(group.name, None)
        other_groups = {name: rows for name, rows in self._groups.items() if name != group.name}
        share = self._max_bytes // (len(other_groups) + 1)
        for name, other_rows in other_groups.items():
            self._resize(name, other_rows, share)
        created = CachedGroup(len(group.versions), row_bytes(group), share, self._clock())
        self._groups[group.name] = created
        return created

    def _resize(self, name: str, rows: CachedGroup, max_bytes: int) -> None:
        """Start to move the most used rows of a group to a table of `max_bytes`.

        If the group's table has this size already, keep it, and give up any move that has begun.
        """
        move = self._moves.pop(name, None)
        if rows.max_bytes == max_bytes:
            return
        if move is None or move.target.max_bytes != max_bytes:
            target = rows.resized(max_bytes)
            move = _Move(target, rows.most_used(target.capacity))
        self._moves[name] = move
        if len(move.slots) <= MOVED_PER_LOOK_UP:
            self._move(name, MOVED_PER_LOOK_UP)

    def _move_on(self, count: int) -> None:
        """Move up to `count` rows of the groups that are being resized."""
        while self._moves and count > 0:
            count -= self._move(next(iter(self._moves)), count)

    def _move(self, name: str, count: int) -> int:
        """Move up to `count` rows of a group; return how many were moved.

        After the last row, the new table replaces the old one.
        """
        move, rows = self._moves[name], self._groups[name]
        slots = move.slots[move.moved : move.moved + count]
        move.target.adopt(rows, slots)
        move.moved += len(slots)
        if move.moved == len(move.slots):
            del self._moves[name]
            self.counts.evicted += max(len(rows) - len(move.target), 0)
            move.target.read_at = rows.read_at
            self._groups[name] = move.target
        return len(slots)

    def _drop_idle(self) -> None:
        """Drop the groups that are idle, so that the other groups get their shares."""
        oldest_read = self._clock() - IDLE_S
        for name in [name for name, rows in self._groups.items() if rows.read_at < oldest_read]:
            self.counts.evicted += len(self._groups.pop(name))
            self._moves.pop(name, None)


def _rows_at(
    positions: Positions, keys: Sequence[str], values: Sequence[bytes | None], sizes: Sizes
) -> tuple[list[str], list[bytes | None], Sizes]:
    """Return the keys, values and sizes at some positions of a batch."""
    indices = positions.tolist()
    return [keys[i] for i in indices], [values[i] for i in indices], sizes[positions]
