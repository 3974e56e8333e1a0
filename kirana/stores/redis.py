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
from hiredis import ReplyError, pack_command
from redis.asyncio import Redis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.crc import key_slot
from redis.exceptions import (
    AskError,
    ClusterDownError,
    MasterDownError,
    MovedError,
    NoScriptError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)

from kirana.errors import ConfigurationError, Unavailable
from kirana.stores.base import RowBlock, ValueReader
from kirana.stores.breaker import Breaker
from kirana.stores.redis_bulk import load_block
from kirana.stores.redis_lane import Lane, get_commands, mget_command, values_of
from kirana.stores.redis_script import GUARDED_AT_ONCE, GUARDED_PUT
from kirana.stores.redis_url import client_of, shown_url

T = TypeVar("T")

MIN_GRACE_S = 60

MIN_LIMIT_S = 1.0

MAX_REDIRECTIONS = 5

_NOT_YET = ("LOADING", "MASTERDOWN", "CLUSTERDOWN", "TRYAGAIN", "MOVED", "ASK")
"""What a server says that can't answer anybody now."""

_NOT_YET_ERRORS = (ClusterDownError, MasterDownError, TryAgainError, AskError)
"""The same as redis-py raises it, without the word."""

_ELSEWHERE = (RedisError, OSError, TimeoutError, LookupError)
"""What says that slots have moved, or that a node is gone."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"

_Command = tuple[Any, ...]

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
        return await self._guarded(lambda: self._read(keys), limit_s=self._limit_s)

    async def _read(self, keys: Sequence[bytes]) -> list[bytes | None]:
        if self._clustered:
            return await self._read_cluster(keys)
        lane = self._lane("", lambda: self._client.connection_pool.make_connection)
        (found,) = values_of(await lane.ask(mget_command(keys), 1))
        return found  # type: ignore[return-value]

    async def _read_cluster(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Ask all nodes at once, each for its keys in one go."""
        await self._client.initialize()
        places: dict[str, list[int]] = defaultdict(list)
        slots = self._client.nodes_manager.slots_cache
        try:
            for at, key in enumerate(keys):
                places[slots[key_slot(key)][0].name].append(at)
        except LookupError:
            return await self._read_slowly(keys)
        answers = await asyncio.gather(
            *(self._ask_node(name, [keys[at] for at in each]) for name, each in places.items()),
            return_exceptions=True,
        )
        found: list[bytes | None] = [None] * len(keys)
        again: list[int] = []
        for each, values in zip(places.values(), answers, strict=True):
            if isinstance(values, _ELSEWHERE):
                again += each
            elif isinstance(values, BaseException):
                raise values
            else:
                for at, value in zip(each, values, strict=True):
                    found[at] = value
        if again:
            values = await self._read_slowly([keys[at] for at in again])
            for at, value in zip(again, values, strict=True):
                found[at] = value
            if not all(isinstance(each, ResponseError | list) for each in answers):
                await self._close_lanes()
        return found

    async def _ask_node(self, name: str, keys: Sequence[bytes]) -> list[bytes | None]:
        lane = self._lane(name, lambda: self._maker_of(name))
        return values_of(await lane.ask(get_commands(keys), len(keys)))

    def _maker_of(self, name: str) -> Callable[[], Any]:
        """Return what makes connections to a node of the cluster."""
        node = self._client.get_node(node_name=name)
        if node is None:
            # one that has joined, and takes over its first slot
            host, _, port = name.rpartition(":")
            node = ClusterNode(host, int(port), **self._client.get_connection_kwargs())
        return partial(node.connection_class, **node.connection_kwargs)

    def _lane(self, name: str, maker: Callable[[], Callable[[], Any]]) -> Lane:
        """Return the one lane to a server, by its name ("" for the only one)."""
        lane = self._lanes.get(name)
        if lane is None:
            lane = self._lanes[name] = Lane(maker())
        return lane

    async def _close_lanes(self) -> None:
        """Close those to nodes that have no slots any more."""
        owners = {nodes[0].name for nodes in self._client.nodes_manager.slots_cache.values()}
        for name in self._lanes.keys() - owners:
            lane = self._lanes.get(name)
            if lane is not None and not lane.busy:
                del self._lanes[name]
                await lane.close()

    async def _read_slowly(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Read what has moved, or whose node was away: redis-py finds out where it is now."""
        return values_of(await self._run([("GET", key) for key in keys]))

    async def _run(self, commands: Sequence[_Command]) -> list[Any]:
        """Run commands of one key each, wherever it is now; errors are among the answers.

        redis-py would send `ASKING` over one connection and the command over another, and knows
        no node that has no slots yet.
        """
        await self._client.initialize()
        answers: list[Any] = [None] * len(commands)
        todo = list(range(len(commands)))
        refreshed = False
        for _ in range(MAX_REDIRECTIONS):
            found = await self._run_once([commands[at] for at in todo])
            asked: dict[str, list[int]] = defaultdict(list)
            moved = False
            again: list[int] = []
            away: list[int] = []
            for at, answer in zip(todo, found, strict=True):
                answers[at] = answer
                if isinstance(answer, MovedError):
                    await self._client.nodes_manager.move_slot(answer)
                    moved = True
                    again.append(at)
                elif isinstance(answer, RedisCluster.ERRORS_ALLOW_RETRY) and not refreshed:
                    away.append(at)
                elif isinstance(answer, AskError):
                    asked[f"{answer.host}:{answer.port}"].append(at)
            for name, places in asked.items():
                there = await self._ask_importing(name, [commands[at] for at in places])
                for at, answer in zip(places, there, strict=True):
                    answers[at] = answer
                    if isinstance(answer, ResponseError) and str(answer).startswith("MOVED"):
                        again.append(at)
            if away:
                # another node may have taken over
                await self._client.nodes_manager.initialize()
                refreshed = True
            if moved or away:
                await self._close_lanes()
            todo = [*again, *away]
            if not todo:
                break
        return answers

    async def _run_once(self, commands: Sequence[_Command]) -> list[Any]:
        pipeline = self._client.pipeline()
        for command in commands:
            pipeline.execute_command(*command)
        try:
            found: list[Any] = await pipeline.execute(
                raise_on_error=False, allow_redirections=False
            )
        except AttributeError as error:
            # redis-py closes what another caller is just opening
            raise ConnectionError("the connection was closed meanwhile") from error
        return found

    async def _ask_importing(self, name: str, commands: Sequence[_Command]) -> list[Any]:
        """Ask a node for keys of a slot that is on its way to it."""
        # it may not have the script
        whole = (
            ("EVAL", GUARDED_PUT, *rest) if word == "EVALSHA" else (word, first, *rest)
            for word, first, *rest in commands
        )
        request = b"".join(_ASKING + pack_command(each) for each in whole)
        lane = self._lane(name, lambda: self._maker_of(name))
        answers = (await lane.ask(request, 2 * len(commands)))[1::2]
        return [ResponseError(str(e)) if isinstance(e, ReplyError) else e for e in answers]

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
        answers = await self._run(
            [("EVALSHA", _SHA, 1, key, codec, value, forget) for key, value, forget in rows]
        )
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer
        return sum(map(int, answers))

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

    async def _guarded(
        self, call: Callable[[], Awaitable[T]], *, limit_s: float | None = None
    ) -> T:
        self._breaker.check()
        try:
            async with asyncio.timeout(limit_s):
                found = await call()
        except (RedisError, RedisClusterException, OSError, LookupError, EOFError) as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, ResponseError) and not _not_yet(error):
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


def _not_yet(error: ResponseError) -> bool:
    return isinstance(error, _NOT_YET_ERRORS) or str(error).startswith(_NOT_YET)


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
