"""A Redis Cluster: each node is asked for its keys, and what has moved is followed.

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
from redis.asyncio.cluster import ClusterNode, RedisCluster

from kirana.breaker import Breaker
from kirana.errors import Unavailable
from kirana.loop import look_at_error
from kirana.redis.errors import FAILURES, NOT_YET, says, unavailable
from kirana.redis.shared_connection import SharedConnection
from kirana.redis.slots import SLOTS, key_slots
from kirana.redis.url import limit_of

MAX_ROUNDS = 6
"""So often what has moved is followed in one call."""

LOOK_PAUSE_S = 1.0
"""So long a look at who has which slots is good enough, if nobody knows better."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"
_PING = b"*1\r\n$4\r\nPING\r\n"

AWAY = object()
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
class ClusterCall:
    """Commands of one key each on their way: an answer each, `AWAY` until there is one.

    `todo` are the positions of those that are to be sent, by node, and whether with `ASKING`;
    `lost` are those whose node has just not answered, with its name. `load` gives a node the
    script that it may not know.
    """

    commands: Sequence[bytes]
    slots: Sequence[int]
    strings: bool
    load: bytes
    answers: list[Any]
    todo: dict[tuple[str, bool], list[int]]
    lost: list[tuple[int, str]] = field(default_factory=list)
    reason: str = "slots move on and on"
    moved: bool = False
    """Whether a slot was elsewhere than it was known to be."""

    @property
    def away(self) -> list[int]:
        return [at for at, answer in enumerate(self.answers) if answer is AWAY]


class ClusterClient:
    """Of nodes that do not answer, only their own keys are unavailable: each has its breaker."""

    def __init__(self, client: RedisCluster, what: str, timeout_s: float) -> None:
        """`timeout_s` is for one answer; a call may take some, to find a server and ask it."""
        self.limit_s = limit_of(timeout_s)
        self.what = what
        self._client: Any = client
        self._nodes: dict[str, _Node] = {}
        self._owners: list[str] = []
        self._finding: asyncio.Task[None] | None = None
        self._breaker = Breaker(what)
        self._looked_at = -LOOK_PAUSE_S
        self._closed = False

    async def owners(self) -> Sequence[str]:
        """Return the name of the node that has each slot, "" where none has.

        Raises `Unavailable` if no node says which ones there are.
        """
        if self._closed:
            raise Unavailable(f"{self.what} is closed")
        if not self._owners:
            self._breaker.check()
            await self._find()
        return self._owners

    async def call(
        self,
        keys: Sequence[bytes],
        commands: Sequence[bytes],
        *,
        strings: bool = False,
        load: bytes = b"",
        within_s: float | None = None,
    ) -> ClusterCall:
        """Send a command per key to the node that has it, wherever that is by now.

        `strings` tells that these are what they answer, `load` is the command that gives a node
        their script. What is not answered `within_s` is away.
        """
        owners = await self.owners()
        slots = key_slots(keys)
        todo: dict[tuple[str, bool], list[int]] = defaultdict(list)
        for at, slot in enumerate(slots):
            todo[owners[slot], False].append(at)
        call = ClusterCall(commands, slots, strings, load, [AWAY] * len(keys), todo)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._run(call)
        return call

    async def ask_node(self, name: str, command: bytes) -> Any:
        """Return the answer of one node. Raises `Unavailable` if it gives none."""
        found = await self._ask(name, [command], False, False, b"")
        if isinstance(found, _Lost):
            raise Unavailable(f"{self.what} does not answer: {found.reason}")
        return found[0]

    async def _run(self, call: ClusterCall) -> None:
        """Send each command to the node that has its key, and follow what has moved."""
        for _ in range(MAX_ROUNDS):
            asked, call.todo = [*call.todo.items()], defaultdict(list)
            await asyncio.gather(
                *(self._send(call, name, asking, positions) for (name, asking), positions in asked)
            )
            if call.lost:
                await self._follow_lost(call)
            if not call.todo:
                break
        for positions in call.todo.values():
            for at in positions:
                call.answers[at] = AWAY
        if call.moved:
            await self._let_go(set(self._owners))

    async def _send(self, call: ClusterCall, name: str, asking: bool, positions: list[int]) -> None:
        commands = [call.commands[at] for at in positions]
        found = await self._ask(name, commands, asking, call.strings, call.load)
        if isinstance(found, _Lost):
            call.reason = found.reason
            call.lost += [(at, name) for at in positions if found.tried]
            return
        for at, answer in zip(positions, found, strict=True):
            call.answers[at] = answer
            if isinstance(answer, hiredis.ReplyError):
                self._follow(call, str(answer), name, asking, at)

    def _follow(self, call: ClusterCall, answer: str, name: str, asking: bool, at: int) -> None:
        """Note where a command goes next that a node has not done; what is refused stays so."""
        word, _, rest = answer.partition(" ")
        if word in ("MOVED", "ASK", "NOSCRIPT") or word in NOT_YET:
            # until another answer comes
            call.answers[at] = AWAY
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
            call.lost.append((at, name))

    async def _follow_lost(self, call: ClusterCall) -> None:
        """Send what a node did not answer to the one that has taken over, if one has."""
        lost, call.lost = call.lost, []
        if any(self._owners[call.slots[at]] == name for at, name in lost):
            await self._find()
        for at, name in lost:
            now = self._owners[call.slots[at]]
            if now != name:
                call.todo[now, False].append(at)

    async def _ask(
        self, name: str, commands: Sequence[bytes], asking: bool, strings: bool, load: bytes
    ) -> Sequence[Any] | _Lost:
        """Send commands to one node; `asking` for a slot that is on its way to it."""
        if self._closed:
            raise Unavailable(f"{self.what} is closed")
        if not name:
            return _Lost("no node has their slots", tried=True)
        node = self._nodes.get(name)
        if node is None:
            breaker = Breaker(name)
            connection = SharedConnection(self.maker_of(name), self.limit_s, breaker.failed)
            node = self._nodes[name] = _Node(connection, breaker)
        try:
            node.breaker.check()
        except Unavailable as error:
            return _Lost(error.message, tried=False)
        try:
            answers = await self._answers(node.connection, commands, asking, strings, load)
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
        connection: SharedConnection,
        commands: Sequence[bytes],
        asking: bool,
        strings: bool,
        load: bytes,
    ) -> Sequence[Any]:
        count = len(commands)
        if asking:
            request = b"".join(_ASKING + each for each in commands)
            answers: Sequence[Any] = (await connection.ask(request, 2 * count))[1::2]
        else:
            answers = await connection.ask(b"".join(commands), count, count if strings else None)
        if not load:
            return answers
        lacking = [says(answer, "NOSCRIPT") for answer in answers]
        if any(lacking):
            (loaded,) = await connection.ask(load, 1)
            if isinstance(loaded, hiredis.ReplyError):
                return [loaded if each else a for a, each in zip(answers, lacking, strict=True)]
        return answers

    def maker_of(self, name: str) -> Callable[[], Any]:
        """Return what makes connections to a node, also to one that has no slot yet."""
        node = self._client.get_node(node_name=name)
        if node is None:
            host, _, port = name.rpartition(":")
            node = ClusterNode(host, int(port), **self._client.get_connection_kwargs())
        return partial(node.connection_class, **node.connection_kwargs)

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
            async with asyncio.timeout(self.limit_s):
                await self._client.nodes_manager.initialize()
        except FAILURES as error:
            if not self._owners:
                raise unavailable(self.what, error, self._breaker) from error
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
            names = {*await self.owners()} - {""}
            found = await asyncio.gather(
                *(self._ask(name, [_PING], False, False, b"") for name in names)
            )
        except Unavailable:
            return False
        return not all(isinstance(each, _Lost) for each in found)

    def health(self) -> dict[str, Any]:
        """Return the state of the breakers, and the nodes that are `away`."""
        every = {"": self._breaker, **{name: node.breaker for name, node in self._nodes.items()}}
        reports = [each.health() for each in every.values()]
        counted = {
            name: sum(each[name] for each in reports) for name in ("failed", "opened", "refused")
        }
        away = sorted(name for name, breaker in every.items() if name and breaker.open)
        state = "open" if away or self._breaker.open else "closed"
        found: dict[str, Any] = {"breaker": {"state": state, **counted}}
        return {**found, "away": away} if away else found

    async def close(self) -> None:
        """Let go of all nodes. No-op if closed."""
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
