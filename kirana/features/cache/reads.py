"""The result of a look-up in the cache, and the counters of a cache."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana import native

Positions = npt.NDArray[np.intp]
Table = npt.NDArray[np.uint8]


@dataclass(slots=True)
class CacheCounts:
    """Counters of a cache.

    `hits` and `misses` count keys that were looked up. `refused` counts fetched rows that a full
    cache did not admit. `evicted` counts rows that were removed because other rows needed their
    memory.
    """

    hits: int = 0
    misses: int = 0
    refused: int = 0
    evicted: int = 0


@dataclass(slots=True)
class CacheRead:
    """The cached part of a batch of keys. All positions refer to this batch.

    `table` has one row for each position in `table_positions`. Its content does not change when the
    cache changes. `values` has, by position, the rows that are not in a table, and None for keys
    that the store has no row for. The keys at `missing` must be fetched.
    """

    table_positions: Positions
    table: Table | native.borrowed.Borrowed
    values: dict[int, bytes | None]
    missing: Positions
