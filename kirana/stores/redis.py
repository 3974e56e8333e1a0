"""Features in one Redis server, or in the master that Redis Sentinel names: one string per row.

Needs Redis 6.2 or newer, or a compatible server. `kirana.redis.url` describes the URLs. The store
for a Redis Cluster is in `kirana.stores.redis_cluster`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.errors import Unavailable
from kirana.redis.commands import delete_command, mget_command, scan_command
from kirana.redis.server import RedisServer
from kirana.redis.servers import PERSISTENCE, config_command, setting_of
from kirana.stores.base import PAGE_ROWS, ping_by_read
from kirana.stores.clock import StoreClock, clock_answers
from kirana.stores.drop_times import drop_at_ms
from kirana.stores.durability import Durability, of_redis
from kirana.stores.redis_bulk import WriteMode, load_block
from kirana.stores.redis_script import WRITE, row_batches
from kirana.stores.row_keys import (
    decoded_keys,
    entity_prefix,
    key_prefix,
    row_keys,
    split_by_group,
    walked_rows,
)
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, WalkPage, Written
from kirana.stores.walks import require_limit, scan_start


class RedisFeatureStore:
    """A `FeatureStore` in one Redis server.

    `write` runs a script for each batch of at most `GUARDED_AT_ONCE` rows. Redis runs no other
    command during a script. A call with several batches is not atomic.
    """

    embedded = False
    forgets = True

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self._clock = StoreClock(server.name, server.time_s)

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisFeatureStore:
        """Open the store at a Redis URL, without connecting yet.

        Raise `ConfigurationError` for `setting` if the URL is not valid.
        """
        return cls(RedisServer.open(url, setting=setting))

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        """Read all rows with one `MGET`. If this fails, all rows are unavailable."""
        count = sum(len(rows.keys) for rows in wanted)
        if not count:
            return [StoredRows([]) for _ in wanted]
        command = mget_command([(key_prefix(rows.group), rows.keys) for rows in wanted])
        try:
            values = await self._server.array(command, count)
        except Unavailable as error:
            return [StoredRows.all_unavailable(len(rows.keys), error.message) for rows in wanted]
        return list(map(StoredRows, split_by_group(values, wanted)))

    async def write(self, block: RowBlock) -> Written:
        """Write rows in batches of `GUARDED_AT_ONCE`, each by one run of the script `WRITE`."""
        await self._clock.check()
        stored = 0
        for rows in row_batches(block, drop_at_ms(block)):
            command = WRITE.command(block.codec.name, rows)
            stored += await self._server.number(command, WRITE.load)
        return Written(stored, len(block) - stored)

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        """Write rows in a pipeline over a separate connection.

        If `guarded` is False, rows are written with plain `SET` commands. The exception is a block
        that takes several rounds (see `RowBlock.rounds`): it is written as if `guarded` were True.
        """
        await self._clock.check()
        mode = WriteMode.PLAIN if not guarded and not block.rounds.any() else WriteMode.GUARDED
        if mode is WriteMode.GUARDED:
            await self._server.with_breaker(lambda: self._server.client.script_load(WRITE.source))
        stored = await self._server.with_breaker(lambda: self._load(block, mode))
        return Written(stored, len(block) - stored)

    async def _load(self, block: RowBlock, mode: WriteMode) -> int:
        pool = self._server.client.connection_pool
        connection = await pool.get_connection()
        try:
            return await load_block(connection, block, drop_at_ms(block), mode)
        finally:
            await pool.release(connection)

    async def remove(self, rows: RowKeys) -> int:
        """Remove rows with one `UNLINK`, and return how many of them existed."""
        if not rows.keys:
            return 0
        return await self._server.number(delete_command(row_keys(rows)))

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        """Return the rows whose keys are in one reply to `SCAN`. The cursor is that of `SCAN`."""
        require_limit(limit)
        command = scan_command(scan_start(cursor), f"{entity_prefix(entity)}*", limit)
        next_cursor, listed = await self._server.reply(command)
        keys = decoded_keys(listed)
        values: Sequence[bytes | None] = []
        if keys:
            values = await self._server.array(mget_command([("", keys)]), len(keys))
        rows = walked_rows(keys, values)
        return WalkPage(rows, "" if next_cursor == b"0" else next_cursor.decode())

    async def ping(self) -> bool:
        """Return whether the server answers a read, and what time it is."""
        return await ping_by_read(self) and await clock_answers(self._clock)

    async def durability(self) -> Durability:
        """Return what the settings of the server say."""
        return of_redis(self._server.name, *[await self._setting(name) for name in PERSISTENCE])

    async def _setting(self, name: str) -> str:
        return setting_of(await self._server.reply(config_command(name)))

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, the state of the breaker, and what is wrong."""
        return {**self._server.health(), **self._clock.health()}

    async def close(self) -> None:
        """Close the connections to the server and its Sentinels. No-op if already closed."""
        await self._server.close()
