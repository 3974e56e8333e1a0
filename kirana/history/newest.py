"""Which row of its key was the newest at a time: the core of a point-in-time join."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class RowOrder:
    """What decides which of two rows replaces the other, one entry per row.

    A later event time wins, then a delete, and then what the store had later: `stored_ms`, and the
    place in the topic (`offset`, `row`).
    """

    event_time_ms: Ints
    deleted: Ints
    stored_ms: Ints
    offset: Ints
    row: Ints

    @classmethod
    def nothing(cls, count: int) -> RowOrder:
        """Return an order that precedes that of any row."""
        return cls(*(np.full(count, -1, np.int64) for _ in range(5)))

    def taken(self, rows: Ints) -> RowOrder:
        """Return the order of the rows at these positions."""
        return RowOrder(*(column[rows] for column in self._columns()))

    def _columns(self) -> tuple[Ints, ...]:
        return self.event_time_ms, self.deleted, self.stored_ms, self.offset, self.row

    def ranks(self) -> Ints:
        """Return the place of each row if all are sorted, the oldest first."""
        ranks = np.empty(len(self.event_time_ms), np.int64)
        ranks[np.lexsort(self._columns()[::-1])] = np.arange(len(ranks))
        return ranks

    def is_after(self, other: RowOrder) -> npt.NDArray[np.bool_]:
        """Return a mask of the rows that replace those of `other` at the same positions."""
        after = np.zeros(len(self.event_time_ms), np.bool_)
        equal = ~after
        for own, of_other in zip(self._columns(), other._columns(), strict=True):
            after |= equal & (own > of_other)
            equal &= own == of_other
        return after

    def put(self, positions: Ints, order: RowOrder) -> None:
        """Replace the entries at `positions`."""
        for own, new in zip(self._columns(), order._columns(), strict=True):
            own[positions] = new


def newest_before(
    keys: Ints, known_ms: Ints, order: RowOrder, point_keys: Ints, point_ms: Ints
) -> tuple[Ints, Ints]:
    """Return the points for which there is a row, and the newest row of each.

    `keys` are numbers from 0. A row counts for a point if it has the same key, and was known at the
    time of the point or before: `known_ms <= point_ms`.
    """
    if not len(keys) or not len(point_keys):
        return np.empty(0, np.int64), np.empty(0, np.int64)
    first_ms, last_ms = int(known_ms.min()), int(known_ms.max())
    # Key and time in one number, so that one search finds both. 0 is before all rows of a key.
    span = last_ms - first_ms + 2
    places = keys * span + (known_ms - first_ms + 1)
    by_place = np.argsort(places, kind="stable")
    places = places[by_place]
    ranks = order.ranks()[by_place]
    by_rank = np.empty(len(ranks), np.int64)
    by_rank[ranks] = by_place
    # The newest row so far of each key: numbers of later keys are larger than those of earlier.
    sorted_keys = keys[by_place]
    count = len(ranks)
    newest = np.maximum.accumulate(sorted_keys * count + ranks) - sorted_keys * count
    point_places = point_keys * span + (np.clip(point_ms, first_ms - 1, last_ms) - first_ms + 1)
    found = np.searchsorted(places, point_places, side="right") - 1
    points = np.flatnonzero((found >= 0) & (sorted_keys[np.maximum(found, 0)] == point_keys))
    return points, by_rank[newest[found[points]]]
