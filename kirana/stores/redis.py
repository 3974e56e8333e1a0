"""Features in one Redis: one string per group and key. See `kirana.redis.url` for the URLs.

Needs Redis 6.2, or what speaks as it. A cluster has a store of its own, `redis_cluster`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from kirana.breaker import Breaker
from kirana.errors import ConfigurationError, Unavailable
from kirana.redis.commands import delete_command, mget_command, scan_command
from kirana.redis.connection import ARRAY
from kirana.redis.errors import FAILURES, says, unavailable
from kirana.redis.shared_connection import SharedConnection
from kirana.redis.url import client_of, limit_of
from kirana.stores.base import PAGE_ROWS, ping_by_read
from kirana.stores.redis_bulk import WriteMode, load_block
from kirana.stores.redis_forget import forget_ms
from kirana.stores.redis_script import BACK_FILL, WRITE, GuardScript, script_runs
from kirana.stores.row_keys import (
    entity_prefix,
    key_prefix,
    readable,
    row_keys,
    shared_out,
    walked_rows,
)
from kirana.stores.rows import RowBlock, RowKeys, StoredRows, Times, WalkPage, Written
from kirana.stores.walks import require_limit, scan_start
from kirana.urls import without_password

T = TypeVar("T")

MAX_ASKED = 4
"""So often a write is sent: to one server and another, to each without and with the script."""


class RedisFeatureStore:
    """See `kirana.stores.base.FeatureStore`. A call is not atomic over more than some keys."""

    embedded = False

    def __init__(
        self, client: Redis, url: str, timeout_s: float, sentinels: Sequence[Redis] = ()
    ) -> None:
        """`timeout_s` is for one answer; a call may take some, to find a server and ask it."""
        self._client: Any = client
        self._sentinels = sentinels
        self._what = without_password(url)
        self._breaker = Breaker(self._what)
        make = client.connection_pool.make_connection
        self._connection = SharedConnection(make, limit_of(timeout_s), self._breaker.failed)

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisFeatureStore:
        try:
            client, sentinels, timeout_s = client_of(url)
        except (ValueError, RedisError) as error:
            raise ConfigurationError(
                f"{setting}: '{without_password(url)}' can't be used: {error}", field=setting
            ) from None
        return cls(client, url, timeout_s, sentinels)

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        if not any(rows.keys for rows in wanted):
            return [StoredRows([]) for _ in wanted]
        try:
            values = await self._guarded(lambda: self._values(wanted))
        except Unavailable as error:
            return [StoredRows.none_of(len(rows.keys), error.message) for rows in wanted]
        return list(map(StoredRows, shared_out(values, wanted)))

    async def _values(self, wanted: Sequence[RowKeys]) -> Sequence[bytes | None]:
        command = mget_command([(key_prefix(rows.group), rows.keys) for rows in wanted])
        found = await self._connection.values(command, ARRAY)
        count = sum(len(rows.keys) for rows in wanted)
        if len(found) != count:
            # each row would be another key's
            raise ConnectionError(f"it answers with {len(found)} values for {count} keys")
        return found

    async def write(self, block: RowBlock) -> Written:
        stored = await self._run(WRITE, block, forget_ms(block))
        return Written(stored, len(block) - stored)

    async def back_fill(self, block: RowBlock, forget_ms: Times) -> int:
        return await self._run(BACK_FILL, block, forget_ms)

    async def _run(self, script: GuardScript, block: RowBlock, forget: Times) -> int:
        """Run a script over all rows, some at once; return the sum of its answers."""
        done = 0
        for rows in script_runs(block, forget):
            command = script.command(block.codec.name, rows)
            done += await self._guarded(
                lambda command=command: self._count(command, script.load)  # type: ignore[misc]
            )
        return done

    async def _count(self, command: bytes, load: bytes | None = None) -> int:
        """Ask the master for a number; `load` gives it the script that it may not know."""
        for _ in range(MAX_ASKED):
            (answer,) = await self._connection.ask(command, 1)
            if load is not None and says(answer, "NOSCRIPT"):
                # of a server that has started anew, or a replica that took over
                (answer,) = await self._connection.ask(load, 1)
                if says(answer):
                    break
            elif not says(answer, "READONLY") or not self._connection.leave():
                # it was the master, and whoever has taken over is looked for at most once
                break
        if not isinstance(answer, int):
            raise ResponseError(str(answer))
        return answer

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        mode = WriteMode.PLAIN if not guarded and not block.turns.any() else WriteMode.GUARDED
        if mode is WriteMode.GUARDED:
            await self._guarded(lambda: self._client.script_load(WRITE.source))
        stored = await self._guarded(lambda: self._load(block, mode))
        return Written(stored, len(block) - stored)

    async def _load(self, block: RowBlock, mode: WriteMode) -> int:
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            return await load_block(connection, block, forget_ms(block), mode)
        finally:
            await pool.release(connection)

    async def remove(self, rows: RowKeys) -> int:
        if not rows.keys:
            return 0
        command = delete_command(row_keys(rows))
        return await self._guarded(lambda: self._count(command))

    async def walk(self, entity: str, cursor: str = "", *, limit: int = PAGE_ROWS) -> WalkPage:
        require_limit(limit)
        command = scan_command(scan_start(cursor), f"{entity_prefix(entity)}*", limit)
        following, keys = await self._guarded(lambda: self._scan(command))
        rows = walked_rows(keys, await self._guarded(lambda: self._values_of(keys)))
        return WalkPage(rows, "" if following == b"0" else following.decode())

    async def _scan(self, command: bytes) -> tuple[bytes, list[str]]:
        """Return the cursor that follows, and the keys that were found."""
        (answer,) = await self._connection.ask(command, 1)
        if says(answer):
            raise ResponseError(str(answer))
        following, keys = answer
        return following, readable(keys)

    async def _values_of(self, keys: list[str]) -> Sequence[bytes | None]:
        return await self._connection.values(mget_command([("", keys)]), ARRAY) if keys else []

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        self._breaker.check()
        try:
            found = await call()
        except FAILURES as error:
            raise unavailable(self._what, error, self._breaker) from error
        self._breaker.succeeded()
        return found

    async def ping(self) -> bool:
        return await ping_by_read(self)

    def health(self) -> dict[str, Any]:
        return {"store": self._what, "breaker": self._breaker.health()}

    async def close(self) -> None:
        await self._connection.close()
        for client in (self._client, *self._sentinels):
            await client.aclose()
