"""A session with ZooKeeper that hears of one node, and begins anew where its server does.

A client refuses a server that is behind what it has seen, and kazoo then tries for ever: so a
server that came back empty is only followed by a new client.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import (
    BadVersionError,
    ConnectionLoss,
    KazooException,
    NodeExistsError,
    NoNodeError,
)
from kazoo.handlers.threading import KazooTimeoutError
from kazoo.protocol.states import ZnodeStat

from kirana.errors import Unavailable

CONNECT_S = 5.0
ANSWER_S = 3.0
"""How long an answer of ZooKeeper is waited for: less than a request has by default."""

RETRY_S = 1.0
"""The longest pause between attempts to connect: without a limit, kazoo's grow to an hour."""

logging.getLogger("kazoo").setLevel(logging.ERROR)


class ZookeeperSession:
    """Connects when it is first used. `hear` gets the data of `watched`, None if it isn't there."""

    def __init__(
        self,
        hosts: str,
        where: str,
        session_s: float,
        watched: str,
        hear: Callable[[bytes | None], None],
    ) -> None:
        self._hosts = hosts
        self._where = where
        self._session_s = session_s
        self._watched = watched
        self._hear = hear
        self._client: KazooClient | None = None
        self._next: KazooClient | None = None
        self._away_since: float | None = None
        self._lock = threading.Lock()

    def away_since(self) -> float | None:
        """Return since when (Unix seconds) ZooKeeper does not answer; None if it does."""
        client = self._client
        if client is None:
            return None
        if client.connected:
            self._away_since = None
            if self._next is not None:
                self._give_up_next()
            return None
        if self._away_since is None:
            self._away_since = time.time()
        if time.time() - self._away_since > self._session_s:
            self._begin_anew()
        return self._away_since

    def _begin_anew(self) -> None:
        """The session has expired: take a new client as soon as one is connected."""
        with self._lock:
            if self._next is None:
                self._next = self._new_client()
                self._next.start_async()
            elif self._next.connected:
                old, self._client, self._next = self._client, self._next, None
                self._watch(self._client)
                _end(old)

    def _give_up_next(self) -> None:
        with self._lock:
            given_up, self._next = self._next, None
        _end(given_up)

    def _new_client(self) -> KazooClient:
        attempts = {"max_tries": -1, "max_delay": RETRY_S}
        return KazooClient(hosts=self._hosts, timeout=self._session_s, connection_retry=attempts)

    def client(self) -> KazooClient:
        """Return the client. Raises `Unavailable` if it never was connected."""
        client = self._client or self._start()
        # every use looks after the session: a publisher is asked nothing else
        self.away_since()
        return self._client or client

    def _start(self) -> KazooClient:
        with self._lock:
            if self._client is not None:
                return self._client
            client = self._new_client()
            try:
                client.start(timeout=CONNECT_S)
                # a watch would wait for a first answer without end
                with suppress(NoNodeError):
                    client.get_async(self._watched).get(timeout=ANSWER_S)
                self._watch(client)
            except (KazooTimeoutError, KazooException) as error:
                _end(client)
                raise Unavailable(f"{self._where} does not answer: {error}") from error
            self._client = client
            return client

    def _watch(self, client: KazooClient) -> None:
        def hear(data: bytes | None, stat: ZnodeStat | None) -> None:
            self._hear(data)

        client.DataWatch(self._watched, hear)

    def read_all(self, paths: Sequence[str]) -> list[bytes | None]:
        """Read nodes, all at once on the wire; None for one that isn't there."""
        client = self.client()
        asked = [client.get_async(path) for path in paths]
        found: list[bytes | None] = []
        for each in asked:
            try:
                found.append(self.answer(each)[0])
            except NoNodeError:
                found.append(None)
        return found

    def children(self, path: str) -> list[str]:
        """Return the names of a node's children, none if there is no such node."""
        try:
            found: list[str] = self.ask(lambda client: client.get_children_async(path))
        except NoNodeError:
            return []
        return found

    def exists(self, path: str) -> ZnodeStat | None:
        """Return the state of a node, None if there is no such node."""
        found: ZnodeStat | None = self.ask(lambda client: client.exists_async(path))
        return found

    def ask(self, call: Callable[[KazooClient], Any]) -> Any:
        """Call and wait. Raises as `answer`."""
        return self.answer(call(self.client()))

    def answer(self, asked: Any) -> Any:
        """Wait for an answer. Raises `Unavailable`, and what says that a node is or isn't there."""
        try:
            return asked.get(timeout=ANSWER_S)
        except (NoNodeError, NodeExistsError, BadVersionError):
            raise
        except (KazooException, KazooTimeoutError, ConnectionLoss) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{self._where} does not answer: {reason}") from error

    def close(self) -> None:
        """End the session. No-op if it is closed."""
        client, self._client = self._client, None
        self._give_up_next()
        _end(client)


def _end(client: KazooClient | None) -> None:
    if client is not None:
        client.stop()
        client.close()
