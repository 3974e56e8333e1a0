"""Features in Redis: one string a group and key. See `kirana.stores.redis_url` for the URLs.

Needs Redis 6.2, or what speaks as it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from hashlib import sha1
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.exceptions import NoScriptError, RedisError

from kirana.errors import ConfigurationError, Unavailable
from kirana.stores.base import RowBlock, ValueReader
from kirana.stores.breaker import Breaker
from kirana.stores.redis_bulk import load_block
from kirana.stores.redis_script import GUARDED_AT_ONCE, GUARDED_PUT
from kirana.stores.redis_url import client_of, shown_url

T = TypeVar("T")

MIN_GRACE_S = 60

_SHA = sha1(GUARDED_PUT.encode(), usedforsecurity=False).hexdigest()


class RedisFeatureStore:
    """See `kirana.stores.base.FeatureStore`. A call is not atomic over more than some keys."""

    def __init__(
        self, client: Redis | RedisCluster, url: str, sentinels: Sequence[Redis] = ()
    ) -> None:
        self._client: Any = client
        self._sentinels = sentinels
        self._clustered = isinstance(client, RedisCluster)
        self._what = shown_url(url)
        self._breaker = Breaker(self._what)

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisFeatureStore:
        try:
            client, sentinels = client_of(url)
        except (ValueError, RedisError) as error:
            raise ConfigurationError(
                f"{setting}: '{shown_url(url)}' can't be used: {error}", field=setting
            ) from None
        return cls(client, url, sentinels)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        return await self._guarded(lambda: self._read(keys))

    async def _read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        found: list[bytes | None]
        if not self._clustered:
            found = await self._client.mget(keys)
            return found
        await self._client.initialize()
        # of each node's keys one pipeline
        pipeline = self._client.pipeline()
        for key in keys:
            pipeline.get(key)
        found = await pipeline.execute()
        return found

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], reader: ValueReader) -> int:
        forget = _forget_ms(values, reader)
        written = 0
        for at in range(0, len(keys), GUARDED_AT_ONCE):
            to = at + GUARDED_AT_ONCE
            rows = list(zip(keys[at:to], values[at:to], forget[at:to], strict=True))
            written += await self._guarded(lambda rows=rows: self._write(rows, reader.name))  # type: ignore[misc]
        return written

    async def _write(self, rows: Sequence[tuple[bytes, bytes, int]], codec: str) -> int:
        try:
            return await self._run_script(rows, codec)
        except NoScriptError:
            # of a server that has started anew, or a replica that took over
            await self._client.script_load(GUARDED_PUT)
            return await self._run_script(rows, codec)

    async def _run_script(self, rows: Sequence[tuple[bytes, bytes, int]], codec: str) -> int:
        if not self._clustered:
            keys = [key for key, _, _ in rows]
            arguments = chain.from_iterable((value, forget) for _, value, forget in rows)
            return int(await self._client.evalsha(_SHA, len(keys), *keys, codec, *arguments))
        # keys of one script must be of one slot: a script a key, a pipeline a node
        await self._client.initialize()
        pipeline = self._client.pipeline()
        for key, value, forget in rows:
            pipeline.execute_command("EVALSHA", _SHA, 1, key, codec, value, forget)
        return sum(map(int, await pipeline.execute()))

    async def load(self, block: RowBlock, reader: ValueReader, *, guarded: bool = True) -> int:
        if self._clustered:
            # a command joined by hand goes to one server
            return await self.put(block.key_list(), block.value_list(), reader)
        forget = np.where(block.expiry_s == 0, 0, _with_grace(block.expiry_s, block.event_time_ms))
        if guarded:
            await self._guarded(lambda: self._client.script_load(GUARDED_PUT))
        script = _SHA.encode() if guarded else None
        pool = self._client.connection_pool
        return await self._guarded(
            lambda: load_block(pool, block, forget, script, reader.name.encode())
        )

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        self._breaker.check()
        try:
            found = await call()
        except (RedisError, OSError, TimeoutError, EOFError) as error:
            self._breaker.failed()
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{self._what} does not answer: {reason}") from error
        self._breaker.succeeded()
        return found

    def health(self) -> dict[str, Any]:
        return {"store": self._what, "breaker": self._breaker.health()}

    async def close(self) -> None:
        for client in (self._client, *self._sentinels):
            await client.aclose()


def _forget_ms(values: Sequence[bytes], reader: ValueReader) -> list[int]:
    """Return when Redis may forget each value, 0 for never."""
    expiry = np.array([reader.expiry_s(value) for value in values], dtype=np.int64)
    times = np.array([reader.order(value)[0] for value in values], dtype=np.uint64)
    found: list[int] = np.where(expiry == 0, 0, _with_grace(expiry, times)).tolist()
    return found


def _with_grace(
    expiry_s: npt.NDArray[Any], event_time_ms: npt.NDArray[np.uint64]
) -> npt.NDArray[np.int64]:
    """A row outlives its expiry (ms) by a tenth of its time, so that it is seen to have expired."""
    expiry = expiry_s.astype(np.int64)
    ttl_s = expiry - (event_time_ms // np.uint64(1000)).astype(np.int64)
    found: npt.NDArray[np.int64] = (expiry + np.maximum(ttl_s // 10, MIN_GRACE_S)) * 1000
    return found
