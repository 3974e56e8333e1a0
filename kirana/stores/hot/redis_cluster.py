"""A hot tier in a Redis Cluster: each key on the node that owns its slot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.errors import Unavailable
from kirana.redis.cluster import ClusterClient
from kirana.redis.cluster_commands import get_values, replies_of_nodes, sum_of_replies
from kirana.redis.script import Argument, Script
from kirana.redis.servers import INFO, identity_of
from kirana.stores.hot.base import LEASE_MS, HotRows
from kirana.stores.hot.keys import fills, hot_keys, hot_rows, unreachable_rows
from kirana.stores.hot.scripts import FILL, LEASE, MARK, UNMARK, batches, fill_batches
from kirana.stores.rows import RowKeys


class RedisClusterHotTier:
    """A `HotTier` in a cluster. Each key needs its own run of a script, on the node of its slot."""

    def __init__(self, cluster: ClusterClient) -> None:
        self._cluster = cluster
        self.name = cluster.name

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisClusterHotTier:
        """Open the tier at a `redis+cluster://` URL, without connecting yet.

        Raise `ConfigurationError` for `setting` if the URL is not valid.
        """
        return cls(ClusterClient.open(url, setting=setting))

    async def read(self, wanted: Sequence[RowKeys], generation: bytes) -> list[HotRows]:
        """Read from all nodes at once. If a node does not answer, only its keys are unreachable."""
        keys = hot_keys(wanted)
        if not keys:
            return [HotRows([], [], []) for _ in wanted]
        try:
            entries, unanswered, _ = await get_values(self._cluster, keys)
        except Unavailable:
            return [unreachable_rows(rows) for rows in wanted]
        return hot_rows(entries, wanted, generation, unanswered)

    async def lease(self, wanted: Sequence[RowKeys], token: bytes, generation: bytes) -> None:
        """Take leases."""
        await self._run(LEASE, hot_keys(wanted), [token, LEASE_MS, generation])

    async def fill(
        self,
        wanted: Sequence[RowKeys],
        values: Sequence[Sequence[bytes | None]],
        ttl_ms: Sequence[Sequence[int]],
        token: bytes,
        generation: bytes,
    ) -> int:
        """Store copies."""
        filled = 0
        for batch in fill_batches(fills(wanted, values, ttl_ms, generation)):
            commands = [FILL.run([key], [token, copy, ttl]) for key, copy, ttl in batch]
            keys = [key for key, _, _ in batch]
            filled += await sum_of_replies(self._cluster, keys, commands, FILL.load)
        return filled

    async def mark(self, rows: RowKeys, token: bytes, life_ms: int) -> None:
        """Mark keys."""
        await self._run(MARK, hot_keys([rows]), [token, life_ms])

    async def unmark(self, rows: RowKeys, token: bytes) -> None:
        """Remove marks."""
        await self._run(UNMARK, hot_keys([rows]), [token])

    async def _run(self, script: Script, keys: list[bytes], arguments: Sequence[Argument]) -> None:
        for batch in batches(keys):
            commands = [script.run([key], arguments) for key in batch]
            await sum_of_replies(self._cluster, batch, commands, script.load)

    async def servers(self) -> list[str]:
        """Ask each node that owns slots."""
        replies = await replies_of_nodes(self._cluster, INFO)
        return [identity_of(info) for info in replies]

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, and the state of all nodes together."""
        return {"store": self.name, **self._cluster.health()}

    async def close(self) -> None:
        """Close the connections to all nodes. No-op if already closed."""
        await self._cluster.close()
