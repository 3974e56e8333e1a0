"""Functions that call a feature store with a flat list of keys and return plain results."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from kirana.errors import Unavailable
from kirana.stores import (
    FeatureStore,
    RowBlock,
    RowCodec,
    RowKeys,
    StoredRows,
    Written,
    open_feature_store,
)
from kirana.stores.base import PAGE_ROWS
from kirana.stores.cassandra import CassandraFeatureStore
from kirana.stores.open import open_hot_tier
from kirana.stores.rows import WalkPage
from kirana.stores.tiered import TieredFeatureStore

GROUP = "product.g"
"""The group of keys that do not name one."""


def split_key(key: bytes | str) -> tuple[str, str]:
    """Return the group and the key text of a key `f:<group>:<key text>`.

    Any other key is a key text of `GROUP`.
    """
    text = key.decode() if isinstance(key, bytes) else key
    if not text.startswith("f:"):
        return GROUP, text
    group, _, text = text.removeprefix("f:").partition(":")
    return group, text


async def read_values(store: FeatureStore, keys: Sequence[bytes | str]) -> list[bytes | None]:
    """Return one value per key, None if no row is stored.

    Raise `Unavailable` if any of the rows is unavailable.
    """
    requested = [
        RowKeys(group, [text for _, text in pairs])
        for group, pairs in groupby(map(split_key, keys), key=lambda pair: pair[0])
    ]
    values: list[bytes | None] = []
    for rows in await store.read(requested or [RowKeys(GROUP, [])]):
        if rows.unavailable is not None:
            raise Unavailable(rows.reason)
        values += rows.values
    return values


async def write_rows(
    store: FeatureStore, keys: Sequence[bytes | str], values: Sequence[bytes], codec: RowCodec
) -> int:
    """Write rows of one group, and return how many were stored. The others were stale.

    Rows of which the store can't say that count as stored.
    """
    pairs = list(map(split_key, keys))
    (group,) = {group for group, _ in pairs} or {GROUP}
    block = RowBlock.of(group, codec, [text for _, text in pairs], values)
    written = await store.write(block)
    assert sum(written) == len(keys)
    return written.stored + written.unknown


def counts_stale(store: FeatureStore) -> bool:
    """Return whether a store says how many rows of a write were stale."""
    return not isinstance(getattr(store, "_durable", store), CassandraFeatureStore)


def open_store(url: str) -> FeatureStore:
    """Open the store at a URL, or `URL behind URL`: a durable store behind a hot tier."""
    durable, _, hot = url.partition(" behind ")
    store = open_feature_store(durable)
    if not hot:
        return store
    return TieredFeatureStore(store, open_hot_tier(hot), ttl_s=3_600, bound_s=60)


async def load_rows(store: FeatureStore, block: RowBlock, *, guarded: bool = True) -> int:
    """Load rows in bulk, and return how many were stored, as `write_rows` does."""
    written = await store.load(block, guarded=guarded)
    assert sum(written) == len(block)
    return written.stored + written.unknown


class TimeCodec:
    """Rows that are only an event time. Implements `RowCodec`."""

    name = "time"

    def write_order(self, value: bytes) -> tuple[int, bool]:
        return int(value), False

    def expiry_s(self, value: bytes) -> int:
        return 0


def row(time: int) -> bytes:
    return b"%08d" % time


def time_of(value: bytes | None) -> int:
    return int(value or 0)


class DownStore:
    """A feature store that is unavailable for a given reason."""

    embedded = False

    def __init__(self, reason: str = "the features are down") -> None:
        self._reason = reason

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        return [StoredRows.all_unavailable(len(rows.keys), self._reason) for rows in wanted]

    async def write(self, block: RowBlock) -> Written:
        raise Unavailable(self._reason)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        raise Unavailable(self._reason)

    async def remove(self, rows: RowKeys) -> int:
        raise Unavailable(self._reason)

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        raise Unavailable(self._reason)

    async def ping(self) -> bool:
        return False

    def health(self) -> dict[str, Any]:
        return {"store": "nowhere"}

    async def close(self) -> None:
        pass
