"""A ZooKeeper session that watches one node, and survives the loss of the server's data.

A client refuses a server whose state is older than what the client has seen, and kazoo then retries
forever. Therefore only a new client can connect to a server that has lost its data.
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

from kirana.errors import ConfigurationError, Unavailable
from kirana.urls import option_of

CONNECT_S = 5.0
"""The timeout of the first connection, in seconds."""

ANSWER_S = 3.0
"""The timeout per call, in seconds."""

RETRY_S = 1.0
"""The longest pause between attempts to connect, in seconds."""

DEFAULT_SESSION_S = 10.0
"""The session timeout of a URL that gives none, in seconds."""

logging.getLogger("kazoo").setLevel(logging.ERROR)


def session_timeout_s(url: str) -> float:
    """Return the `session_timeout` of a URL, in seconds, or the default.

    Raise `ConfigurationError` if it is not valid.
    """
    text = option_of(url, "session_timeout")
    if text is None:
        return DEFAULT_SESSION_S
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0.5 <= seconds <= 600:
        raise ConfigurationError(
            f"catalog: 'session_timeout' must be 0.5 to 600 seconds, not '{text}'",
            field="catalog",
        )
    return seconds


class ZookeeperSession:
    """A session that connects on first use, and watches the node `watched`.

    `on_change` is called with the data of the node, or with None if the node does not exist, when
    the session connects and when the node has changed. The session expires after `session_s`
    seconds without a connection. `where` names the catalog in errors.
    """

    def __init__(
        self,
        hosts: str,
        where: str,
        session_s: float,
        watched: str,
        on_change: Callable[[bytes | None], None],
    ) -> None:
        self._hosts = hosts
        self._where = where
        self._session_s = session_s
        self._watched = watched
        self._on_change = on_change
        self._client: KazooClient | None = None
        self._next: KazooClient | None = None
        self._away_since: float | None = None
        self._lock = threading.Lock()

    def away_since(self) -> float | None:
        """Return since when (Unix seconds) the connection has been lost, or None if it is not.

        The result is also None before the first connection. After `session_s` seconds without a
        connection, calls of this method start a new client, and switch to it when it is connected.
        """
        client = self._client
        if client is None:
            return None
        if client.connected:
            self._away_since = None
            if self._next is not None:
                self._close_next()
            return None
        if self._away_since is None:
            self._away_since = time.time()
        if time.time() - self._away_since > self._session_s:
            self._renew_client()
        return self._away_since

    def _renew_client(self) -> None:
        """Start a new client. If one was already started, switch to it once it is connected."""
        with self._lock:
            if self._next is None:
                self._next = self._new_client()
                self._next.start_async()
            elif self._next.connected:
                old_client, self._client, self._next = self._client, self._next, None
                self._watch(self._client)
                _close_client(old_client)

    def _close_next(self) -> None:
        """Close a new client that is not needed: the old one is connected again, or was closed."""
        with self._lock:
            unused_client, self._next = self._next, None
        _close_client(unused_client)

    def _new_client(self) -> KazooClient:
        attempts = {"max_tries": -1, "max_delay": RETRY_S}
        return KazooClient(hosts=self._hosts, timeout=self._session_s, connection_retry=attempts)

    def client(self) -> KazooClient:
        """Return the client. The first call creates and connects it.

        Raise `Unavailable` if that fails.
        """
        client = self._client or self._start()
        # A publisher may never call `away_since`, which replaces the client of an expired session.
        self.away_since()
        return self._client or client

    def _start(self) -> KazooClient:
        with self._lock:
            if self._client is not None:
                return self._client
            client = self._new_client()
            try:
                client.start(timeout=CONNECT_S)
                # `DataWatch` waits for its first answer without a timeout, so read the node first.
                with suppress(NoNodeError):
                    client.get_async(self._watched).get(timeout=ANSWER_S)
                self._watch(client)
            except (KazooTimeoutError, KazooException) as error:
                _close_client(client)
                raise Unavailable(f"{self._where} does not answer: {error}") from error
            self._client = client
            return client

    def _watch(self, client: KazooClient) -> None:
        def on_change(data: bytes | None, stat: ZnodeStat | None) -> None:
            self._on_change(data)

        client.DataWatch(self._watched, on_change)

    def read_all(self, paths: Sequence[str]) -> list[bytes | None]:
        """Return the data of each node, or None if it does not exist. Send all requests at once.

        Raise `Unavailable` as `call` does.
        """
        client = self.client()
        pending = [client.get_async(path) for path in paths]
        contents: list[bytes | None] = []
        for result in pending:
            try:
                contents.append(self._wait(result)[0])
            except NoNodeError:
                contents.append(None)
        return contents

    def children(self, path: str) -> list[str]:
        """Return the names of the children of a node, or [] if the node does not exist.

        Raise `Unavailable` as `call` does.
        """
        try:
            names: list[str] = self.call(lambda client: client.get_children_async(path))
        except NoNodeError:
            return []
        return names

    def exists(self, path: str) -> ZnodeStat | None:
        """Return the state of a node, or None if the node does not exist.

        Raise `Unavailable` as `call` does.
        """
        stat: ZnodeStat | None = self.call(lambda client: client.exists_async(path))
        return stat

    def call(self, start: Callable[[KazooClient], Any]) -> Any:
        """Start an asynchronous call of kazoo, and wait for its result.

        Raise `Unavailable` if the call fails or takes longer than `ANSWER_S`. `NoNodeError`,
        `NodeExistsError` and `BadVersionError` are raised as they are.
        """
        return self._wait(start(self.client()))

    def _wait(self, pending: Any) -> Any:
        """Wait for the result of an asynchronous call. Raise the same errors as `call`."""
        try:
            return pending.get(timeout=ANSWER_S)
        except (NoNodeError, NodeExistsError, BadVersionError):
            raise
        except (KazooException, KazooTimeoutError, ConnectionLoss) as error:
            reason = str(error) or type(error).__name__
            raise Unavailable(f"{self._where} does not answer: {reason}") from error

    def close(self) -> None:
        """Close the session. No-op if it is closed."""
        client, self._client = self._client, None
        self._close_next()
        _close_client(client)


def _close_client(client: KazooClient | None) -> None:
    if client is not None:
        client.stop()
        client.close()
