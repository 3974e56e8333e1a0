"""Features in a Redis Cluster: each node is asked for its keys, and what has moved is followed.

redis-py finds the nodes; all else goes over our own lanes. Its own pipeline sends `ASKING` over
one connection and the command over another, and closes those of others when a node is away.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import hiredis
import numpy as np
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError, ResponseError

from kirana.errors import ConfigurationError, PartlyUnavailable, Unavailable
from kirana.stores.base import RowBlock, ValueReader
from kirana.stores.breaker import Breaker
from kirana.stores.redis_bulk import Way, load_block
from kirana.stores.redis_connection import values_of
from kirana.stores.redis_errors import FAILURES, NOT_YET, unavailable
from kirana.stores.redis_forget import Times, block_forget_ms, forget_ms
from kirana.stores.redis_lane import Lane, get_command
from kirana.stores.redis_script import GUARDED_AT_ONCE, GUARDED_PUT, SCRIPT_SHA
from kirana.stores.redis_slots import SLOTS, block_slots, key_slots
from kirana.stores.redis_url import cluster_of, limit_of, shown_url

MAX_ROUNDS = 6
"""So often what has moved is followed in one call."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"
_pack: Callable[[tuple[Any, ...]], bytes] = hiredis.pack_command
_LOAD_SCRIPT = _pack(("SCRIPT", "LOAD", GUARDED_PUT))


@dataclass(slots=True)
class _Node:
    lane: Lane
    breaker: Breaker


@dataclass(slots=True)
class _Lost:
    """Why a node gave no answer; `tried` is whether it was asked."""

    reason: str
    tried: bool


@dataclass(slots=True)
class _Said:
    """An answer a command; `away` are the places of those whose node gave none, and why."""

    answers: list[Any]
    away: list[int] = field(default_factory=list)
    reason: str = ""
    moved: bool = False
    """Whether a slot was elsewhere than it was known to be."""


class RedisClusterFeatureStore:
    """See `kirana.stores.base.FeatureStore`. A call is not atomic over more than one key.

    Of nodes that do not answer, only their own keys are unavailable: each has its breaker.
    """

    def __init__(self, client: RedisCluster, url: str, timeout_s: float) -> None:
        """`timeout_s` is for one answer; a call may take some, to find a server and ask it."""
        self._limit_s = limit_of(timeout_s)
        self._client: Any = client
        self._nodes: dict[str, _Node] = {}
        self._owners: list[str] = []
        self._finding: asyncio.Task[None] | None = None
        self._what = shown_url(url)
        self._breaker = Breaker(self._what)

    @classmethod
    def open(cls, url: str, *, setting: str) -> RedisClusterFeatureStore:
        try:
            client, timeout_s = cluster_of(url)
        except (ValueError, RedisError) as error:
            raise ConfigurationError(
                f"{setting}: '{shown_url(url)}' can't be used: {error}", field=setting
            ) from None
        return cls(client, url, timeout_s)

    async def get(self, keys: Sequence[bytes]) -> Sequence[bytes | None]:
        if not keys:
            return []
        said = await self._run(keys, list(map(get_command, keys)))
        try:
            found = values_of(said.answers)
        except ResponseError as error:
            raise Unavailable(f"{self._what} refuses: {error}") from error
        if said.away:
            raise PartlyUnavailable(self._does_not_answer(said), found, said.away)
        return found

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], reader: ValueReader) -> int:
        forget = forget_ms(values, reader)
        written = 0
        for at in range(0, len(keys), GUARDED_AT_ONCE):
            to = at + GUARDED_AT_ONCE
            # keys of one script must be of one slot: a script a key
            commands = [
                _pack(("EVALSHA", SCRIPT_SHA, 1, key, reader.name, value, ms))
                for key, value, ms in zip(keys[at:to], values[at:to], forget[at:to], strict=True)
            ]
            said = await self._run(keys[at:to], commands)
            for answer in said.answers:
                if isinstance(answer, hiredis.ReplyError):
                    raise Unavailable(f"{self._what} refuses: {answer}")
            if said.away:
                raise Unavailable(self._does_not_answer(said))
            written += sum(said.answers)
        return written

    async def load(self, block: RowBlock, reader: ValueReader, *, guarded: bool = True) -> int:
        await self._known()
        owners = np.array(self._owners, dtype=object)[block_slots(block)]
        way = Way.GUARDED_EACH if guarded else Way.PLAIN
        forget = block_forget_ms(block)
        parts = [np.flatnonzero(owners == name) for name in sorted(set(owners.tolist()))]
        written = await asyncio.gather(
            *(
                self._load_part(owners[rows[0]], block.take(rows), forget[rows], way, reader)
                for rows in parts
            )
        )
        return sum(written)

    async def _load_part(
        self, name: str, block: RowBlock, forget: Times, way: Way, reader: ValueReader
    ) -> int:
        try:
            if not name:
                raise LookupError("no node has these slots")
            connection = self._maker_of(name)()
            await connection.connect()
            try:
                if way is Way.GUARDED_EACH:
                    await connection.send_packed_command(_LOAD_SCRIPT)
                    await connection.read_response()
                script, codec = SCRIPT_SHA.encode(), reader.name.encode()
                return await load_block(connection, block, forget, way, script, codec)
            finally:
                await connection.disconnect()
        except FAILURES:
            # slots have moved, or the node is away: row by row, wherever they are now
            return await self.put(block.key_list(), block.value_list(), reader)

    async def _run(self, keys: Sequence[bytes], commands: Sequence[bytes]) -> _Said:
        """Send each command to the node that has its key, wherever that is by now."""
        await self._known()
        slots = key_slots(keys)
        owners = self._owners
        said = _Said([None] * len(keys))
        todo: dict[tuple[str, bool], list[int]] = defaultdict(list)
        for at, slot in enumerate(slots):
            todo[owners[slot], False].append(at)
        looked = False
        for _ in range(MAX_ROUNDS):
            asked = [*todo.items()]
            todo = defaultdict(list)
            answers = await asyncio.gather(
                *(
                    self._ask(name, [commands[at] for at in places], asking)
                    for (name, asking), places in asked
                )
            )
            lost: list[int] = []
            for ((name, asking), places), found in zip(asked, answers, strict=True):
                if isinstance(found, _Lost):
                    said.reason = found.reason
                    (lost if found.tried else said.away).extend(places)
                    continue
                for at, answer in zip(places, found, strict=True):
                    said.answers[at] = answer
                    if isinstance(answer, hiredis.ReplyError):
                        self._follow(str(answer), name, asking, at, todo, lost, said)
            if lost and not looked:
                # others may have taken over
                looked = True
                before = self._owners
                await self._find()
                for at in lost:
                    now = self._owners[slots[at]]
                    if now != before[slots[at]]:
                        todo[now, False].append(at)
                    else:
                        said.away.append(at)
            else:
                said.away += lost
            if not todo:
                break
        if said.moved:
            await self._let_go(set(self._owners))
        for places in todo.values():
            said.away += places
        for at in said.away:
            said.answers[at] = None
        return said

    def _follow(
        self,
        answer: str,
        name: str,
        asking: bool,
        at: int,
        todo: dict[tuple[str, bool], list[int]],
        lost: list[int],
        said: _Said,
    ) -> None:
        """Note where a command goes next that a node has not done; what is refused stays so."""
        word, _, rest = answer.partition(" ")
        if word in ("MOVED", "ASK"):
            slot, _, address = rest.partition(" ")
            host, _, port = address.rpartition(":")
            # without a host, it is the one that was asked
            target = address if host else f"{name.rpartition(':')[0]}:{port}"
            if word == "MOVED":
                self._owners[int(slot)] = target
                said.moved = True
            todo[target, word == "ASK"].append(at)
        elif word == "NOSCRIPT":
            todo[name, asking].append(at)
        elif word in NOT_YET:
            said.reason = answer
            lost.append(at)

    async def _ask(
        self, name: str, commands: Sequence[bytes], asking: bool
    ) -> Sequence[Any] | _Lost:
        """Send commands to one node; `asking` for a slot that is on its way to it."""
        if not name:
            return _Lost("no node has their slots", tried=True)
        node = self._nodes.get(name)
        if node is None:
            lane = Lane(self._maker_of(name), self._limit_s)
            node = self._nodes[name] = _Node(lane, Breaker(name))
        try:
            node.breaker.check()
        except Unavailable as error:
            return _Lost(error.message, tried=False)
        try:
            if asking:
                request = b"".join(_ASKING + each for each in commands)
                answers = (await node.lane.ask(request, 2 * len(commands)))[1::2]
            else:
                answers = await node.lane.ask(b"".join(commands), len(commands))
            if any(isinstance(a, hiredis.ReplyError) and "NOSCRIPT" in str(a) for a in answers):
                await node.lane.ask(_LOAD_SCRIPT, 1)
        except FAILURES as error:
            node.breaker.failed()
            return _Lost(f"{name}: {error or type(error).__name__}", tried=True)
        node.breaker.succeeded()
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
        if not self._owners:
            self._breaker.check()
            await self._find()

    async def _find(self) -> None:
        """Ask who has which slots, once for all who want to know now."""
        if self._finding is None:
            self._finding = asyncio.create_task(self._look())
        await asyncio.shield(self._finding)

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(self._limit_s):
                await self._client.nodes_manager.initialize()
        except FAILURES as error:
            failure = unavailable(self._what, error, self._breaker)
            if not self._owners:
                raise failure from error
            # what is known may still be right
            return
        finally:
            self._finding = None
        self._breaker.succeeded()
        owners = [""] * SLOTS
        for slot, nodes in self._client.nodes_manager.slots_cache.items():
            owners[slot] = nodes[0].name
        self._owners = owners
        await self._let_go(set(owners))

    async def _let_go(self, owners: set[str]) -> None:
        """Close what leads to nodes that have no slots any more."""
        for name in self._nodes.keys() - owners:
            if not self._nodes[name].lane.busy:
                await self._nodes.pop(name).lane.close()

    def _does_not_answer(self, said: _Said) -> str:
        return f"{self._what} does not answer: {said.reason or 'slots move on and on'}"

    def health(self) -> dict[str, Any]:
        every = [self._breaker, *(node.breaker for node in self._nodes.values())]
        reports = [each.health() for each in every]
        state = "open" if any(each.open for each in every) else "closed"
        counted = {
            name: sum(each[name] for each in reports) for name in ("failed", "opened", "refused")
        }
        return {"store": self._what, "breaker": {"state": state, **counted}}

    async def close(self) -> None:
        for node in self._nodes.values():
            await node.lane.close()
        # those that redis-py has asked where the others are
        for nodes in ("nodes_cache", "startup_nodes"):
            await self._client.nodes_manager.aclose(nodes)
