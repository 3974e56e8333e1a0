"""Replies that do not come from Kirana: each call raises an error of Kirana."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from kirana.client import AsyncClient
from kirana.client.transport import Request, Response
from kirana.errors import KiranaError
from kirana.interactions import Event

Call = Callable[[AsyncClient], Awaitable[Any]]

CALLS: dict[str, Call] = {
    "get_features": lambda client: client.get_features("product", {"product_id": "1"}, ["a.b"]),
    "add_interactions": lambda client: client.add_interactions([Event("7", "click", "1", 5)]),
    "query_interactions": lambda client: client.query_interactions(["7"], ["click"]),
    "interactions": lambda client: client.interactions("7", "click"),
    "forget": lambda client: client.forget("7"),
    "infer": lambda client: client.infer("ranker", {"product_id": ["1"]}),
    "run_flow": lambda client: client.run_flow("for_you", {"user_id": "7"}),
    "catalog": lambda client: client.catalog(),
    "get_object": lambda client: client.get_object("entity", "user"),
    "put_object": lambda client: client.put_object("entity", "user", {}),
    "health": lambda client: client.health(),
    "endpoints": lambda client: client.endpoints(),
}


class Always:
    """A transport that returns the same response to every request."""

    def __init__(self, response: Response) -> None:
        self._response = response

    async def send(self, request: Request, timeout_s: float) -> Response:
        return self._response

    async def close(self) -> None:
        pass


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_redirect_is_an_error(call: Call) -> None:
    # A front door that redirects to HTTPS sends this. An empty body is a valid Protobuf message.
    client = AsyncClient(transport=Always(Response(302, b"")))
    with pytest.raises(KiranaError):
        await call(client)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_an_html_page_is_an_error(call: Call) -> None:
    client = AsyncClient(transport=Always(Response(200, b"<html>Welcome to nginx</html>")))
    with pytest.raises(KiranaError):
        await call(client)
