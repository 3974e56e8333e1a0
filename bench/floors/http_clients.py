"""Reads of features with plain HTTP libraries, as users without Kirana's client write them."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import aiohttp
import httpx
import numpy as np
import orjson

Call = Callable[[], Awaitable[object]]
PROTOBUF = {"content-type": "application/x-protobuf", "accept": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@asynccontextmanager
async def httpx_json(urls: Sequence[str], body: bytes, connections: int) -> AsyncIterator[Call]:
    """Yield a call that reads JSON with httpx and converts it to a numpy array."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    next_url = itertools.cycle(urls)
    async with httpx.AsyncClient(limits=limits) as client:

        async def call() -> object:
            reply = await client.post(next(next_url), content=body, headers=JSON)
            return np.array(orjson.loads(reply.content)["values"], dtype=np.float32)

        yield call


@asynccontextmanager
async def httpx_bytes(urls: Sequence[str], body: bytes, connections: int) -> AsyncIterator[Call]:
    """Yield a call that reads a Protobuf reply with httpx and returns its bytes undecoded."""
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    next_url = itertools.cycle(urls)
    async with httpx.AsyncClient(limits=limits) as client:

        async def call() -> object:
            return (await client.post(next(next_url), content=body, headers=PROTOBUF)).content

        yield call


@asynccontextmanager
async def aiohttp_bytes(urls: Sequence[str], body: bytes, connections: int) -> AsyncIterator[Call]:
    """Yield a call that reads a Protobuf reply with aiohttp and returns its bytes undecoded."""
    connector = aiohttp.TCPConnector(limit=connections)
    next_url = itertools.cycle(urls)
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar()
    ) as session:

        async def call() -> object:
            async with session.post(next(next_url), data=body, headers=PROTOBUF) as reply:
                return await reply.read()

        yield call
