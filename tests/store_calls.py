"""Calls of feature stores with flat keys and plain results, as most tests of stores want them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from kirana.errors import Unavailable
from kirana.stores import FeatureStore, RowBlock, RowCodec, RowKeys, StoredRows, Written
from kirana.stores.base import PAGE_ROWS
from kirana.stores.rows import Times, WalkPage

GROUP = "product.g"
"""The group of keys that name none."""


def named(key: bytes | str) -> tuple[str, str]:
    """Return the group and the key text of `f:<group>:<text>`, or of a text in `GROUP`."""
    text = key.decode() if isinstance(key, bytes) else key
    if not text.startswith("f:"):
        return GROUP, text
    group, _, text = text.removeprefix("f:").partition(":")
    return group, text


async def read_values(store: FeatureStore, keys: Sequence[bytes | str]) -> list[bytes | None]:
    """Return a value per key. Raises `Unavailable` if one can't be read."""
    names = list(map(named, keys))
    wanted = [
        RowKeys(group, [text for _, text in some])
        for group, some in groupby(names, key=lambda name: name[0])
    ]
    found: list[bytes | None] = []
    for answer in await store.read(wanted or [RowKeys(GROUP, [])]):
        if answer.unavailable is not None:
            raise Unavailable(answer.reason)
        found += answer.values
    return found


async def write_rows(
    store: FeatureStore, keys: Sequence[bytes | str], values: Sequence[bytes], codec: RowCodec
) -> int:
    """Write rows of one group; return how many were not stale."""
    names = list(map(named, keys))
    (group,) = {group for group, _ in names} or {GROUP}
    block = RowBlock.of(group, codec, [text for _, text in names], values)
    done = await store.write(block)
    assert sum(done) == len(keys)
    return done.stored


async def load_rows(store: FeatureStore, block: RowBlock, *, guarded: bool = True) -> int:
    """Load rows; return how many were not stale."""
    done = await store.load(block, guarded=guarded)
    assert sum(done) == len(block)
    return done.stored


class DownStore:
    """A feature store that does not answer, and says why."""

    embedded = False

    def __init__(self, reason: str = "the features are down") -> None:
        self._reason = reason

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        return [StoredRows.none_of(len(rows.keys), self._reason) for rows in wanted]

    async def write(self, block: RowBlock) -> Written:
        raise Unavailable(self._reason)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        raise Unavailable(self._reason)

    async def back_fill(self, block: RowBlock, forget_ms: Times) -> int:
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
