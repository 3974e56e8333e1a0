"""HTTP underneath: the direct ports found, balanced over, and left as replicas come and go."""

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
"""A host that does not even take the connection is left for another."""
FOLLOW_S = 1.0
"""How often the live direct ports are asked for; at once when one fails."""

logger = logging.getLogger(__name__)


class _Endpoint(msgspec.Struct):
    url: str


class _Endpoints(msgspec.Struct):
    endpoints: list[_Endpoint]


class HttpTransport:
    """Implements `Transport`. Without `direct` everything goes through the front door."""

    def __init__(self, url: str, *, direct: bool, connections: int) -> None:
        if not url.startswith(("http://", "https://")):
            raise InvalidInput(f"'{url}' is not like http://127.0.0.1:8000", field="url")
        self._url = url.rstrip("/")
        self._balancer = Balancer(self._url)
        self._connections = connections
        self._follows = direct
        self._session: aiohttp.ClientSession | None = None
        self._following: asyncio.Task[None] | None = None
        self._look = asyncio.Event()
        self._looked = asyncio.Event()

    async def send(self, request: Request, timeout_s: float) -> Response:
        session = await self._opened()
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
            self._left(target.url)
            self._balancer.failed(target)
            reason = getattr(error, "os_error", None)
            raise NotSent(getattr(reason, "strerror", None) or str(error)) from error
        except (aiohttp.ClientError, ConnectionError) as error:
            self._left(target.url)
            self._balancer.failed(target)
            raise Broken(str(error) or type(error).__name__) from error

    def _left(self, url: str) -> None:
        if url != self._url:
            self._look.set()

    async def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=0, limit_per_host=self._connections),
                timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S),
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
            )
            # aiohttp would send a PUT or DELETE again where the first may have been carried out
            self._session._retry_connection = False
            if self._follows:
                self._following = asyncio.create_task(self._follow(self._session))
        if self._follows:
            await self._looked.wait()
        return self._session

    async def _follow(self, session: aiohttp.ClientSession) -> None:
        while True:
            try:
                await self._ask(session)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                # what was last seen stands; the front door is always there to fall back to
                logger.debug("the direct ports can't be asked for: %s", error)
                self._looked.set()
                await asyncio.sleep(FOLLOW_S)
            self._looked.set()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._look.wait(), FOLLOW_S)
            self._look.clear()

    async def _ask(self, session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(FOLLOW_S * 2), session.get(f"{self._url}/v1/endpoints") as reply:
            body = await reply.read()
        if reply.status != 200:
            return
        try:
            found = msgspec.json.decode(body, type=_Endpoints)
        except msgspec.DecodeError:
            return
        self._balancer.update([each.url for each in found.endpoints])

    async def close(self) -> None:
        if self._following is not None:
            self._following.cancel()
            await asyncio.gather(self._following, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
