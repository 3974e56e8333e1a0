"""A small client of the direct ports. It gets their URLs from the front door."""

from __future__ import annotations

import http.client
import json
import select
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx

from tests.e2e.shop_requests import PAUSE_S

TIMEOUT_S = 60.0
REFRESH_S = 1.0
"""Seconds after which the client gets the URLs again, so that it finds new replicas."""


class Lost(Exception):
    """The connection to `url` broke during a request, before the whole reply arrived.

    `sent` is the time when the client began to send the request, and `noticed` is the time of the
    error. Both are from `time.monotonic`.
    """

    def __init__(self, url: str, sent: float, error: Exception) -> None:
        super().__init__(f"{url}: {type(error).__name__}: {error}")
        self.url = url
        self.sent = sent
        self.noticed = time.monotonic()


class DirectClient:
    """A client that keeps a connection to each direct port and sends to them in turn."""

    def __init__(self, front_door: str) -> None:
        self._front_door = front_door
        self._connections: dict[str, http.client.HTTPConnection] = {}
        self._turn = 0
        self._urls: list[str] = []
        self._refreshed = 0.0

    def post(self, path: str, body: object) -> tuple[str, int, bytes]:
        """Send a request; return the URL of the port, the status and the body of the reply.

        Raise `Lost` if the connection breaks. But if a reused connection breaks while the request
        is being sent, send the request again.
        """
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            url = self._next()
            reused = url in self._connections
            try:
                connection = self._connected(url)
            except ConnectionRefusedError:
                assert time.monotonic() < deadline, "no direct port accepts connections"
                self._drop(url)
                continue
            if _is_closed(connection):
                # The connection was closed while it was idle, so no request is lost.
                self._drop(url)
                continue
            sent = time.monotonic()
            try:
                connection.request("POST", path, json.dumps(body).encode())
            except ConnectionError as error:
                self._drop(url)
                if reused:
                    # The replica may have closed the connection after the check above.
                    continue
                raise Lost(url, sent, error) from error
            try:
                reply = connection.getresponse()
                content = reply.read()
            except (ConnectionError, http.client.HTTPException) as error:
                self._drop(url)
                raise Lost(url, sent, error) from error
            if reply.will_close:
                self._drop(url)
            return url, reply.status, content

    def _next(self) -> str:
        if time.monotonic() > self._refreshed + REFRESH_S:
            self._urls.clear()
        while not self._urls:
            try:
                reply = httpx.get(f"{self._front_door}/v1/endpoints", timeout=TIMEOUT_S)
            except httpx.TransportError:
                # The front door may have sent the request to a replica that was just killed.
                time.sleep(0.05)
                continue
            self._refreshed = time.monotonic()
            if reply.status_code == 200:
                self._urls = [endpoint["url"] for endpoint in reply.json()["endpoints"]]
            if not self._urls:
                time.sleep(0.05)
        self._turn += 1
        return self._urls[self._turn % len(self._urls)]

    def _connected(self, url: str) -> http.client.HTTPConnection:
        connection = self._connections.get(url)
        if connection is None:
            parts = urlsplit(url)
            connection = http.client.HTTPConnection(
                parts.hostname or "", parts.port, timeout=TIMEOUT_S
            )
            connection.connect()
            self._connections[url] = connection
        return connection

    def _drop(self, url: str) -> None:
        """Close the connection, and get the URLs again before the next request."""
        connection = self._connections.pop(url, None)
        if connection is not None:
            connection.close()
        self._urls.clear()

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()


def _is_closed(connection: http.client.HTTPConnection) -> bool:
    """Return whether the replica has closed an idle connection.

    Between two requests, a connection is readable only if the other side has closed it.
    """
    readable, _, _ = select.select([connection.sock], [], [], 0)
    return bool(readable)


class SlowRequest:
    """Context manager for a request whose last byte is not sent until `finish`."""

    def __init__(self, url: str, path: str, body: object) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=TIMEOUT_S
        )
        content = json.dumps(body).encode()
        self._connection.putrequest("POST", path)
        self._connection.putheader("content-length", str(len(content)))
        # A deploy during the request may take long. That must not fail the request.
        self._connection.putheader("x-kirana-timeout-ms", str(int(TIMEOUT_S * 1000)))
        self._connection.endheaders(content[:-1])
        self._last = content[-1:]

    def finish(self) -> int:
        """Send the last byte, and return the status of the reply."""
        self._connection.send(self._last)
        reply = self._connection.getresponse()
        reply.read()
        return reply.status

    def __enter__(self) -> SlowRequest:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()


@dataclass
class Load:
    """Threads that send requests until the `with` block ends, and the results of the requests."""

    front_door: str
    path: str
    body: object
    threads: int = 6
    pause_s: float = PAUSE_S
    answered: Counter[str] = field(default_factory=Counter)
    """The number of replies with status 200, by URL of the port."""
    lost: list[Lost] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    """Replies with a status other than 200, and errors other than `Lost`."""

    def __post_init__(self) -> None:
        self._stop = threading.Event()
        self._running = [threading.Thread(target=self._run) for _ in range(self.threads)]

    def _run(self) -> None:
        client = DirectClient(self.front_door)
        try:
            while not self._stop.is_set():
                time.sleep(self.pause_s)
                try:
                    url, status, content = client.post(self.path, self.body)
                except Lost as lost:
                    self.lost.append(lost)
                    continue
                if status == 200:
                    self.answered[url] += 1
                else:
                    self.wrong.append(f"{url}: {status} {content!r}")
        except Exception as error:
            self.wrong.append(repr(error))
            raise
        finally:
            client.close()

    def __enter__(self) -> Load:
        for thread in self._running:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._running:
            thread.join()
