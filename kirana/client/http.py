"""The HTTP transport. It balances requests over the direct ports of the live replicas."""

from __future__ import annotations

import asyncio
import contextlib
import logging

import aiohttp
import msgspec
import yarl

from kirana.client.balancer import Balancer
from kirana.client.transport import Broken, NotSent, Request, Response, timeout_ms
from kirana.errors import InvalidInput

CONTENT_TYPE = "application/x-protobuf"
CONNECT_S = 1.0
"""Seconds until an address that does not accept a connection counts as failed."""
FOLLOW_S = 1.0
"""Seconds between two reads of the list of direct ports.

A port that fails causes an early read. After a read that fails, the pause may be twice as long.
"""

logger = logging.getLogger(__name__)


class _Endpoint(msgspec.Struct):
    url: str


class _Endpoints(msgspec.Struct):
    endpoints: list[_Endpoint]


class HttpTransport:
    """Implements `Transport` over HTTP.

    Without `direct`, all requests go to `url`, the front door. `connections` is the maximum number
    of connections per address.
    """

    def __init__(self, url: str, *, direct: bool, connections: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(
                f"must be an HTTP URL such as http://127.0.0.1:8000, not '{url}'", field="url"
            )
        self._url = url.rstrip("/")
        self._balancer = Balancer(self._url)
        self._connections = connections
        self._direct = direct
        self._session: aiohttp.ClientSession | None = None
        self._following: asyncio.Task[None] | None = None
        self._read_now = asyncio.Event()
        self._read_once = asyncio.Event()

    async def send(self, request: Request, timeout_s: float) -> Response:
        """Send a request once, to the target that the balancer chooses.

        Raise `NotSent` if the target does not accept a connection, or `Broken` if the connection
        breaks.
        """
        session = await self._open_session()
        headers = {**request.headers, "x-kirana-timeout-ms": str(timeout_ms(timeout_s))}
        if request.binary:
            headers["accept"] = CONTENT_TYPE
        if request.body is not None:
            headers["content-type"] = CONTENT_TYPE if request.binary else "application/json"
        target = self._balancer.choose()
        url = yarl.URL(target.url + request.path, encoded=True).with_query(request.query)
        try:
            with self._balancer.using(target):
                async with session.request(
                    request.method, url, data=request.body, headers=headers, allow_redirects=False
                ) as reply:
                    return Response(reply.status, await reply.read())
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            self._refresh_after(target.url)
            self._balancer.failed(target)
            reason = getattr(error, "os_error", None)
            raise NotSent(getattr(reason, "strerror", None) or str(error)) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            self._refresh_after(target.url)
            self._balancer.failed(target)
            raise Broken(str(error) or type(error).__name__) from error

    def _refresh_after(self, url: str) -> None:
        """Make `_follow` read the list of direct ports early if the failed `url` is one of them."""
        if url != self._url:
            self._read_now.set()

    async def _open_session(self) -> aiohttp.ClientSession:
        """Return the session, which the first call opens.

        With `direct`, wait until the list of direct ports has been read once, or could not be read.
        """
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=self._connections),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            # By default, aiohttp repeats a PUT or DELETE that Kirana may have carried out.
            self._session._retry_connection = False
            if self._direct:
                self._following = asyncio.create_task(self._follow(self._session))
        if self._direct:
            await self._read_once.wait()
        return self._session

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        """Keep the list of direct ports up to date, until cancelled."""
        while True:
            try:
                await self._read_endpoints(session)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                # Keep the previous list. If all its ports fail, requests go to the front door.
                logger.debug("the direct ports can't be listed: %s", error)
                self._read_once.set()
                await asyncio.sleep(FOLLOW_S)
            self._read_once.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._read_now.wait(), FOLLOW_S)
            self._read_now.clear()

    async def _read_endpoints(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(FOLLOW_S * 2), session.get(f"{self._url}/v1/endpoints") as reply:
            body = await reply.read()
        if reply.status != 200:
            return
        try:
            decoded = msgspec.json.decode(body, type=_Endpoints)
        except msgspec.DecodeError:
            return
        self._balancer.update([endpoint.url for endpoint in decoded.endpoints])

    async def close(self) -> None:
        """Stop reading the list of direct ports, and close all connections."""
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
