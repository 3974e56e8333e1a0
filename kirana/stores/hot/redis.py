"""A hot tier in one Redis server, or in the master that Redis Sentinel names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.errors import Unavailable
from kirana.redis.commands import mget_command
from kirana.redis.script import Argument, Script
from kirana.redis.server import RedisServer
from kirana.redis.servers import INFO, identity_of
from kirana.stores.hot.base import LEASE_MS, HotRows
from kirana.stores.hot.keys import fills, hot_keys, hot_prefix, hot_rows, unreachable_rows
from kirana.stores.hot.scripts import FILL, LEASE, MARK, UNMARK, batches, fill_batches
from kirana.stores.rows import RowKeys


class RedisHotTier:
    """A `HotTier` in one server."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.name = server.name

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisHotTier:
        """Open the tier at a Redis URL, without connecting yet.

        Raise `ConfigurationError` for `setting` if the URL is not valid.
        """
        return cls(RedisServer.open(url, setting=setting))

    async def read(self, wanted: Sequence[RowKeys], generation: bytes) -> list[HotRows]:
        """Read all copies with one `MGET`."""
        count = sum(len(rows.keys) for rows in wanted)
        if not count:
            return [HotRows([], [], []) for _ in wanted]
        command = mget_command([(hot_prefix(rows.group), rows.keys) for rows in wanted])
        try:
            entries = await self._server.array(command, count)
        except Unavailable:
            return [unreachable_rows(rows) for rows in wanted]
        return hot_rows(entries, wanted, generation)

    async def lease(self, wanted: Sequence[RowKeys], token: bytes, generation: bytes) -> None:
        """Take leases, by one run of a script per `KEYS_AT_ONCE` keys."""
        for keys in batches(hot_keys(wanted)):
            await self._run(LEASE, keys, [token, LEASE_MS, generation])

    async def fill(
        self,
        wanted: Sequence[RowKeys],
        values: Sequence[Sequence[bytes | None]],
        ttl_ms: Sequence[Sequence[int]],
        token: bytes,
        generation: bytes,
    ) -> int:
        """Store copies, by one run of a script per batch."""
        filled = 0
        for batch in fill_batches(fills(wanted, values, ttl_ms, generation)):
            arguments: list[Argument] = [token]
            for _, copy, ttl in batch:
                arguments += (copy, ttl)
            filled += await self._run(FILL, [key for key, _, _ in batch], arguments)
        return filled

    async def mark(self, rows: RowKeys, token: bytes, life_ms: int) -> None:
        """Mark keys, by one run of a script per `KEYS_AT_ONCE` keys."""
        for keys in batches(hot_keys([rows])):
            await self._run(MARK, keys, [token, life_ms])

    async def unmark(self, rows: RowKeys, token: bytes) -> None:
        """Remove marks, by one run of a script per `KEYS_AT_ONCE` keys."""
        for keys in batches(hot_keys([rows])):
            await self._run(UNMARK, keys, [token])

    async def _run(self, script: Script, keys: Sequence[bytes], arguments: list[Argument]) -> int:
        return await self._server.number(script.run(keys, arguments), script.load)

    async def servers(self) -> list[str]:
        """Ask the server for its identity."""
        return [identity_of(await self._server.reply(INFO))]

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, and the state of the breaker."""
        return self._server.health()

    async def close(self) -> None:
        """Close the connections to the server and its Sentinels. No-op if already closed."""
        await self._server.close()
