"""Features in LMDB. It needs no server, and several processes can read at once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kirana.errors import Unavailable
from kirana.lmdb import Environment, open_by_url
from kirana.stores.base import PAGE_ROWS, ping_by_read
from kirana.stores.durability import ON_DISK, Durability
from kirana.stores.guard import replaces
from kirana.stores.row_keys import block_keys, row_keys, walked_rows
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, WalkPage, Written
from kirana.stores.walks import require_limit, walk_start

INLINE_KEYS = 5_000
"""Maximum number of rows to read on the event loop. Larger reads run in a thread."""


class LmdbFeatureStore:
    """A `FeatureStore` in an LMDB environment. Stores of the same folder share the environment."""

    embedded = True
    forgets = True

    def __init__(self, environment: Environment) -> None:
        self._environment: Environment | None = environment
        self._database = environment.database(b"features")

    @classmethod
    def open(cls, url: str, *, setting: str) -> LmdbFeatureStore:
        """Open the store in the folder of an `lmdb:///folder` URL.

        Raise `ConfigurationError` for `setting` if the URL is not valid or the folder can't be
        opened.
        """
        return cls(open_by_url(url, setting=setting))

    @property
    def environment(self) -> Environment:
        """The open environment. Raises `Unavailable` if the store is closed."""
        if self._environment is None:
            raise Unavailable("the LMDB store is closed")
        return self._environment

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Read all rows in one transaction.

        If LMDB fails or the store is closed, all rows are unavailable.
        """
        keys = [row_keys(rows) for rows in wanted]

        def read(txn: Any) -> list[StoredRows]:
            return [StoredRows(list(map(txn.get, group_keys))) for group_keys in keys]

        inline = sum(map(len, keys)) <= INLINE_KEYS
        try:
            return await self.environment.read_async(inline, read, self._database)
        except Unavailable as error:
            return [StoredRows.all_unavailable(len(rows.keys), error.message) for rows in wanted]

    async def write(self, block: RowBlock) -> Written:
        """Write rows in one transaction, and return once it is on disk."""
        rows = list(zip(block_keys(block), block.value_list(), strict=True))

        def write(txn: Any) -> int:
            database, written = self._database, 0
            for key, value in rows:
                if replaces(value, txn.get(key, None, database), block.codec):
                    txn.put(key, value, db=database)
                    written += 1
            return written

        stored = await self.environment.write(write)
        return Written(stored, len(rows) - stored)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Write rows as `write` does. Event times are compared even if `guarded` is False."""
        return await self.write(block)

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows in one transaction, and return how many of them existed."""
        keys = row_keys(rows)

        def remove(txn: Any) -> int:
            return sum(txn.delete(key, db=self._database) for key in keys)

        return await self.environment.write(remove)

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return up to `limit` rows, in the order of their keys.

        The cursor is the last key of the previous page.
        """
        require_limit(limit)
        prefix, after = walk_start(entity, cursor)

        def read(txn: Any) -> list[tuple[bytes, bytes]]:
            items: list[tuple[bytes, bytes]] = []
            with txn.cursor(db=self._database) as reader:
                at_row = reader.set_range(max(prefix, after))
                while at_row and len(items) < limit and reader.key().startswith(prefix):
                    if reader.key() > after:
                        items.append(reader.item())
                    at_row = reader.next()
            return items

        items = await self.environment.read_async(limit <= INLINE_KEYS, read)
        rows = walked_rows([key.decode() for key, _ in items], [value for _, value in items])
        return WalkPage(rows, items[-1][0].decode() if len(items) == limit else "")

    async def ping(self) -> bool:
        """Return whether LMDB can read a row. The result is False if the store is closed."""
        return await ping_by_read(self)

    async def durability(self) -> Durability:
        """Return that LMDB syncs each write to disk."""
        return ON_DISK

    def health(self) -> dict[str, Any]:
        """Return the kind of store."""
        return {"store": "lmdb"}

    async def close(self) -> None:
        """Give up this store's use of the environment. No-op if already closed.

        The last user of the environment waits for all queued writes, in a thread, and closes it.
        """
        environment, self._environment = self._environment, None
        if environment is not None:
            await asyncio.to_thread(environment.close)
