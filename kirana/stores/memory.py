"""Features in the memory of this process, for tests and for data that a restart may lose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.errors import Unavailable
from kirana.stores.base import PAGE_ROWS, ping_by_read
from kirana.stores.durability import IN_PROCESS, Durability
from kirana.stores.guard import replaces
from kirana.stores.row_keys import block_keys, row_keys, walked_rows
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, WalkPage, Written
from kirana.stores.walks import require_limit, walk_start


class MemoryFeatureStore:
    """A `FeatureStore` in a dictionary. Two stores of one process do not share rows."""

    embedded = True
    forgets = True

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] | None = {}

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Return the stored rows. If the store is closed, all rows are unavailable."""
        stored = self._values
        if stored is None:
            return [StoredRows.all_unavailable(len(rows.keys), _CLOSED) for rows in wanted]
        return [StoredRows(list(map(stored.get, row_keys(rows)))) for rows in wanted]

    async def write(self, block: RowBlock) -> Written:
        """Write rows, except those that are older than the stored ones."""
        stored = self._open_values()
        # Compare all rows before the first one is stored: if the codec fails, none is stored.
        newest: dict[bytes, bytes] = {}
        written = 0
        for key, value in zip(block_keys(block), block.value_list(), strict=True):
            if replaces(value, newest.get(key, stored.get(key)), block.codec):
                newest[key] = value
                written += 1
        stored.update(newest)
        return Written(written, len(block) - written)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Write rows as `write` does. Event times are compared even if `guarded` is False."""
        return await self.write(block)

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows and return how many of them existed."""
        stored = self._open_values()
        return sum(stored.pop(key, None) is not None for key in row_keys(rows))

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return up to `limit` rows, in the order of their keys.

        The cursor is the last key of the previous page.
        """
        require_limit(limit)
        stored, (prefix, after) = self._open_values(), walk_start(entity, cursor)
        keys = sorted(k for k in stored if k.startswith(prefix) and k > after)[:limit]
        rows = walked_rows(map(bytes.decode, keys), map(stored.__getitem__, keys))
        return WalkPage(rows, keys[-1].decode() if len(keys) == limit else "")

    async def ping(self) -> bool:
        """Return whether the store is open."""
        return await ping_by_read(self)

    async def durability(self) -> Durability:
        """Return that nothing survives the process."""
        return IN_PROCESS

    def health(self) -> dict[str, Any]:
        """Return the kind of store."""
        return {"store": "memory"}

    async def close(self) -> None:
        """Drop all rows. No-op if already closed."""
        self._values = None

    def _open_values(self) -> dict[bytes, bytes]:
        """Return the rows by key. Raise `Unavailable` if the store is closed."""
        if self._values is None:
            raise Unavailable(_CLOSED)
        return self._values


_CLOSED = "the memory store is closed"
