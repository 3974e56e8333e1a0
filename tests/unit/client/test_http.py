"""The HTTP transport over real sockets: servers that disconnect, refuse, or do not exist."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest

from kirana.client.http import HttpTransport
from kirana.client.transport import Broken, NotSent, Request
from kirana.edge.headers import MAX_TIMEOUT_MS
from tests.waiting import wait_until

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def _listening(handler: Handler) -> AsyncIterator[str]:
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with server:
        yield f"http://127.0.0.1:{port}"


async def _reply(writer: asyncio.StreamWriter, body: bytes) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(body), body))
    await writer.drain()


async def _disconnect(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.close()


async def _send(url: str, *, direct: bool = False, method: str = "POST") -> bytes:
    """Send one request and return the body of its reply."""
    transport = HttpTransport(url, direct=direct, connections=4)
    try:
        return (await transport.send(Request(method, "/a%2Fb", {"x": "1"}, b"{}"), 5.0)).body
    finally:
        await transport.close()


async def test_a_request_is_sent_with_its_path_query_and_headers() -> None:
    heads = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        await _reply(writer, b"done")
        writer.close()

    async with _listening(handler) as url:
        assert await _send(url) == b"done"
    assert heads[0].startswith("post /a%2fb?x=1 http/1.1")
    assert "x-kirana-timeout-ms: 5000" in heads[0]
    assert "content-type: application/json" in heads[0]


async def test_the_timeout_header_stays_within_the_limits_of_the_edge() -> None:
    heads = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append((await reader.readuntil(b"\r\n\r\n")).decode().lower())
        await _reply(writer, b"done")
        writer.close()

    async with _listening(handler) as url:
        for timeout_s in (1e-6, 3600.0):
            transport = HttpTransport(url, direct=False, connections=4)
            try:
                await transport.send(Request("GET", "/a"), timeout_s)
            finally:
                await transport.close()
    sent = [int(head.split("x-kirana-timeout-ms: ")[1].split()[0]) for head in heads]
    assert sent == [1, MAX_TIMEOUT_MS]


async def test_a_connection_that_breaks_raises_broken() -> None:
    async with _listening(_disconnect) as url:
        with pytest.raises(Broken):
            await _send(url)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
async def test_a_request_that_may_have_been_carried_out_is_not_sent_again(method: str) -> None:
    heads = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        writer.close()

    async with _listening(handler) as url:
        with pytest.raises(Broken):
            await _send(url, method=method)
    assert len(heads) == 1


async def test_a_replica_that_dies_during_a_request_raises_broken() -> None:
    servers: list[asyncio.Server] = []

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        servers[0].close()
        writer.close()

    servers.append(await asyncio.start_server(handler, "127.0.0.1", 0))
    port = servers[0].sockets[0].getsockname()[1]
    with pytest.raises(Broken):
        await _send(f"http://127.0.0.1:{port}", method="PUT")


async def test_a_refused_connection_raises_not_sent() -> None:
    async with _listening(_disconnect) as url:
        pass
    with pytest.raises(NotSent):
        await _send(url)


async def test_direct_ports_are_discovered_and_used() -> None:
    async def direct(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await _reply(writer, b"direct")
        writer.close()

    async with _listening(direct) as port:

        async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            assert head.startswith(b"GET /v1/endpoints")
            await _reply(writer, b'{"endpoints": [{"replica": "a", "url": "%s"}]}' % port.encode())
            writer.close()

        async with _listening(front) as url:
            assert await _send(url, direct=True) == b"direct"


async def test_direct_ports_are_discovered_even_if_the_first_call_is_cancelled() -> None:
    first_request = asyncio.Event()

    async def direct(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await _reply(writer, b"direct")
        writer.close()

    async with _listening(direct) as port:

        async def front(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.readuntil(b"\r\n\r\n")
            if not first_request.is_set():
                first_request.set()
                await reader.read()
            elif head.startswith(b"GET /v1/endpoints"):
                body = b'{"endpoints": [{"replica": "a", "url": "%s"}]}' % port.encode()
                await _reply(writer, body)
            else:
                await _reply(writer, b"front")
            writer.close()

        async with _listening(front) as url:
            transport = HttpTransport(url, direct=True, connections=4)
            try:
                first = asyncio.create_task(transport.send(Request("GET", "/a"), 5.0))
                await first_request.wait()
                first.cancel()
                await asyncio.gather(first, return_exceptions=True)

                async def goes_direct() -> bool:
                    return (await transport.send(Request("GET", "/a"), 5.0)).body == b"direct"

                await wait_until(goes_direct)
            finally:
                await transport.close()
