"""The types that feature stores take and return: keys, rows, and results of reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.codecs.rows import Tier
from kirana.ragged import Bytes, cut, gather_table, positions_of
from kirana.schema import expired

Times = npt.NDArray[np.int64]
"""Unix milliseconds, one per row; 0 = never."""


class RowCodec(Protocol):
    """The part of a codec that stores use."""

    @property
    def name(self) -> str:
        """The name that feature groups give in `codec:`."""

    def write_order(self, value: bytes) -> tuple[int, bool]:
        """Return the event time of a row in Unix milliseconds, and whether the row is a tombstone.

        A write replaces the stored row unless the stored row has the greater write order. Return
        `(0, False)` if the codec can't read `value`.
        """

    def expiry_s(self, value: bytes) -> int:
        """Return the Unix time in seconds from which a row is expired; 0 = never.

        Return 0 also if the codec can't read `value`.
        """


class RowKeys(NamedTuple):
    """The key texts of rows of one group. See `kirana.key_texts`.

    `group` is the full name of the group, as in `product.stats`.
    """

    group: str
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The result of reading one `RowKeys`.

    `values` holds one value per key, in order: None if there is no row, or if it can't be read.
    `tier` is the tier that was read: one `Tier` for all rows, or one per row (`uint8[rows]`).

    `unavailable` holds the positions of the rows that can't be read, or None if all rows were read.
    `reason` says why they can't be read.
    """

    values: Sequence[bytes | None]
    unavailable: npt.NDArray[np.intp] | None = None
    reason: str = ""
    tier: Tier | npt.NDArray[np.uint8] = Tier.DURABLE

    @classmethod
    def all_unavailable(cls, count: int, reason: str) -> StoredRows:
        """Return the result for `count` rows that are all unavailable."""
        return cls([None] * count, np.arange(count), reason, Tier.NONE)

    @classmethod
    def joined(cls, parts: Sequence[StoredRows]) -> StoredRows:
        """Return the result of reading all keys of `parts`, one after the other."""
        if len(parts) == 1:
            return parts[0]
        counts = [len(part.values) for part in parts]
        starts = np.cumsum([0, *counts])
        unavailable = [
            start + part.unavailable
            for start, part in zip(starts.tolist(), parts, strict=False)
            if part.unavailable is not None
        ]
        return cls(
            [value for part in parts for value in part.values],
            np.concatenate(unavailable) if unavailable else None,
            max((part.reason for part in parts), key=len, default=""),
            np.concatenate(
                [
                    np.broadcast_to(np.asarray(part.tier, dtype=np.uint8), count)
                    for part, count in zip(parts, counts, strict=True)
                ]
            )
            if parts
            else Tier.DURABLE,
        )


def stored_bytes(values: Sequence[bytes | None] | npt.NDArray[np.uint8]) -> int:
    """Return how many bytes values have in all, without copying them."""
    if isinstance(values, np.ndarray):
        return values.nbytes
    if native.COMPILED and isinstance(values, native.replies.Values):
        return values.nbytes
    return sum(len(value) for value in values if value is not None)


def largest_bytes(values: Sequence[bytes | None]) -> int:
    """Return how many bytes the longest value has, without copying any; 0 if there is none."""
    if native.COMPILED and isinstance(values, native.replies.Values):
        return values.largest
    return max((len(value) for value in values if value is not None), default=0)


class Written(NamedTuple):
    """How many rows a write has stored, and how many it has not.

    `stale` rows were not stored, because the store has newer ones. For `unknown` rows, the store
    can't say whether they were stored or stale.
    """

    stored: int
    stale: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class RowBlock:
    """Many rows of one group, in arrays without a Python object per row.

    `keys` holds all key texts in UTF-8, one after the other, and `key_ends` the position where
    each key text ends. In the same way, `values` and `value_ends` hold the rows as encoded by
    `codec`. `expiry_s` is in Unix seconds (0 = never), and `event_time_ms` in Unix milliseconds.
    `deleted` is True if the block was made to delete rows. All its rows are then tombstones.
    """

    group: str
    codec: RowCodec
    keys: Bytes
    key_ends: npt.NDArray[np.int64]
    values: Bytes
    value_ends: npt.NDArray[np.int64]
    expiry_s: npt.NDArray[np.uint32]
    event_time_ms: npt.NDArray[np.uint64]
    deleted: bool = field(default=False, kw_only=True)

    @classmethod
    def of(
        cls, group: str, codec: RowCodec, keys: Sequence[str], values: Sequence[bytes]
    ) -> RowBlock:
        """Build a block from one key text and one encoded value per row.

        `codec` reads the expiry and the event time from each value.
        """
        return cls.joined(
            group,
            codec,
            keys,
            values,
            np.array([codec.expiry_s(value) for value in values], dtype=np.uint32),
            np.array([codec.write_order(value)[0] for value in values], dtype=np.uint64),
        )

    @classmethod
    def joined(
        cls,
        group: str,
        codec: RowCodec,
        keys: Sequence[str],
        values: Sequence[bytes],
        expiry_s: npt.NDArray[np.uint32],
        event_time_ms: npt.NDArray[np.uint64],
        *,
        deleted: bool = False,
    ) -> RowBlock:
        """Build a block from one key text, value, expiry and event time per row."""
        encoded = [key.encode() for key in keys]
        return cls(
            group,
            codec,
            *_joined_with_ends(encoded),
            *_joined_with_ends(values),
            expiry_s,
            event_time_ms,
            deleted=deleted,
        )

    def __len__(self) -> int:
        return len(self.key_ends)

    @property
    def key_sizes(self) -> npt.NDArray[np.int64]:
        """The size of each key text in bytes."""
        return np.diff(self.key_ends, prepend=0)

    @property
    def value_sizes(self) -> npt.NDArray[np.int64]:
        """The size of each value in bytes."""
        return np.diff(self.value_ends, prepend=0)

    def expired(self, now_s: float) -> npt.NDArray[np.bool_]:
        """Return a mask of the rows that are expired at `now_s` (Unix seconds)."""
        return expired(self.expiry_s, now_s)

    def select(self, rows: npt.NDArray[np.intp]) -> RowBlock:
        """Return a block with copies of the rows at the positions `rows`, in their order."""
        key_sizes, value_sizes = self.key_sizes[rows], self.value_sizes[rows]
        return replace(
            self,
            keys=self.keys[positions_of(self.key_ends[rows] - key_sizes, key_sizes)],
            key_ends=np.cumsum(key_sizes),
            values=self.values[positions_of(self.value_ends[rows] - value_sizes, value_sizes)],
            value_ends=np.cumsum(value_sizes),
            expiry_s=self.expiry_s[rows],
            event_time_ms=self.event_time_ms[rows],
        )

    @cached_property
    def rounds(self) -> npt.NDArray[np.int64]:
        """The round in which each row must be written, so that rows with one key keep their order.

        If all values have one size, and either all or none of the rows expire, all rows are in
        round 0. A stable sort by size and expiry then keeps the order of rows with the same key.

        Otherwise, the round is the number of earlier rows with the same key. Rows of one round then
        have different keys, so they may be written in any order.
        """
        rounds = np.zeros(len(self), dtype=np.int64)
        if self._is_uniform:
            return rounds
        for size in np.unique(self.key_sizes).tolist():
            rows = np.flatnonzero(self.key_sizes == size)
            keys = gather_table(self.keys, self.key_ends[rows] - size, size)
            # numpy sorts strings of one size much faster than the rows of a table.
            texts = keys.view(f"S{size}").ravel() if size else np.zeros(len(rows))
            _, key_ids = np.unique(texts, return_inverse=True)
            order = np.argsort(key_ids, kind="stable")
            sorted_ids = key_ids[order]
            first_of_key = np.searchsorted(sorted_ids, sorted_ids)
            rounds[rows[order]] = np.arange(len(rows)) - first_of_key
        return rounds

    @property
    def _is_uniform(self) -> bool:
        """Whether all values have one size, and either all or none of the rows expire."""
        sizes, expires = self.value_sizes, self.expiry_s != 0
        return not len(sizes) or bool((sizes == sizes[0]).all() and (expires == expires[0]).all())

    def key_list(self) -> list[bytes]:
        """Return the key texts in UTF-8, as copies."""
        return cut(self.keys, self.key_ends)

    def value_list(self) -> list[bytes]:
        """Return the values, as copies."""
        return cut(self.values, self.value_ends)


def _joined_with_ends(items: Sequence[bytes]) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Return the bytes of all items, and the position where each item ends."""
    ends = np.cumsum(np.fromiter(map(len, items), dtype=np.int64, count=len(items)))
    return np.frombuffer(b"".join(items), dtype=np.uint8), ends


class WalkedRow(NamedTuple):
    """A stored row in a page of a walk: the full name of its group, its key text and its value."""

    group: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class WalkPage:
    """A page of a walk over the rows of an entity.

    `cursor` is the cursor of the next page, or "" if this is the last page.
    """

    rows: Sequence[WalkedRow]
    cursor: str
