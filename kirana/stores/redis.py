"""Features in one Redis: one string a group and key. See `kirana.redis.url` for the URLs.

Needs Redis 6.2, or what speaks as it. A cluster has a store of its own, `redis_cluster`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from kirana.breaker import Breaker
from kirana.errors import ConfigurationError
from kirana.redis.connection import ARRAY
from kirana.redis.errors import FAILURES, says, unavailable
from kirana.redis.shared_connection import SharedConnection, mget_command
from kirana.redis.url import client_of, limit_of
from kirana.stores.base import RowBlock, RowCodec, ping_by_read
from kirana.stores.redis_bulk import WriteMode, load_block
from kirana.stores.redis_forget import block_forget_ms, forget_ms
from kirana.stores.redis_script import (
    GUARDED_AT_ONCE,
    GUARDED_PUT,
    LOAD_SCRIPT,
    SCRIPT_SHA,
    put_command,
)
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

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        if not keys:
            return []
        return await self._guarded(lambda: self._read(keys))

    async def _read(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        found = await self._connection.values(mget_command(keys), ARRAY)
        if len(found) != len(keys):
            # each row would be another key's
            raise ConnectionError(f"it answers with {len(found)} values for {len(keys)} keys")
        return found

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], codec: RowCodec) -> int:
        forget = forget_ms(values, codec)
        written = 0
        for at in range(0, len(keys), GUARDED_AT_ONCE):
            to = at + GUARDED_AT_ONCE
            rows = list(zip(keys[at:to], values[at:to], forget[at:to], strict=True))
            written += await self._guarded(lambda rows=rows: self._write(rows, codec.name))  # type: ignore[misc]
        return written

    async def _write(self, rows: Sequence[tuple[bytes, bytes, int]], codec: str) -> int:
        request = put_command(codec, rows)
        for _ in range(MAX_ASKED):
            (answer,) = await self._connection.ask(request, 1)
            if says(answer, "NOSCRIPT"):
                # of a server that has started anew, or a replica that took over
                (answer,) = await self._connection.ask(LOAD_SCRIPT, 1)
                if says(answer):
                    break
            elif not says(answer, "READONLY") or not self._connection.leave():
                # it was the master, and whoever has taken over is looked for at most once
                break
        if not isinstance(answer, int):
            raise ResponseError(str(answer))
        return answer

    async def load(self, block: RowBlock, codec: RowCodec, *, guarded: bool = True) -> int:
        mode = WriteMode.PLAIN if not guarded and not block.turns.any() else WriteMode.GUARDED
        if mode is WriteMode.GUARDED:
            await self._guarded(lambda: self._client.script_load(GUARDED_PUT))
        return await self._guarded(lambda: self._load(block, mode, codec.name))

    async def _load(self, block: RowBlock, mode: WriteMode, codec: str) -> int:
        pool, script, forget = self._client.connection_pool, SCRIPT_SHA, block_forget_ms(block)
        connection = await pool.get_connection()
        try:
            return await load_block(
                connection, block, forget, mode, script.encode(), codec.encode()
            )
        finally:
            await pool.release(connection)

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
