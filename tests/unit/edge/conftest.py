"""The real edge over the shop, called as ASGI, without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from kirana.edge import Edge
from tests.support import Shop


@pytest.fixture
async def edge(shop: Shop) -> Edge:
    return await shop.edge()


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(edge) as opened:
        yield opened


def client_of(edge: Edge) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app=edge), base_url="http://shop")


async def refused(
    client: httpx.AsyncClient, method: str, path: str, body: Any = None, **sent: Any
) -> tuple[int, str, str | None]:
    """Send what must be refused; return status, code and field of the documented error."""
    if body is not None:
        sent["json"] = body
    response = await client.request(method, path, **sent)
    reply = response.json()
    assert list(reply) == ["error"], reply
    assert set(reply["error"]) == {"code", "message", "field"}
    assert reply["error"]["message"]
    assert response.headers["content-type"] == "application/json"
    return response.status_code, reply["error"]["code"], reply["error"]["field"]
