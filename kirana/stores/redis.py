"""Features in Redis: one string a group and key. See `kirana.stores.redis_url` for the URLs.

Needs Redis 6.2, or what speaks as it.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from hashlib import sha1
from itertools import chain
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
)

from kirana.errors import ConfigurationError, Unavailable
from kirana.stores.base import RowBlock, ValueReader
from kirana.stores.breaker import Breaker
from kirana.stores.redis_bulk import Way, load_block
from kirana.stores.redis_lane import Lane, get_commands, mget_command, values_of
from kirana.stores.redis_script import GUARDED_AT_ONCE, GUARDED_PUT
from kirana.stores.redis_url import client_of, shown_url

T = TypeVar("T")

MIN_GRACE_S = 60

MIN_LIMIT_S = 1.0

_NOT_YET = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN")
"""What a server says that can't answer anybody now."""

_SHA = sha1(GUARDED_PUT.encode(), usedforsecurity=False).hexdigest()


class RedisFeatureStore:
    """See `kirana.stores.base.FeatureStore`. A call is not atomic over more than some keys."""

    def __init__(
        self,
        client: Redis | RedisCluster,
        url: str,
        timeout_s: float,
        sentinels: Sequence[Redis] = (),
    ) -> None:
        """`timeout_s` is for one answer; a call may take some, to find a server and ask it."""
        self._limit_s = max(4 * timeout_s, MIN_LIMIT_S)
        self._client: Any = client
        self._sentinels = sentinels
        self._clustered = isinstance(client, RedisCluster)
        self._lanes: dict[str, Lane] = {}
        self._what = shown_url(url)
        self._breaker = Breaker(self._what)

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisFeatureStore:
        try:
            client, sentinels, timeout_s = client_of(url)
        except (ValueError, RedisError) as error:
            raise ConfigurationError(
                f"{setting}: '{shown_url(url)}' can't be used: {error}", field=setting
            ) from None
        return cls(client, url, timeout_s, sentinels)

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if not keys:
            return []
        return await self._guarded(lambda: self._read(keys))

    async def _read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self._clustered:
            return await self._read_cluster(keys)
        lane = self._lane("", lambda: self._client.connection_pool.make_connection)
        (found,) = values_of(await lane.ask(mget_command(keys), 1))
        return found  # type: ignore[return-value]

    async def _read_cluster(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Ask all nodes at once, each for its keys in one go."""
        async with asyncio.timeout(self._limit_s):
            await self._client.initialize()
        places: dict[str, list[int]] = defaultdict(list)
        slots = self._client.nodes_manager.slots_cache
        found: list[bytes | None] = [None] * len(keys)
        try:
            for at, key in enumerate(keys):
                places[slots[key_slot(key)][0].name].append(at)
            answers = await asyncio.gather(
                *(self._ask_node(name, [keys[at] for at in each]) for name, each in places.items())
            )
        except (RedisError, OSError, TimeoutError, LookupError):
            # slots have moved, or a node is gone: redis-py finds out where they are now
            return await self._read_slowly(keys)
        for each, values in zip(places.values(), answers, strict=True):
            for at, value in zip(each, values, strict=True):
                found[at] = value
        return found

    async def _ask_node(self, name: str, keys: Sequence[bytes]) -> list[bytes | None]:
        lane = self._lane(name, lambda: self._maker_of(name))
        return values_of(await lane.ask(get_commands(keys), len(keys)))

    def _maker_of(self, name: str) -> Callable[[], Any]:
        """Return what makes connections to a node of the cluster."""
        node = self._client.get_node(node_name=name)
        if node is None:
            raise LookupError(f"{name} is no node of the cluster any more")
        return partial(node.connection_class, **node.connection_kwargs)

    def _lane(self, name: str, maker: Callable[[], Callable[[], Any]]) -> Lane:
        """Return the one lane to a server, by its name ("" for the only one)."""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(maker(), self._limit_s)
        return lane

    async def _read_slowly(self, keys: Sequence[bytes]) -> list[bytes | None]:
        pipeline = self._client.pipeline()
        for key in keys:
            pipeline.get(key)
        async with asyncio.timeout(self._limit_s):
            found: list[bytes | None] = await pipeline.execute()
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
        way = Way.GUARDED if guarded else Way.PLAIN
        return await self._guarded(lambda: self._load(block, forget, way, reader.name))

    async def _load(
        self, block: RowBlock, forget_ms: npt.NDArray[np.int64], way: Way, codec: str
    ) -> int:
        pool = self._client.connection_pool
        connection = await pool.get_connection()
        try:
            return await load_block(
                connection, block, forget_ms, way, _SHA.encode(), codec.encode()
            )
        finally:
            await pool.release(connection)

    async def _guarded(self, call: Callable[[], Awaitable[T]]) -> T:
        self._breaker.check()
        try:
            found = await call()
        except (RedisError, RedisClusterException, OSError, LookupError, EOFError) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, ResponseError) and not reason.startswith(_NOT_YET):
                # it is there, and has a reason of its own: other calls may well succeed
                self._breaker.succeeded()
                raise Unavailable(f"{self._what} refuses: {reason}") from error
            self._breaker.failed()
            raise Unavailable(f"{self._what} does not answer: {reason}") from error
        self._breaker.succeeded()
        return found

    def health(self) -> dict[str, Any]:
        return {"store": self._what, "breaker": self._breaker.health()}

    async def close(self) -> None:
        for lane in self._lanes.values():
            await lane.close()
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
