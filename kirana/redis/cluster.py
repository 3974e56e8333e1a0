"""A client of Redis Clusters. It sends each command to the node that owns the key.

redis-py is used only to discover the nodes and to open connections. Its pipeline has two faults: it
may send `ASKING` over one connection and the command over another, and it closes the connections of
other callers if a node does not answer.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import hiredis
from redis.asyncio.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisError

from kirana.breaker import Breaker
from kirana.errors import Unavailable
from kirana.loop import retrieve_error
from kirana.redis.cluster_call import MISSING, ClusterCall
from kirana.redis.errors import (
    FAILURES,
    TEMPORARY_ERRORS,
    ReplyTooSlow,
    is_error,
    unavailable,
)
from kirana.redis.shared_connection import SharedConnection
from kirana.redis.slots import SLOTS, key_slots
from kirana.redis.url import call_limit_s, cluster_of
from kirana.urls import usable, without_password

MAX_ROUNDS = 6
"""Maximum number of rounds per call.

In each round, the commands that still have no final reply are sent to the nodes that should have
their slots.
"""

REFRESH_PAUSE_S = 1.0
"""Minimum time in seconds between two queries for the owners of the slots, once they are known."""

_ASKING = b"*1\r\n$6\r\nASKING\r\n"
_PING = b"*1\r\n$4\r\nPING\r\n"


@dataclass(slots=True)
class _Node:
    """The connection to a node, and the breaker of the node."""

    connection: SharedConnection
    breaker: Breaker


@dataclass(slots=True)
class _NoReply:
    """The result of a request that got no reply, with the reason.

    `retry` is False if the breaker of the node refused the request. Otherwise another node may own
    the slots by now, and the owners must be queried.
    """

    reason: str
    retry: bool


class ClusterClient:
    """Sends commands to the nodes of a cluster.

    Each node has its own connection and breaker. If a node does not answer, only its keys are
    unavailable. The breaker of the cluster counts failed queries for the owners of the slots.
    """

    def __init__(self, client: RedisCluster, name: str, timeout_s: float) -> None:
        """Use the nodes that `client` discovers. `name` stands for the cluster in error messages.

        `timeout_s` limits the wait for one reply. A call may take longer, because it may have to
        find the nodes first (see `call_limit_s`).
        """
        self.limit_s = call_limit_s(timeout_s)
        self.name = name
        self._client: Any = client
        self._nodes: dict[str, _Node] = {}
        self._owners: list[str] = []
        self._refreshing: asyncio.Task[None] | None = None
        self._breaker = Breaker(name)
        self._refreshed_at = -REFRESH_PAUSE_S
        self._closed = False

    @classmethod
    def open(cls, url: str, *, setting: str) -> ClusterClient:
        """Return the client of the cluster at a URL, without connecting yet.

        Raise `ConfigurationError` for `setting` if the URL is not valid.
        """
        with usable(url, setting=setting, errors=(ValueError, RedisError)):
            client, timeout_s = cluster_of(url)
        return cls(client, without_password(url), timeout_s)

    async def owners(self) -> Sequence[str]:
        """Return the name of the node that owns each slot, or "" if the slot has no owner.

        Query the cluster if the owners are not known yet. Raise `Unavailable` if the query fails,
        if the breaker of the cluster refuses it, or if the client is closed.
        """
        if self._closed:
            raise Unavailable(f"{self.name} is closed")
        if not self._owners:
            self._breaker.check()
            await self._refresh_owners()
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
        """Send one command per key to the node that owns the key, even if the slot has moved.

        `strings` is True if all replies are strings. `load` is the command that loads the script
        of the commands.

        In the result, a reply is `MISSING` if no node owns the slot. It is also `MISSING` if the
        node does not answer, can't serve the command at the moment (see `TEMPORARY_ERRORS`), or
        gives no final reply within `within_s` seconds or `MAX_ROUNDS` rounds. Other error replies
        are in the result like any reply.

        Raise `Unavailable` if the owners of the slots can't be found, or if the client is closed.
        """
        owners = await self.owners()
        slots = key_slots(keys)
        todo: dict[tuple[str, bool], list[int]] = defaultdict(list)
        for position, slot in enumerate(slots):
            todo[owners[slot], False].append(position)
        call = ClusterCall(commands, slots, strings, load, [MISSING] * len(keys), todo)
        with suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._run(call)
        return call

    async def request_node(self, name: str, command: bytes) -> Any:
        """Send a command to the node `name` and return the reply, which may be an error reply.

        Raise `Unavailable` if the node does not answer, if its breaker refuses the request, or if
        the client is closed.
        """
        replies = await self._request(name, [command], False, False, b"")
        if isinstance(replies, _NoReply):
            raise Unavailable(f"{self.name} does not answer: {replies.reason}")
        return replies[0]

    async def _run(self, call: ClusterCall) -> None:
        """Send all commands. If slots have moved, send their commands again, to other nodes."""
        for _ in range(MAX_ROUNDS):
            batches, call.todo = [*call.todo.items()], defaultdict(list)
            await asyncio.gather(
                *(self._send(call, name, asking, sent) for (name, asking), sent in batches)
            )
            if call.unanswered:
                await self._resend(call)
            if not call.todo:
                break
        if call.moved:
            await self._close_unused(set(self._owners))

    async def _send(self, call: ClusterCall, name: str, asking: bool, positions: list[int]) -> None:
        """Send the commands at `positions` to the node `name`, and record the replies in `call`."""
        commands = [call.commands[position] for position in positions]
        replies = await self._request(name, commands, asking, call.strings, call.load)
        if isinstance(replies, _NoReply):
            call.reason = replies.reason
            call.unanswered += [(position, name) for position in positions if replies.retry]
            return
        for position, reply in zip(positions, replies, strict=True):
            call.replies[position] = reply
            if isinstance(reply, hiredis.ReplyError):
                self._redirect(call, str(reply), name, asking, position)

    def _redirect(
        self, call: ClusterCall, error: str, name: str, asking: bool, position: int
    ) -> None:
        """Arrange to send the command at `position` again if its error reply asks for it.

        Otherwise the error stays the reply of the command.
        """
        code, _, rest = error.partition(" ")
        if code in ("MOVED", "ASK", "NOSCRIPT") or code in TEMPORARY_ERRORS:
            # This is not the final reply.
            call.replies[position] = MISSING
        if code in ("MOVED", "ASK"):
            slot, _, address = rest.partition(" ")
            host, _, port = address.rpartition(":")
            # If the host is empty, the target has the host of the node that replied.
            target = address if host else f"{name.rpartition(':')[0]}:{port}"
            if code == "MOVED":
                self._owners[int(slot)] = target
                call.moved = True
            call.todo[target, code == "ASK"].append(position)
        elif code == "NOSCRIPT":
            call.todo[name, asking].append(position)
        elif code in TEMPORARY_ERRORS:
            call.reason = f"{name}: {error}"
            call.unanswered.append((position, name))

    async def _resend(self, call: ClusterCall) -> None:
        """Arrange to send unanswered commands again if other nodes own their slots now."""
        unanswered, call.unanswered = call.unanswered, []
        if any(self._owners[call.slots[position]] == name for position, name in unanswered):
            await self._refresh_owners()
        for position, name in unanswered:
            owner = self._owners[call.slots[position]]
            if owner != name:
                call.todo[owner, False].append(position)

    async def _request(
        self, name: str, commands: Sequence[bytes], asking: bool, strings: bool, load: bytes
    ) -> Sequence[Any] | _NoReply:
        """Send commands to the node `name`. Return its replies, or why there are none.

        If `asking`, send `ASKING` before each command. The node then accepts the command even if
        the slot is still being moved to it. Raise `Unavailable` if the client is closed.
        """
        if self._closed:
            raise Unavailable(f"{self.name} is closed")
        if not name:
            return _NoReply("no node owns the slots of these keys", retry=True)
        node = self._nodes.get(name)
        if node is None:
            breaker = Breaker(name)
            connection = SharedConnection(
                self.connection_factory(name), self.limit_s, breaker.failed
            )
            node = self._nodes[name] = _Node(connection, breaker)
        try:
            node.breaker.check()
        except Unavailable as error:
            return _NoReply(error.message, retry=False)
        try:
            replies = await self._exchange(node.connection, commands, asking, strings, load)
        except FAILURES as error:
            if not isinstance(error, ReplyTooSlow):
                node.breaker.failed()
            return _NoReply(f"{name}: {error or type(error).__name__}", retry=True)
        if all(
            isinstance(r, hiredis.ReplyError) and str(r).startswith(TEMPORARY_ERRORS)
            for r in replies
        ):
            node.breaker.failed()
        else:
            node.breaker.succeeded()
            self._breaker.succeeded()
        return replies

    @staticmethod
    async def _exchange(
        connection: SharedConnection,
        commands: Sequence[bytes],
        asking: bool,
        strings: bool,
        load: bytes,
    ) -> Sequence[Any]:
        """Send commands over a connection and return their replies.

        If the node lacks the script, load it. The commands that need the script keep `NOSCRIPT` as
        their reply, and the caller must send them again. If the script can't be loaded, the error
        of the load is their reply instead.
        """
        count = len(commands)
        if asking:
            with_asking = b"".join(_ASKING + command for command in commands)
            replies: Sequence[Any] = (await connection.request(with_asking, 2 * count))[1::2]
        else:
            string_count = count if strings else None
            replies = await connection.request(b"".join(commands), count, string_count)
        if not load:
            return replies
        lacks_script = [is_error(reply, "NOSCRIPT") for reply in replies]
        if any(lacks_script):
            (loaded,) = await connection.request(load, 1)
            if isinstance(loaded, hiredis.ReplyError):
                return [
                    loaded if lacks else reply
                    for reply, lacks in zip(replies, lacks_script, strict=True)
                ]
        return replies

    def connection_factory(self, name: str) -> Callable[[], Any]:
        """Return a function that makes connections of redis-py to the node `name`.

        The connections are not connected yet. redis-py need not have discovered the node.
        """
        node = self._client.get_node(node_name=name)
        if node is None:
            host, _, port = name.rpartition(":")
            node = ClusterNode(host, int(port), **self._client.get_connection_kwargs())
        return partial(node.connection_class, **node.connection_kwargs)

    async def _refresh_owners(self) -> None:
        """Query the owners of the slots. Concurrent callers share one query.

        No-op if owners are known and the last query began less than `REFRESH_PAUSE_S` ago. Raise
        `Unavailable` if the query fails and no owners are known.
        """
        if self._refreshing is None:
            loop = asyncio.get_running_loop()
            if self._owners and loop.time() < self._refreshed_at + REFRESH_PAUSE_S:
                return
            self._refreshed_at = loop.time()
            self._refreshing = asyncio.create_task(self._query_owners())
            self._refreshing.add_done_callback(retrieve_error)
        await asyncio.shield(self._refreshing)

    async def _query_owners(self) -> None:
        """Query the owners of the slots, and close unused connections to nodes without slots."""
        try:
            async with asyncio.timeout(self.limit_s):
                await self._client.nodes_manager.initialize()
        except FAILURES as error:
            if not self._owners:
                raise unavailable(self.name, error, self._breaker) from error
            # The known owners may still be right.
            return
        finally:
            self._refreshing = None
        owners = [""] * SLOTS
        for slot, nodes in self._client.nodes_manager.slots_cache.items():
            owners[slot] = nodes[0].name
        self._owners = owners
        await self._close_unused(set(owners))

    async def _close_unused(self, owners: set[str]) -> None:
        """Close the connections to nodes that are not in `owners`, unless callers use them."""
        idle = [
            name for name in self._nodes.keys() - owners if not self._nodes[name].connection.busy
        ]
        for node in [self._nodes.pop(name) for name in idle]:
            await node.connection.close()

    async def ping(self) -> bool:
        """Return whether at least one node answers."""
        try:
            names = {*await self.owners()} - {""}
            results = await asyncio.gather(
                *(self._request(name, [_PING], False, False, b"") for name in names)
            )
        except Unavailable:
            return False
        return not all(isinstance(result, _NoReply) for result in results)

    def health(self) -> dict[str, Any]:
        """Return the breakers of the cluster and of its nodes, as if they were one breaker.

        The state is "open" if any breaker is open. The counts are sums. `away` lists the nodes
        whose breaker is open. It is left out if there are none.
        """
        breakers = {"": self._breaker}
        breakers |= {name: node.breaker for name, node in self._nodes.items()}
        reports = [breaker.health() for breaker in breakers.values()]
        counts = {
            count: sum(report[count] for report in reports)
            for count in ("failed", "opened", "refused")
        }
        away = sorted(name for name, breaker in breakers.items() if name and breaker.open)
        state = "open" if away or self._breaker.open else "closed"
        health: dict[str, Any] = {"breaker": {"state": state, **counts}}
        return {**health, "away": away} if away else health

    async def close(self) -> None:
        """Close the connections to all nodes. No-op if already closed."""
        self._closed = True
        if self._refreshing is not None:
            self._refreshing.cancel()
            await asyncio.wait([self._refreshing])
        nodes, self._nodes = [*self._nodes.values()], {}
        for node in nodes:
            await node.connection.close()
        # Close the connections that redis-py used to discover the nodes.
        for attribute in ("nodes_cache", "startup_nodes"):
            await self._client.nodes_manager.aclose(attribute)
