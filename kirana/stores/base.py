"""What a feature store does; every backend passes `tests/contract/test_feature_store.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kirana.errors import Unavailable
from kirana.ragged import Bytes, cut, places_of, table_of_equal
from kirana.schema import expired


class RowCodec(Protocol):
    """What a store must know of a codec; `name` is what feature groups call it."""

    @property
    def name(self) -> str: ...

    def order(self, value: bytes) -> tuple[int, bool]:
        """Event time and tombstone: a write replaces what is not greater than itself."""

    def expiry_s(self, value: bytes) -> int:
        """Return the Unix seconds from which on a value is expired; 0 = never."""


@dataclass(frozen=True)
class RowBlock:
    """Many rows as bytes side by side: no object a row.

    `keys` are joined, each up to its place in `key_ends`, and so are `values`.
    """

    keys: Bytes
    key_ends: npt.NDArray[np.int64]
    values: Bytes
    value_ends: npt.NDArray[np.int64]
    expiry_s: npt.NDArray[np.uint32]
    event_time_ms: npt.NDArray[np.uint64]

    def __len__(self) -> int:
        return len(self.key_ends)

    @property
    def key_sizes(self) -> npt.NDArray[np.int64]:
        return np.diff(self.key_ends, prepend=0)

    @property
    def value_sizes(self) -> npt.NDArray[np.int64]:
        return np.diff(self.value_ends, prepend=0)

    def expired(self, now_s: float) -> npt.NDArray[np.bool_]:
        """Tell which rows have expired by now."""
        return expired(self.expiry_s, now_s)

    def take(self, rows: npt.NDArray[np.intp]) -> RowBlock:
        """Return some of the rows, in the order in which they are named."""
        key_sizes, value_sizes = self.key_sizes[rows], self.value_sizes[rows]
        return RowBlock(
            self.keys[places_of(self.key_ends[rows] - key_sizes, key_sizes)],
            np.cumsum(key_sizes),
            self.values[places_of(self.value_ends[rows] - value_sizes, value_sizes)],
            np.cumsum(value_sizes),
            self.expiry_s[rows],
            self.event_time_ms[rows],
        )

    @cached_property
    def turns(self) -> npt.NDArray[np.int64]:
        """How many rows before each one have its key: rows of one turn may be written in any order.

        All 0 where it makes no difference: rows of one size keep their order when they are sorted
        by size, and are not looked at.
        """
        turns = np.zeros(len(self), dtype=np.int64)
        if self._of_one_shape:
            return turns
        for size in np.unique(self.key_sizes).tolist():
            rows = np.flatnonzero(self.key_sizes == size)
            keys = table_of_equal(self.keys, self.key_ends[rows] - size, size)
            # as strings of numpy, which sort much faster than rows of a table
            _, of_key = np.unique(keys.view(f"S{size}").ravel(), return_inverse=True)
            order = np.argsort(of_key, kind="stable")
            ordered = of_key[order]
            first = np.searchsorted(ordered, ordered)
            turns[rows[order]] = np.arange(len(rows)) - first
        return turns

    @property
    def _of_one_shape(self) -> bool:
        sizes, ends = self.value_sizes, self.expiry_s != 0
        return not len(sizes) or bool((sizes == sizes[0]).all() and (ends == ends[0]).all())

    def key_list(self) -> list[bytes]:
        return cut(self.keys, self.key_ends)

    def value_list(self) -> list[bytes]:
        return cut(self.values, self.value_ends)


PROBE = b"f:kirana.probe:"
"""A key that nobody writes."""


class FeatureStore(Protocol):
    """Bytes by key. Values are opaque: what they mean, and whether they expired, is the codec's.

    `embedded` is whether it answers in this process, and nothing is gained by asking all at once.
    """

    embedded: bool

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        """Return one value a key, in order; None where there is none.

        Raises `Unavailable` if the database does not answer, `PartlyUnavailable` if that is so of
        some of its nodes alone.
        """

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], codec: RowCodec) -> int:
        """Write durably; return how many were not older than what was there.

        A store that forgets what has expired keeps it a tenth of its time longer, at least a
        minute, so that it is seen as expired.
        """

    async def load(self, block: RowBlock, codec: RowCodec, *, guarded: bool = True) -> int:
        """Write many rows as `put` does; where not `guarded`, a store may leave out to compare
        their event times with those of what is there.
        """

    async def ping(self) -> bool:
        """Whether the database does; of one of several nodes, whether any of them does."""

    def health(self) -> dict[str, Any]:
        """Return what people should know of its state: plain values."""

    async def close(self) -> None:
        """Let go of the database. No-op if closed."""


async def ping_by_read(store: FeatureStore) -> bool:
    """Whether a store of one node answers."""
    try:
        await store.get([PROBE])
    except Unavailable:
        return False
    return True
