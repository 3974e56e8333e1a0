"""The one server of a hot tier, which may be the master that Redis Sentinel names."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from kirana.redis.commands import mget_command
from kirana.redis.script import Argument, Script
from kirana.redis.server import RedisServer
from kirana.redis.servers import INFO, identity_of
from kirana.stores.hot.keys import hot_prefix
from kirana.stores.hot.redis import KeyArguments
from kirana.stores.rows import RowKeys


class SingleHotServer:
    """Implements `HotServers` with one server."""

    def __init__(self, server: RedisServer) -> None:
        self._server = server
        self.name = server.name

    async def entries(
        self, wanted: Sequence[RowKeys]
    ) -> tuple[Sequence[bytes | None], Collection[int]]:
        """Read all entries with one `MGET`."""
        command = mget_command([(hot_prefix(rows.group), rows.keys) for rows in wanted])
        return await self._server.array(command, sum(len(rows.keys) for rows in wanted)), ()

    async def run(
        self, script: Script, arguments: Sequence[Argument], keys: Sequence[KeyArguments]
    ) -> int:
        """Run the script once, over all keys."""
        own = [argument for _, *of_key in keys for argument in of_key]
        command = script.run([key for key, *_ in keys], [*arguments, *own])
        return await self._server.number(command, script.load)

    async def identities(self) -> list[str]:
        """Ask the server."""
        return [identity_of(await self._server.reply(INFO))]

    def health(self) -> dict[str, Any]:
        """Return the URL without its password, and the state of the breaker."""
        return self._server.health()

    async def close(self) -> None:
        """Close the connections to the server and its Sentinels. No-op if already closed."""
        await self._server.close()
