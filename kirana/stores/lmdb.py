"""Features in LMDB, the embedded default: many processes read it at once, no server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kirana.errors import Unavailable
from kirana.lmdb import Environment, open_by_url
from kirana.stores.base import PAGE_ROWS, ping_by_read
from kirana.stores.guard import copy_wins, wins
from kirana.stores.row_keys import block_keys, row_keys, walked_rows
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, Times, WalkPage, Written
from kirana.stores.walks import require_limit, walk_start

INLINE_KEYS = 5_000
"""Up to so many keys are read on the caller's event loop: about 1 ms."""


class LmdbFeatureStore:
    """See `kirana.stores.base.FeatureStore`."""

    embedded = True

    def __init__(self, environment: Environment) -> None:
        self._environment: Environment | None = environment
        self._database = environment.database(b"features")

    @classmethod
    def open(cls, url: str, *, setting: str) -> LmdbFeatureStore:
        return cls(open_by_url(url, setting=setting))

    @property
    def environment(self) -> Environment:
        if self._environment is None:
            raise Unavailable("the LMDB store is closed")
        return self._environment

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        keys = [row_keys(rows) for rows in wanted]

        def read(txn: Any) -> list[StoredRows]:
            return [StoredRows(list(map(txn.get, each))) for each in keys]

        inline = sum(map(len, keys)) <= INLINE_KEYS
        try:
            return await self.environment.read_async(inline, read, self._database)
        except Unavailable as error:
            return [StoredRows.none_of(len(rows.keys), error.message) for rows in wanted]

    async def write(self, block: RowBlock) -> Written:
        rows = list(zip(block_keys(block), block.value_list(), strict=True))

        def write(txn: Any) -> int:
            database, written = self._database, 0
            for key, value in rows:
                if wins(value, txn.get(key, None, database), block.codec):
                    txn.put(key, value, db=database)
                    written += 1
            return written

        stored = await self.environment.write(write)
        return Written(stored, len(rows) - stored)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        return await self.write(block)

    async def back_fill(self, block: RowBlock, forget_ms: Times) -> int:
        rows = list(zip(block_keys(block), block.value_list(), strict=True))

        def fill(txn: Any) -> int:
            database, kept = self._database, 0
            for key, value in rows:
                wins_it = copy_wins(value, txn.get(key, None, database), block.codec)
                if wins_it is None:
                    txn.delete(key, db=database)
                elif wins_it:
                    txn.put(key, value, db=database)
                    kept += 1
            return kept

        return await self.environment.write(fill)

    async def remove(self, rows: RowKeys) -> int:
        keys = row_keys(rows)

        def remove(txn: Any) -> int:
            return sum(txn.delete(key, db=self._database) for key in keys)

        return await self.environment.write(remove)

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        require_limit(limit)
        prefix, after = walk_start(entity, cursor)

        def read(txn: Any) -> list[tuple[bytes, bytes]]:
            found: list[tuple[bytes, bytes]] = []
            with txn.cursor(db=self._database) as at:
                more = at.set_range(max(prefix, after))
                while more and len(found) < limit and at.key().startswith(prefix):
                    if at.key() > after:
                        found.append(at.item())
                    more = at.next()
            return found

        found = await self.environment.read_async(limit <= INLINE_KEYS, read)
        rows = walked_rows([key.decode() for key, _ in found], [value for _, value in found])
        return WalkPage(rows, found[-1][0].decode() if len(found) == limit else "")

    async def ping(self) -> bool:
        return await ping_by_read(self)

    def health(self) -> dict[str, Any]:
        return {"store": "lmdb"}

    async def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            await asyncio.to_thread(environment.close)
