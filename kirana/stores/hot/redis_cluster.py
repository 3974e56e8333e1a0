"""The nodes of a hot tier in a Redis Cluster: each key is on the node that owns its slot."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from kirana.redis.cluster import ClusterClient
from kirana.redis.cluster_commands import get_values, replies_of_nodes, sum_of_replies
from kirana.redis.script import Argument, Script
from kirana.redis.servers import INFO, identity_of
from kirana.stores.hot.keys import hot_keys
from kirana.stores.hot.redis import KeyArguments
from kirana.stores.rows import RowKeys


class HotCluster:
    """Implements `HotServers` with a cluster."""

    def __init__(self, cluster: ClusterClient) -> None:
        self._cluster = cluster
        self.name = cluster.name

    async def entries(
        self, wanted: Sequence[RowKeys]
    ) -> tuple[Sequence[bytes | None], Collection[int]]:
        """Read from all nodes at once."""
        entries, unanswered, _ = await get_values(self._cluster, hot_keys(wanted))
        return entries, unanswered

    async def run(
        self, script: Script, arguments: Sequence[Argument], keys: Sequence[KeyArguments]
    ) -> int:
        """Run the script once per key, on the node of its slot."""
        commands = [script.run([key], [*arguments, *own]) for key, *own in keys]
        names = [key for key, *_ in keys]
        return await sum_of_replies(self._cluster, names, commands, script.load)

    async def identities(self) -> list[str]:
        """Ask each node that owns slots."""
        return [identity_of(info) for info in await replies_of_nodes(self._cluster, INFO)]

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, and the state of all nodes together."""
        return {"store": self.name, **self._cluster.health()}

    async def close(self) -> None:
        """Close the connections to all nodes. No-op if already closed."""
        await self._cluster.close()
