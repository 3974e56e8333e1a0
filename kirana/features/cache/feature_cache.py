"""Feature rows in this process's memory, so that what is hot is not fetched again."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from kirana.codecs.packed.layout import row_bytes
from kirana.features.cache.group import CacheCounts, CachedGroup, CacheRead, Positions, Sizes
from kirana.features.cache.values import sizes_of
from kirana.schema import FeatureGroup

IDLE_S = 600.0
"""A group that nobody has read for so long has no claim to its bytes, where others want them."""

MOVED_AT_ONCE = 250
"""Rows that a look-up moves, as long as the size of a group's table changes."""


@dataclass(slots=True)
class _Move:
    """Rows on their way to a table of another size. Meanwhile the old one is read, and what is
    kept or forgotten is so in both.
    """

    to: CachedGroup
    slots: Positions
    moved: int = 0

    @property
    def room(self) -> int:
        """So many rows find room beside those that are on their way."""
        return max(self.to.capacity - len(self.to) - len(self.slots) + self.moved, 0)


class FeatureCache:
    """Bounded in bytes, shared out evenly among the groups that are read.

    A row is used for `fresh_s` after it was fetched: so long a write by another process may go
    unseen. Not safe for use by several threads.
    """

    def __init__(
        self, max_bytes: int, fresh_s: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._max_bytes = max_bytes
        self._fresh_s = fresh_s
        self._clock = clock
        self._groups: dict[str, CachedGroup] = {}
        self._moves: dict[str, _Move] = {}
        self.counts = CacheCounts()

    @property
    def nbytes(self) -> int:
        """About how much memory all rows take."""
        moved = [move.to for move in self._moves.values()]
        return sum(rows.nbytes for rows in (*self._groups.values(), *moved))

    def now(self) -> float:
        """Return the time that freshness is counted by, in seconds."""
        return self._clock()

    def look_up(self, group: FeatureGroup, keys: Sequence[str]) -> CacheRead:
        now = self._clock()
        # of whatever group: one that nobody reads has to give up its bytes too
        self._move_on(MOVED_AT_ONCE)
        rows = self._rows(group)
        rows.read_at = now
        read = rows.look_up(keys, now - self._fresh_s, now)
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
        """Keep what was fetched, as far as there is room or it is asked for more than others.

        It is as fresh as at `since`, when the store was asked (now, if it is not given).
        """
        now = self._clock() if since is None else since
        # as fast as another takes what a group has to give up
        self._move_on(max(len(keys), MOVED_AT_ONCE))
        rows, move = self._rows(group), self._moves.get(group.name)
        texts = keys if isinstance(keys, list) else list(keys)
        if move is None:
            left = rows.refill(texts, values, now)
            if not left:
                return
            if len(left) < len(texts):
                texts, values = [texts[at] for at in left], [values[at] for at in left]
        sizes = sizes_of(values)
        missing = np.flatnonzero(sizes < 0)
        if len(missing):
            absent = [texts[at] for at in missing.tolist()]
            for each in [rows] if move is None else [rows, move.to]:
                each.remember_absent(absent, now + self._fresh_s, now)
            texts, values, sizes = _chosen(np.flatnonzero(sizes >= 0), texts, values, sizes)
        if len(texts):
            rows.fill(texts, values, sizes, now, self.counts)
        if move is not None:
            # the room of rows that have not come yet is theirs
            known = np.array([move.to.has(key) for key in texts], dtype=np.bool_)
            kept = np.append(np.flatnonzero(known), np.flatnonzero(~known)[: move.room])
            if len(kept):
                move.to.fill(*_chosen(kept, texts, values, sizes), now, CacheCounts())

    def forget(self, group: str, keys: Sequence[str]) -> None:
        """Drop what is kept of these keys: they were written."""
        rows, move = self._groups.get(group), self._moves.get(group)
        if rows is not None:
            rows.forget(keys)
        if move is not None:
            move.to.forget(keys)

    def _rows(self, group: FeatureGroup) -> CachedGroup:
        rows = self._groups.get(group.name)
        if rows is not None and (
            rows.versions > len(group.versions)
            or (rows.versions, rows.row_bytes) == (len(group.versions), row_bytes(group))
        ):
            return rows
        if rows is None:
            self._drop_idle()
        self._moves.pop(group.name, None)
        others = {name: each for name, each in self._groups.items() if name != group.name}
        share = self._max_bytes // (len(others) + 1)
        for name, each in others.items():
            self._resize(name, each, share)
        made = CachedGroup(len(group.versions), row_bytes(group), share, self._clock())
        self._groups[group.name] = made
        return made

    def _resize(self, name: str, rows: CachedGroup, max_bytes: int) -> None:
        """Begin to move a group's most used rows to a table that takes so many bytes."""
        move = self._moves.pop(name, None)
        if rows.max_bytes == max_bytes:
            return
        if move is None or move.to.max_bytes != max_bytes:
            to = rows.resized(max_bytes)
            move = _Move(to, rows.most_used(to.capacity))
        self._moves[name] = move
        if len(move.slots) <= MOVED_AT_ONCE:
            self._move(name, MOVED_AT_ONCE)

    def _move_on(self, count: int) -> None:
        """Move so many rows, if there are rows on their way."""
        while self._moves and count > 0:
            count -= self._move(next(iter(self._moves)), count)

    def _move(self, name: str, count: int) -> int:
        """Move rows of a group; once all are there, they are read there. Return how many."""
        move, rows = self._moves[name], self._groups[name]
        slots = move.slots[move.moved : move.moved + count]
        move.to.adopt(rows, slots)
        move.moved += len(slots)
        if move.moved == len(move.slots):
            del self._moves[name]
            self.counts.evicted += max(len(rows) - len(move.to), 0)
            move.to.read_at = rows.read_at
            self._groups[name] = move.to
        return len(slots)

    def _drop_idle(self) -> None:
        """Let go of groups that nobody reads any more: their share is the others'."""
        since = self._clock() - IDLE_S
        for name in [name for name, rows in self._groups.items() if rows.read_at < since]:
            self.counts.evicted += len(self._groups.pop(name))
            self._moves.pop(name, None)


def _chosen(
    positions: Positions, keys: Sequence[str], values: Sequence[bytes | None], sizes: Sizes
) -> tuple[list[str], list[bytes | None], Sizes]:
    """Return the rows at some positions of a batch."""
    chosen = positions.tolist()
    return [keys[at] for at in chosen], [values[at] for at in chosen], sizes[positions]
