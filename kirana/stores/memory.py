"""Features in this process's memory: for tests, and for data that one replica may lose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.errors import Unavailable
from kirana.stores.base import PAGE_ROWS, ping_by_read
from kirana.stores.guard import copy_wins, wins
from kirana.stores.row_keys import block_keys, row_keys, walked_rows
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, Times, WalkPage, Written
from kirana.stores.walks import require_limit, walk_start


class MemoryFeatureStore:
    """See `kirana.stores.base.FeatureStore`. Another store of this process shares nothing."""

    embedded = True

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] | None = {}

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        stored = self._values
        if stored is None:
            return [StoredRows.none_of(len(rows.keys), _CLOSED) for rows in wanted]
        return [StoredRows(list(map(stored.get, row_keys(rows)))) for rows in wanted]

    async def write(self, block: RowBlock) -> Written:
        stored = self._open()
        # all together or, where a value has no order, none
        newest: dict[bytes, bytes] = {}
        written = 0
        for key, value in zip(block_keys(block), block.value_list(), strict=True):
            if wins(value, newest.get(key, stored.get(key)), block.codec):
                newest[key] = value
                written += 1
        stored.update(newest)
        return Written(written, len(block) - written)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        return await self.write(block)

    async def back_fill(self, block: RowBlock, forget_ms: Times) -> int:
        stored, kept = self._open(), 0
        for key, value in zip(block_keys(block), block.value_list(), strict=True):
            wins_it = copy_wins(value, stored.get(key), block.codec)
            if wins_it is None:
                del stored[key]
            elif wins_it:
                stored[key] = value
                kept += 1
        return kept

    async def remove(self, rows: RowKeys) -> int:
        stored = self._open()
        return sum(stored.pop(key, None) is not None for key in row_keys(rows))

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        require_limit(limit)
        stored, (prefix, after) = self._open(), walk_start(entity, cursor)
        keys = sorted(k for k in stored if k.startswith(prefix) and k > after)[:limit]
        rows = walked_rows(map(bytes.decode, keys), map(stored.__getitem__, keys))
        return WalkPage(rows, keys[-1].decode() if len(keys) == limit else "")

    async def ping(self) -> bool:
        return await ping_by_read(self)

    def health(self) -> dict[str, Any]:
        return {"store": "memory"}

    async def close(self) -> None:
        self._values = None

    def _open(self) -> dict[bytes, bytes]:
        if self._values is None:
            raise Unavailable(_CLOSED)
        return self._values


_CLOSED = "the memory store is closed"
