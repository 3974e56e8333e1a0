"""The evaluation protocol, which lets no information from the future into a list.

A point is a user at a time t. Only events before t, of any user, may be used to make the list.
Items that the user watched before t are excluded. The truth is the user's next events from t on, at
most ten.
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
    """Evaluation points in time order: user, time, history and truth.

    Users and items are row numbers in the tables of `MovieLens`. A history is newest first, and a
    truth is oldest first. In a history, events of the same second are in descending order of the
    item id as text, as in the interaction store.
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
    """Draw at most `count` points at random among the events from position `start` on.

    A point must be later than the last event before `start`, so that features computed from the
    events before `start` include no event of the same second as the point. The user must have at
    least `MIN_HISTORY` events before the point.
    """
    text_rank = np.argsort(np.argsort(item_ids.astype(str)))
    order = np.argsort(events.users, kind="stable")
    bounds = np.searchsorted(events.users[order], np.arange(events.users.max() + 2))
    positions_of = [order[low:high] for low, high in pairwise(bounds)]
    times_of = [events.timestamps[positions] for positions in positions_of]

    def history_length(position: int) -> int:
        time = events.timestamps[position]
        return int(np.searchsorted(times_of[events.users[position]], time))

    eligible = [
        position
        for position in range(start, len(events))
        if events.timestamps[position] > events.timestamps[start - 1]
        and history_length(position) >= MIN_HISTORY
    ]
    rng = np.random.default_rng(seed)
    chosen = rng.choice(eligible, size=min(count, len(eligible)), replace=False)
    chosen.sort()
    history_positions_of = []
    truth_positions = []
    for position in chosen:
        user_positions, split = positions_of[events.users[position]], history_length(position)
        history_positions = user_positions[:split]
        newest = np.lexsort(
            (text_rank[events.items[history_positions]], events.timestamps[history_positions])
        )[::-1]
        history_positions_of.append(history_positions[newest])
        truth_positions.append(user_positions[split:][:TRUTH_LENGTH])
    return Points(
        users=events.users[chosen],
        timestamps=events.timestamps[chosen],
        histories=[events.items[positions] for positions in history_positions_of],
        history_times=[events.timestamps[positions] for positions in history_positions_of],
        truths=[events.items[positions] for positions in truth_positions],
        truth_ratings=[events.ratings[positions] for positions in truth_positions],
    )


def popularity_lists(events: Events, points: Points, item_count: int) -> list[IntArray]:
    """Return the list of the baseline for each point: the most watched items until then.

    Items in the user's history are excluded. A fixed permutation breaks ties, because the ids
    of this data set are not in random order.
    """
    tie_break = np.random.default_rng(TIE_SEED).permutation(item_count) / item_count
    counts = np.zeros(item_count)
    counted, lists = 0, []
    for timestamp, history in zip(points.timestamps, points.histories, strict=True):
        known_count = int(np.searchsorted(events.timestamps, timestamp))
        counts += np.bincount(events.items[counted:known_count], minlength=item_count)
        counted = known_count
        scores = counts + 0.5 * tie_break
        scores[history] = -1.0
        lists.append(np.argsort(-scores)[:TOP])
    return lists


def ndcg_and_recall(
    lists: list[IntArray], points: Points
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return NDCG@10 and recall@20 for each point, both float64[points].

    `lists` has the item row numbers for each point, best first.
    """
    ndcg = np.zeros(len(points))
    recall = np.zeros(len(points))
    for i, (items, truth) in enumerate(zip(lists, points.truths, strict=True)):
        hits = np.isin(items, truth)
        first_hits = hits[:TRUTH_LENGTH]
        ideal = _DISCOUNTS[: len(truth)].sum()
        ndcg[i] = (first_hits * _DISCOUNTS[: len(first_hits)]).sum() / ideal
        recall[i] = hits[:TOP].sum() / len(truth)
    return ndcg, recall
