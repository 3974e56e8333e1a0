"""The newest row of a key before a time, against a search through all rows."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kirana.history.newest import RowOrder, newest_before

ROW = st.tuples(
    st.integers(0, 3), st.integers(0, 20), st.integers(0, 4), st.booleans(), st.integers(0, 3)
)
"""The key, when it was known, event time, whether it is a delete, and when it was stored."""

POINT = st.tuples(st.integers(0, 3), st.integers(-5, 30))


@given(st.lists(ROW, max_size=30), st.lists(POINT, max_size=20))
def test_each_point_gets_the_row_that_a_store_would_have(
    rows: list[tuple[int, int, int, bool, int]], points: list[tuple[int, int]]
) -> None:
    keys, known, times, deleted, stored = (
        np.array([row[i] for row in rows], np.int64) for i in range(5)
    )
    order = RowOrder(times, deleted, stored, np.arange(len(rows)), np.zeros(len(rows), np.int64))
    point_keys, point_ms = (np.array([point[i] for point in points], np.int64) for i in range(2))
    found = dict(
        zip(
            *map(np.ndarray.tolist, newest_before(keys, known, order, point_keys, point_ms)),
            strict=True,
        )
    )
    for number, (key, at_ms) in enumerate(points):
        candidates = [i for i, row in enumerate(rows) if row[0] == key and row[1] <= at_ms]
        best = max(candidates, key=lambda i: (rows[i][2], rows[i][3], rows[i][4], i), default=None)
        assert found.get(number) == best


@given(st.lists(ROW, min_size=1, max_size=10), st.lists(ROW, min_size=1, max_size=10))
def test_rows_replace_others_as_their_ranks_say(
    first: list[tuple[int, int, int, bool, int]], second: list[tuple[int, int, int, bool, int]]
) -> None:
    count = min(len(first), len(second))
    both = np.array([*first[:count], *second[:count]], np.int64)
    order = RowOrder(both[:, 2], both[:, 3], both[:, 4], both[:, 0], both[:, 1])
    ranks = order.ranks()
    one, other = np.arange(count), np.arange(count, 2 * count)
    after = order.taken(one).is_after(order.taken(other))
    for i in range(count):
        same = (both[i, [2, 3, 4, 0, 1]] == both[count + i, [2, 3, 4, 0, 1]]).all()
        assert after[i] == (not same and ranks[i] > ranks[count + i])


def test_times_that_are_far_apart_do_not_overflow() -> None:
    keys = np.array([2**21, 2**21], np.int64)
    known = np.array([0, 2**41], np.int64)
    order = RowOrder(known, *(np.zeros(2, np.int64) for _ in range(4)))
    points, rows = newest_before(keys, known, order, keys, np.array([2**50, 5], np.int64))
    assert (points.tolist(), rows.tolist()) == ([0, 1], [1, 0])
