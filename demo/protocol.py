"""The honest protocol: what is known at a point, what is asked, and what counts as right.

At a point in time t only events with timestamps strictly before t are known, of anybody. What
the user has seen before t is excluded, and the truth is the user's next ten events from t on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from kirana.demo.dataset import Events, FloatArray, IntArray

MIN_HISTORY = 5
TRUTH_LENGTH = 10
TOP = 20
TIE_SEED = 7

_DISCOUNTS = 1.0 / np.log2(np.arange(2, TRUTH_LENGTH + 2))


@dataclass(frozen=True)
class Points:
    """Questions in order of time: each user's `histories`, newest first, and the truth.

    Items are rows of the item table. Events of one second stand in descending order of the
    item's id as text, as the interaction store keeps them.
    """

    users: IntArray
    timestamps: IntArray
    histories: list[IntArray]
    history_times: list[IntArray]
    truths: list[IntArray]
    truth_ratings: list[FloatArray]

    def __len__(self) -> int:
        return len(self.users)


def sample_points(events: Events, item_ids: IntArray, start: int, count: int, seed: int) -> Points:
    """Draw points among the events from position `start` on, without replacement.

    Eligible: later than the last event before `start` (so that nothing which was computed from
    those is of the point's own second), and at least five events of the user strictly before.
    """
    by_text = np.argsort(np.argsort(item_ids.astype(str)))
    order = np.argsort(events.users, kind="stable")
    bounds = np.searchsorted(events.users[order], np.arange(events.users.max() + 2))
    own = [order[low:high] for low, high in pairwise(bounds)]
    own_times = [events.timestamps[positions] for positions in own]

    def known(position: int) -> int:
        time = events.timestamps[position]
        return int(np.searchsorted(own_times[events.users[position]], time))

    eligible = [
        position
        for position in range(start, len(events))
        if events.timestamps[position] > events.timestamps[start - 1]
        and known(position) >= MIN_HISTORY
    ]
    rng = np.random.default_rng(seed)
    chosen = rng.choice(eligible, size=min(count, len(eligible)), replace=False)
    chosen.sort()
    histories = []
    nexts = []
    for position in chosen:
        mine, split = own[events.users[position]], known(position)
        before = mine[:split]
        newest = np.lexsort((by_text[events.items[before]], events.timestamps[before]))[::-1]
        histories.append(before[newest])
        nexts.append(mine[split:][:TRUTH_LENGTH])
    return Points(
        users=events.users[chosen],
        timestamps=events.timestamps[chosen],
        histories=[events.items[positions] for positions in histories],
        history_times=[events.timestamps[positions] for positions in histories],
        truths=[events.items[positions] for positions in nexts],
        truth_ratings=[events.ratings[positions] for positions in nexts],
    )


def popularity_lists(events: Events, points: Points, item_count: int) -> list[IntArray]:
    """Return the baseline's list for each point: what all have seen most, counted live.

    Ties are broken by a fixed permutation, because ids carry order in this data set.
    """
    tie_break = np.random.default_rng(TIE_SEED).permutation(item_count) / item_count
    counts = np.zeros(item_count)
    done, lists = 0, []
    for timestamp, history in zip(points.timestamps, points.histories, strict=True):
        known = int(np.searchsorted(events.timestamps, timestamp))
        counts += np.bincount(events.items[done:known], minlength=item_count)
        done = known
        scores = counts + 0.5 * tie_break
        scores[history] = -1.0
        lists.append(np.argsort(-scores)[:TOP])
    return lists


def ndcg_and_recall(
    lists: list[IntArray], points: Points
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return NDCG@10 and recall@20 of each point."""
    ndcg = np.zeros(len(points))
    recall = np.zeros(len(points))
    for at, (found, truth) in enumerate(zip(lists, points.truths, strict=True)):
        hits = np.isin(found, truth)
        first = hits[:TRUTH_LENGTH]
        ideal = _DISCOUNTS[: len(truth)].sum()
        ndcg[at] = (first * _DISCOUNTS[: len(first)]).sum() / ideal
        recall[at] = hits[:TOP].sum() / len(truth)
    return ndcg, recall
