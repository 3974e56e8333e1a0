"""Fixtures that call the edge of a shop without a server: as an ASGI application or a handle."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from kirana.catalog.revisions import LiveRevision
from kirana.client import AsyncClient
from kirana.client.transport import Request, Response
from kirana.doors.handle import call
from kirana.edge import Edge, Resources
from kirana.edge.asgi import AsgiEdge
from tests.support import Shop
from tests.unit.catalog.following import following
from tests.waiting import wait_until


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    """Yield an HTTP client of the edge."""
    async with client_of(edge) as opened:
        yield opened


class EdgeTransport:
    """A transport that calls the edge as a Serve handle does, without Serve."""

    def __init__(self, edge: Edge) -> None:
        self._edge = edge

    async def send(self, request: Request, timeout_s: float) -> Response:
        query = str(httpx.QueryParams(dict(request.query))).encode()
        status, body = await call(
            self._edge,
            request.method,
            request.path,
            query,
            request.body,
            request.binary,
            5_000,
            request.headers,
        )
        return Response(status, body)

    async def close(self) -> None:
        pass


@pytest.fixture
async def kirana(edge: Edge) -> AsyncIterator[AsyncClient]:
    """Yield an `AsyncClient` of the edge."""
    async with AsyncClient(transport=EdgeTransport(edge)) as client:
        yield client


def client_of(edge: Edge) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.ASGITransport(app=AsgiEdge(edge)), base_url="http://shop"
    )


@dataclass
class CatalogOutage:
    """A client of a shop, and a switch that makes its catalog unreadable."""

    client: httpx.AsyncClient
    live: LiveRevision
    current: Path

    async def begin(self) -> None:
        """Move the file `CURRENT` away, and wait until the shop notices."""
        self.current.rename(self.current.with_name("AWAY"))
        await wait_until(lambda: self.live.away_since is not None)

    async def end(self) -> None:
        """Move the file `CURRENT` back, and wait until the shop notices."""
        self.current.with_name("AWAY").rename(self.current)
        await wait_until(lambda: self.live.away_since is None)


@pytest.fixture
async def outage(shop: Shop, shop_folder: Path) -> AsyncIterator[CatalogOutage]:
    """Yield an outage of the catalog that has not begun. The shop follows the catalog."""
    live = LiveRevision(shop.source, [], poll_s=0.001)
    await live.start()
    parts = shop.served()
    resources = Resources(parts, live, shop.source, shop.publisher)
    await resources.probes.check()
    edge = Edge(resources)
    async with following(live), client_of(edge) as client:
        yield CatalogOutage(client, live, shop_folder / ".kirana/CURRENT")


async def refused(
    client: httpx.AsyncClient, method: str, path: str, body: Any = None, **options: Any
) -> tuple[int, str, str | None]:
    """Send a request that must be refused, and return its status, error code and field."""
    if body is not None:
        options["json"] = body
    response = await client.request(method, path, **options)
    reply = response.json()
    assert list(reply) == ["error"], reply
    assert set(reply["error"]) == {"code", "message", "field"}
    assert reply["error"]["message"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, reply["error"]["code"], reply["error"]["field"]
