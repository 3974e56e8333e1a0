"""Features in a Redis Cluster: each node is asked for its keys, and what has moved is followed.

redis-py finds the nodes; all else goes over our own connections. Its own pipeline sends `ASKING`
over one connection and the command over another, and closes those of others when a node is away.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hiredis
import numpy as np
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError, ResponseError

from kirana.breaker import Breaker
from kirana.errors import ConfigurationError, PartlyUnavailable, Unavailable
from kirana.loop import look_at_error
from kirana.redis.connection import values_of
from kirana.redis.errors import FAILURES, NOT_YET, says, unavailable
from kirana.redis.shared_connection import SharedConnection, get_command
from kirana.redis.slots import SLOTS, joined_slots, key_slots
from kirana.redis.url import cluster_of, limit_of
from kirana.stores.base import RowBlock, RowCodec
from kirana.stores.redis_bulk import WriteMode, load_block
from kirana.stores.redis_forget import Times, block_forget_ms, forget_ms
from kirana.stores.redis_script import GUARDED_AT_ONCE, LOAD_SCRIPT, SCRIPT_SHA, put_command
from kirana.urls import without_password

MAX_ROUNDS = 6
"""So often what has moved is followed in one call."""

LOOK_PAUSE_S = 1.0
"""So long a look at who has which slots is good enough, if nobody knows better."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"
_PING = b"*1\r\n$4\r\nPING\r\n"

_AWAY = object()
"""Stands for the answer of a node that gives none."""


@dataclass(slots=True)
class _Node:
    connection: SharedConnection
    breaker: Breaker


@dataclass(slots=True)
class _Lost:
    """Why a node gave no answer; `tried` is whether it was asked."""

    reason: str
    tried: bool


@dataclass(slots=True)
class _Call:
    """Commands of one key each on their way: an answer each, `_AWAY` until there is one.

    `todo` are the places of those that are to be sent, by node, and whether with `ASKING`; `lost`
    are those whose node has just not answered, with its name.
    """

    commands: Sequence[bytes]
    slots: Sequence[int]
    strings: bool
    answers: list[Any]
    todo: dict[tuple[str, bool], list[int]]
    lost: list[tuple[int, str]] = field(default_factory=list)
    reason: str = "slots move on and on"
    moved: bool = False
    """Whether a slot was elsewhere than it was known to be."""

    @property
    def away(self) -> list[int]:
        return [at for at, answer in enumerate(self.answers) if answer is _AWAY]


class RedisClusterFeatureStore:
    """See `kirana.stores.base.FeatureStore`. A call is not atomic over more than one key.

    Of nodes that do not answer, only their own keys are unavailable: each has its breaker.
    """

    embedded = False

    def __init__(self, client: RedisCluster, url: str, timeout_s: float) -> None:
        """`timeout_s` is for one answer; a call may take some, to find a server and ask it."""
        self._limit_s = limit_of(timeout_s)
        self._client: Any = client
        self._nodes: dict[str, _Node] = {}
        self._owners: list[str] = []
        self._finding: asyncio.Task[None] | None = None
        self._what = without_password(url)
        self._breaker = Breaker(self._what)
        self._looked_at = -LOOK_PAUSE_S
        self._closed = False

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisClusterFeatureStore:
        try:
            client, timeout_s = cluster_of(url)
        except (ValueError, RedisError) as error:
            raise ConfigurationError(
                f"{setting}: '{without_password(url)}' can't be used: {error}", field=setting
            ) from None
        return cls(client, url, timeout_s)

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        if not keys:
            return []
        await self._known()
        call = self._call(keys, list(map(get_command, keys)), strings=True)
        # what is not answered by then is away
        with suppress(TimeoutError):
            async with asyncio.timeout(self._limit_s):
                await self._run(call)
        away = call.away
        for at in away:
            call.answers[at] = None
        try:
            found = values_of(call.answers)
        except ResponseError as error:
            raise Unavailable(f"{self._what} refuses: {error}") from error
        if len(away) == len(keys):
            raise Unavailable(self._does_not_answer(call))
        if away:
            raise PartlyUnavailable(self._does_not_answer(call), found, away)
        return found

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], codec: RowCodec) -> int:
        await self._known()
        forget = forget_ms(values, codec)
        written = 0
        for at in range(0, len(keys), GUARDED_AT_ONCE):
            to = at + GUARDED_AT_ONCE
            # keys of one script must be of one slot: a script a key
            rows = zip(keys[at:to], values[at:to], forget[at:to], strict=True)
            commands = [put_command(codec.name, [row]) for row in rows]
            call = self._call(keys[at:to], commands)
            await self._run(call)
            for answer in call.answers:
                if isinstance(answer, hiredis.ReplyError):
                    raise Unavailable(f"{self._what} refuses: {answer}")
            if call.away:
                raise Unavailable(self._does_not_answer(call))
            written += sum(call.answers)
        return written

    async def load(self, block: RowBlock, codec: RowCodec, *, guarded: bool = True) -> int:
        await self._known()
        owners = np.array(self._owners, dtype=object)[joined_slots(block.keys, block.key_ends)]
        mode = WriteMode.PLAIN if not guarded and not block.turns.any() else WriteMode.GUARDED_EACH
        forget = block_forget_ms(block)
        parts = [np.flatnonzero(owners == name) for name in sorted(set(owners.tolist()))]
        written = await asyncio.gather(
            *(
                self._load_part(owners[rows[0]], block.take(rows), forget[rows], mode, codec)
                for rows in parts
            )
        )
        return sum(written)

    async def _load_part(
        self, name: str, block: RowBlock, forget: Times, mode: WriteMode, codec: RowCodec
    ) -> int:
        try:
            if not name:
                raise LookupError("no node has these slots")
            connection = self._maker_of(name)()
            await connection.connect()
            try:
                if mode is WriteMode.GUARDED_EACH:
                    await connection.send_packed_command(LOAD_SCRIPT)
                    await connection.read_response()
                script, spelled = SCRIPT_SHA.encode(), codec.name.encode()
                return await load_block(connection, block, forget, mode, script, spelled)
            finally:
                await connection.disconnect()
        except FAILURES:
            # slots have moved, or the node is away: row by row, wherever they are now
            return await self.put(block.key_list(), block.value_list(), codec)

    def _call(
        self, keys: Sequence[bytes], commands: Sequence[bytes], *, strings: bool = False
    ) -> _Call:
        """Note which node each command is for; `strings` tells that these are what it answers."""
        slots = key_slots(keys)
        todo: dict[tuple[str, bool], list[int]] = defaultdict(list)
        for at, slot in enumerate(slots):
            todo[self._owners[slot], False].append(at)
        return _Call(commands, slots, strings, [_AWAY] * len(keys), todo)

    async def _run(self, call: _Call) -> None:
        """Send each command to the node that has its key, wherever that is by now."""
        for _ in range(MAX_ROUNDS):
            asked, call.todo = [*call.todo.items()], defaultdict(list)
            await asyncio.gather(
                *(self._send(call, name, asking, places) for (name, asking), places in asked)
            )
            if call.lost:
                await self._follow_lost(call)
            if not call.todo:
                break
        for places in call.todo.values():
            for at in places:
                call.answers[at] = _AWAY
        if call.moved:
            await self._let_go(set(self._owners))

    async def _send(self, call: _Call, name: str, asking: bool, places: list[int]) -> None:
        found = await self._ask(name, [call.commands[at] for at in places], asking, call.strings)
        if isinstance(found, _Lost):
            call.reason = found.reason
            call.lost += [(at, name) for at in places if found.tried]
            return
        for at, answer in zip(places, found, strict=True):
            call.answers[at] = answer
            if isinstance(answer, hiredis.ReplyError):
                self._follow(call, str(answer), name, asking, at)

    def _follow(self, call: _Call, answer: str, name: str, asking: bool, at: int) -> None:
        """Note where a command goes next that a node has not done; what is refused stays so."""
        word, _, rest = answer.partition(" ")
        if word in ("MOVED", "ASK"):
            slot, _, address = rest.partition(" ")
            host, _, port = address.rpartition(":")
            # without a host, it is the one that was asked
            target = address if host else f"{name.rpartition(':')[0]}:{port}"
            if word == "MOVED":
                self._owners[int(slot)] = target
                call.moved = True
            call.todo[target, word == "ASK"].append(at)
        elif word == "NOSCRIPT":
            call.todo[name, asking].append(at)
        elif word in NOT_YET:
            call.reason = f"{name}: {answer}"
            call.answers[at] = _AWAY
            call.lost.append((at, name))

    async def _follow_lost(self, call: _Call) -> None:
        """Send what a node did not answer to the one that has taken over, if one has."""
        lost, call.lost = call.lost, []
        if any(self._owners[call.slots[at]] == name for at, name in lost):
            await self._find()
        for at, name in lost:
            now = self._owners[call.slots[at]]
            if now != name:
                call.todo[now, False].append(at)

    async def _ask(
        self, name: str, commands: Sequence[bytes], asking: bool, strings: bool
    ) -> Sequence[Any] | _Lost:
        """Send commands to one node; `asking` for a slot that is on its way to it."""
        if self._closed:
            raise Unavailable(f"{self._what} is closed")
        if not name:
            return _Lost("no node has their slots", tried=True)
        node = self._nodes.get(name)
        if node is None:
            breaker = Breaker(name)
            connection = SharedConnection(self._maker_of(name), self._limit_s, breaker.failed)
            node = self._nodes[name] = _Node(connection, breaker)
        try:
            node.breaker.check()
        except Unavailable as error:
            return _Lost(error.message, tried=False)
        try:
            answers = await self._answers(node.connection, commands, asking, strings)
        except FAILURES as error:
            node.breaker.failed()
            return _Lost(f"{name}: {error or type(error).__name__}", tried=True)
        if all(isinstance(a, hiredis.ReplyError) and str(a).startswith(NOT_YET) for a in answers):
            node.breaker.failed()
        else:
            node.breaker.succeeded()
            self._breaker.succeeded()
        return answers

    @staticmethod
    async def _answers(
        connection: SharedConnection, commands: Sequence[bytes], asking: bool, strings: bool
    ) -> Sequence[Any]:
        count = len(commands)
        if asking:
            request = b"".join(_ASKING + each for each in commands)
            answers: Sequence[Any] = (await connection.ask(request, 2 * count))[1::2]
        else:
            answers = await connection.ask(b"".join(commands), count, count if strings else None)
        lacking = [says(answer, "NOSCRIPT") for answer in answers]
        if any(lacking):
            (loaded,) = await connection.ask(LOAD_SCRIPT, 1)
            if isinstance(loaded, hiredis.ReplyError):
                return [loaded if each else a for a, each in zip(answers, lacking, strict=True)]
        return answers

    def _maker_of(self, name: str) -> Callable[[], Any]:
        """Return what makes connections to a node, also to one that has no slot yet."""
        node = self._client.get_node(node_name=name)
        if node is None:
            host, _, port = name.rpartition(":")
            node = ClusterNode(host, int(port), **self._client.get_connection_kwargs())
        return partial(node.connection_class, **node.connection_kwargs)

    async def _known(self) -> None:
        """Raise `Unavailable` if no node says which ones there are."""
        if self._closed:
            raise Unavailable(f"{self._what} is closed")
        if not self._owners:
            self._breaker.check()
            await self._find()

    async def _find(self) -> None:
        """Ask who has which slots, once for all who want to know now, and not again and again."""
        if self._finding is None:
            loop = asyncio.get_running_loop()
            if self._owners and loop.time() < self._looked_at + LOOK_PAUSE_S:
                return
            self._looked_at = loop.time()
            self._finding = asyncio.create_task(self._look())
            self._finding.add_done_callback(look_at_error)
        await asyncio.shield(self._finding)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                await self._client.nodes_manager.initialize()
        except FAILURES as error:
            if not self._owners:
                raise unavailable(self._what, error, self._breaker) from error
            # what is known may still be right
            return
        finally:
            self._finding = None
        owners = [""] * SLOTS
        for slot, nodes in self._client.nodes_manager.slots_cache.items():
            owners[slot] = nodes[0].name
        self._owners = owners
        await self._let_go(set(owners))

    async def _let_go(self, owners: set[str]) -> None:
        """Close what leads to nodes that have no slots any more."""
        idle = [
            name for name in self._nodes.keys() - owners if not self._nodes[name].connection.busy
        ]
        for node in [self._nodes.pop(name) for name in idle]:
            await node.connection.close()

    async def ping(self) -> bool:
        """Whether any node does."""
        try:
            await self._known()
            found = await asyncio.gather(
                *(self._ask(name, [_PING], False, False) for name in {*self._owners} - {""})
            )
        except Unavailable:
            return False
        return not all(isinstance(each, _Lost) for each in found)

    def _does_not_answer(self, call: _Call) -> str:
        return f"{self._what} does not answer: {call.reason}"

    def health(self) -> dict[str, Any]:
        every = {"": self._breaker, **{name: node.breaker for name, node in self._nodes.items()}}
        reports = [each.health() for each in every.values()]
        counted = {
            name: sum(each[name] for each in reports) for name in ("failed", "opened", "refused")
        }
        away = sorted(name for name, breaker in every.items() if name and breaker.open)
        state = "open" if away or self._breaker.open else "closed"
        found = {"store": self._what, "breaker": {"state": state, **counted}}
        return {**found, "away": away} if away else found

    async def close(self) -> None:
        self._closed = True
        if self._finding is not None:
            self._finding.cancel()
            await asyncio.wait([self._finding])
        nodes, self._nodes = [*self._nodes.values()], {}
        for node in nodes:
            await node.connection.close()
        # those that redis-py has asked where the others are
        for each in ("nodes_cache", "startup_nodes"):
            await self._client.nodes_manager.aclose(each)
