"""A hot tier in Redis: one server, the master that Redis Sentinel names, or a cluster."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from kirana.errors import Unavailable
from kirana.redis.script import Argument, Script
from kirana.stores.hot.base import LEASE_MS, HotRows
from kirana.stores.hot.keys import fills, hot_keys, hot_rows, unreachable_rows
from kirana.stores.hot.scripts import FILL, LEASE, MARK, UNMARK, batches, fill_batches
from kirana.stores.rows import RowKeys

KeyArguments = tuple[bytes, *tuple[Argument, ...]]
"""A key, and the arguments that a script takes for it."""


class HotServers(Protocol):
    """The servers of a hot tier. Methods raise `Unavailable` if no server answers."""

    name: str

    async def entries(
        self, wanted: Sequence[RowKeys]
    ) -> tuple[Sequence[bytes | None], Collection[int]]:
        """Return the entries of all keys, and the positions of those that could not be read."""

    async def run(
        self, script: Script, arguments: Sequence[Argument], keys: Sequence[KeyArguments]
    ) -> int:
        """Run a script over keys, and return the sum of its replies.

        The script takes `arguments` first, and then those of each key.
        """

    async def identities(self) -> list[str]:
        """Return the identity of each server that answers."""

    def health(self) -> dict[str, Any]:
        """Return the state of the servers."""

    async def close(self) -> None:
        """Close the connections. No-op if already closed."""


class RedisHotTier:
    """A `HotTier` in Redis. What it does to keys, it does by scripts."""

    def __init__(self, servers: HotServers) -> None:
        self._servers = servers
        self.name = servers.name

    async def read(self, wanted: Sequence[RowKeys], generation: bytes) -> list[HotRows]:
        """Read all copies. If a node of a cluster does not answer, its keys are unreachable."""
        if not any(rows.keys for rows in wanted):
            return [HotRows([], [], []) for _ in wanted]
        try:
            entries, unanswered = await self._servers.entries(wanted)
        except Unavailable:
            return [unreachable_rows(rows) for rows in wanted]
        return hot_rows(entries, wanted, generation, unanswered)

    async def lease(self, wanted: Sequence[RowKeys], token: bytes, generation: bytes) -> None:
        """Take leases, in batches of `KEYS_AT_ONCE` keys."""
        await self._run(LEASE, wanted, [token, LEASE_MS, generation])

    async def fill(
        self,
        wanted: Sequence[RowKeys],
        values: Sequence[Sequence[bytes | None]],
        ttl_ms: Sequence[Sequence[int]],
        token: bytes,
        generation: bytes,
    ) -> int:
        """Store copies, in batches."""
        filled = 0
        for batch in fill_batches(fills(wanted, values, ttl_ms, generation)):
            filled += await self._servers.run(FILL, [token], batch)
        return filled

    async def mark(self, rows: RowKeys, token: bytes, life_ms: int) -> None:
        """Mark keys, in batches of `KEYS_AT_ONCE` keys."""
        await self._run(MARK, [rows], [token, life_ms])

    async def unmark(self, rows: RowKeys, token: bytes) -> None:
        """Remove marks, in batches of `KEYS_AT_ONCE` keys."""
        await self._run(UNMARK, [rows], [token])

    async def _run(
        self, script: Script, wanted: Sequence[RowKeys], arguments: Sequence[Argument]
    ) -> None:
        for keys in batches(hot_keys(wanted)):
            await self._servers.run(script, arguments, [(key,) for key in keys])

    async def servers(self) -> list[str]:
        """Ask each server for its identity."""
        return await self._servers.identities()

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, and the state of the breakers."""
        return self._servers.health()

    async def close(self) -> None:
        """Close the connections. No-op if already closed."""
        await self._servers.close()
