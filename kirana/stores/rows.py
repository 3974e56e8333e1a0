"""Rows on their way into and out of a feature store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from kirana.codecs.rows import Tier
from kirana.ragged import Bytes, cut, positions_of, table_of_equal
from kirana.schema import expired

Times = npt.NDArray[np.int64]


class RowCodec(Protocol):
    """What a store must know of a codec; `name` is what feature groups call it."""

    @property
    def name(self) -> str: ...

    def order(self, value: bytes) -> tuple[int, bool]:
        """Return event time (ms) and whether it is a tombstone: a write replaces what is not
        greater than itself.
        """

    def expiry_s(self, value: bytes) -> int:
        """Return the Unix seconds from which on a value is expired; 0 = never."""


class RowKeys(NamedTuple):
    """Rows of one group (`entity.group`), by key text; see `kirana.key_texts`."""

    group: str
    keys: Sequence[str]


@dataclass(frozen=True, slots=True)
class StoredRows:
    """The answer to one `RowKeys`: one value per key, in order; None where there is no row.

    `unavailable` are the positions of rows whose server did not answer, and `reason` says why;
    their values are None. `tier` is who had the rows, or one `Tier` per row.
    """

    values: Sequence[bytes | None]
    unavailable: npt.NDArray[np.intp] | None = None
    reason: str = ""
    tier: Tier | npt.NDArray[np.uint8] = Tier.DURABLE

    @classmethod
    def none_of(cls, count: int, reason: str) -> StoredRows:
        """Return the answer of a store that does not answer."""
        return cls([None] * count, np.arange(count), reason, Tier.NONE)


class Written(NamedTuple):
    """What became of the rows of a write, as far as the store can know.

    `stale` rows were older than what was there. Of `unknown` ones the store does not say whether
    they were stored or stale.
    """

    stored: int
    stale: int = 0
    unknown: int = 0


@dataclass(frozen=True)
class RowBlock:
    """Many rows of one group as bytes side by side: no object per row.

    `keys` are the key texts in UTF-8, joined, each up to its position in `key_ends`; so are
    `values`, which `codec` has made. With `deleted` all of them are tombstones.
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
        """Return rows whose expiry and event time are read from their values."""
        return cls.joined(
            group,
            codec,
            keys,
            values,
            np.array([codec.expiry_s(each) for each in values], dtype=np.uint32),
            np.array([codec.order(each)[0] for each in values], dtype=np.uint64),
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
        """Return rows that come as one object each."""
        encoded = [key.encode() for key in keys]
        return cls(
            group,
            codec,
            *_side_by_side(encoded),
            *_side_by_side(values),
            expiry_s,
            event_time_ms,
            deleted=deleted,
        )

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
            # numpy sorts strings much faster than rows of a table
            texts = keys.view(f"S{size}").ravel() if size else np.zeros(len(rows))
            _, of_key = np.unique(texts, return_inverse=True)
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


def _side_by_side(items: Sequence[bytes]) -> tuple[Bytes, npt.NDArray[np.int64]]:
    ends = np.cumsum(np.fromiter(map(len, items), dtype=np.int64, count=len(items)))
    return np.frombuffer(b"".join(items), dtype=np.uint8), ends


class WalkedRow(NamedTuple):
    """One stored row that a walk came to."""

    group: str
    key: str
    value: bytes


@dataclass(frozen=True, slots=True)
class WalkPage:
    """Some rows of an entity, and the `cursor` that the next page begins at; "" after the last."""

    rows: Sequence[WalkedRow]
    cursor: str
