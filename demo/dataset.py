"""MovieLens 100K, in RecBole's format, as numpy arrays in time order."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]

UNKNOWN_YEAR = 0
UNKNOWN_GENRE = "unknown"


@dataclass(frozen=True)
class Events:
    """Interactions in time order, as arrays of shape [n].

    Interactions of the same second keep the order of the file. `users` and `items` are row numbers
    in the tables of `MovieLens`. `timestamps` are Unix seconds.
    """

    users: IntArray
    items: IntArray
    ratings: FloatArray
    timestamps: IntArray

    def __len__(self) -> int:
        return len(self.users)

    def slice(self, start: int, stop: int) -> Events:
        """Return the events from position `start` up to, but not including, `stop`."""
        rows = slice(start, stop)
        return Events(self.users[rows], self.items[rows], self.ratings[rows], self.timestamps[rows])


@dataclass(frozen=True)
class MovieLens:
    """The whole data set: the events, a table of users, and a table of items.

    `user_ids`, `ages` and `is_female` have one entry per user. The other lists have one per item.
    Items without a genre have `UNKNOWN_GENRE`, and those without a year have `UNKNOWN_YEAR`.
    """

    events: Events
    user_ids: IntArray
    ages: FloatArray
    is_female: npt.NDArray[np.bool_]
    item_ids: IntArray
    titles: list[str]
    genres: list[tuple[str, ...]]
    years: IntArray

    @property
    def user_count(self) -> int:
        """The number of users, with or without events."""
        return len(self.user_ids)

    @property
    def item_count(self) -> int:
        """The number of items, with or without events."""
        return len(self.item_ids)


def load_movielens(folder: Path) -> MovieLens:
    """Read the files `ml-100k.inter`, `ml-100k.item` and `ml-100k.user` in a folder."""
    user_rows = _read_rows(folder / "ml-100k.user")
    item_rows = _read_rows(folder / "ml-100k.item")
    user_ids = np.array([int(row[0]) for row in user_rows], dtype=np.int64)
    item_ids = np.array([int(row[0]) for row in item_rows], dtype=np.int64)
    return MovieLens(
        events=_load_events(folder / "ml-100k.inter", user_ids, item_ids),
        user_ids=user_ids,
        ages=np.array([float(row[1]) for row in user_rows], dtype=np.float32),
        is_female=np.array([row[2] == "F" for row in user_rows], dtype=np.bool_),
        item_ids=item_ids,
        titles=[row[1] for row in item_rows],
        genres=[tuple(row[3].split()) or (UNKNOWN_GENRE,) for row in item_rows],
        years=np.array([_parse_year(row[2]) for row in item_rows], dtype=np.int64),
    )


def split_by_time(events: Events, past_share: float) -> tuple[Events, Events]:
    """Return the earliest events, a share of `past_share` (0 to 1), and the remaining events."""
    cut = round(len(events) * past_share)
    return events.slice(0, cut), events.slice(cut, len(events))


def _load_events(path: Path, user_ids: IntArray, item_ids: IntArray) -> Events:
    rows = _read_rows(path)
    timestamps = np.array([int(float(row[3])) for row in rows], dtype=np.int64)
    order = np.argsort(timestamps, kind="stable")
    user_row = {int(key): row for row, key in enumerate(user_ids)}
    item_row = {int(key): row for row, key in enumerate(item_ids)}
    return Events(
        users=np.array([user_row[int(row[0])] for row in rows], dtype=np.int64)[order],
        items=np.array([item_row[int(row[1])] for row in rows], dtype=np.int64)[order],
        ratings=np.array([float(row[2]) for row in rows], dtype=np.float32)[order],
        timestamps=timestamps[order],
    )


def _read_rows(path: Path) -> list[list[str]]:
    """Return the fields of each line below the header. Tabs separate the fields."""
    lines = path.read_text(encoding="utf-8").split("\n")[1:]
    return [line.split("\t") for line in lines if line]


def _parse_year(text: str) -> int:
    return int(text) if text.isdigit() else UNKNOWN_YEAR
