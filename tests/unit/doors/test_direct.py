"""The direct port of a shop, on a real socket: replies, limits, draining and load."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from kirana.admission import ALWAYS_WAITING
from kirana.doors import direct as module
from kirana.doors.direct import DirectPort
from kirana.edge import Edge, Limits
from kirana.edge.app import REQUESTS
from kirana.metrics import Metrics
from kirana.serving.preflight import bind
from tests.e2e.shop_requests import BAD, READS, UNCHANGING_PUBLISHES, WRITES, Call
from tests.support import Shop
from tests.unit.edge.conftest import client_of
from tests.waiting import wait_until

HOST = "127.0.0.1"
FLOW = "/v1/flows/for_you"
BODY = b'{"context": {"user_id": "7"}}'
TIMEOUT = "x-kirana-timeout-ms"


def client_at(direct: DirectPort) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{HOST}:{direct.port}", timeout=30, trust_env=False)


@asynccontextmanager
async def opened(edge: Edge, finish_s: float = 5.0) -> AsyncIterator[DirectPort]:
    """Serve the edge on a free port until the block is left."""
    direct = DirectPort(edge, bind(HOST, 0), finish_s=finish_s)
    await direct.started()
    yield direct
    await direct.drain(0)


@pytest.fixture
async def direct(edge: Edge) -> AsyncIterator[DirectPort]:
    async with opened(edge) as port:
        yield port


@pytest.fixture
async def caller(direct: DirectPort) -> AsyncIterator[httpx.AsyncClient]:
    async with client_at(direct) as client:
        yield client


class SlowRequest:
    """A request whose client sends part of the body, and then the rest or a disconnect."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, direct: DirectPort, *headers: str) -> SlowRequest:
        """Return once the application reads the body: the server sends `100 Continue` then."""
        request = cls(*await asyncio.open_connection(HOST, direct.port))
        common = ("host: shop", f"content-length: {len(BODY)}", "expect: 100-continue")
        lines = (f"POST {FLOW} HTTP/1.1", *common, *headers, "", "")
        request._writer.write("\r\n".join(lines).encode())
        assert (await request._head()).status_code == 100
        request._writer.write(BODY[:9])
        return request

    async def finish(self) -> httpx.Response:
        self._writer.write(BODY[9:])
        return await self.answer()

    async def answer(self) -> httpx.Response:
        head = await self._head()
        body = await self._reader.readexactly(int(head.headers["content-length"]))
        await self.disconnect()
        return httpx.Response(head.status_code, headers=head.headers, content=body)

    async def disconnect(self) -> None:
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def _head(self) -> httpx.Response:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines if line]
        return httpx.Response(int(first.split()[1]), headers=headers)


def status_and_code(response: httpx.Response) -> tuple[int, str]:
    """Return the status and the error code of a reply."""
    return response.status_code, response.json()["error"]["code"]


class TestReplies:
    async def test_replies_are_those_of_the_front_door(
        self, edge: Edge, caller: httpx.AsyncClient
    ) -> None:
        async def ask(client: httpx.AsyncClient, call: Call) -> tuple[int, Any, dict[str, str]]:
            with_id = {"x-request-id": "one"}
            reply = await client.request(call.method, call.path, json=call.body, headers=with_id)
            headers = {name: value for name, value in reply.headers.items() if name != "date"}
            return reply.status_code, reply.json(), headers

        async with client_of(edge) as front:
            for call in (*WRITES, *READS, *UNCHANGING_PUBLISHES, *(bad[0] for bad in BAD)):
                assert await ask(caller, call) == await ask(front, call), call

    async def test_many_concurrent_requests_are_answered(self, caller: httpx.AsyncClient) -> None:
        calls = [caller.post(FLOW, content=BODY) for _ in range(ALWAYS_WAITING)]
        assert {response.status_code for response in await asyncio.gather(*calls)} == {200}

    async def test_a_connection_serves_one_request_after_another(self, direct: DirectPort) -> None:
        reader, writer = await asyncio.open_connection(HOST, direct.port)
        request = b"GET /healthz HTTP/1.1\r\nhost: shop\r\n\r\n"
        writer.write(request + request)
        for _ in range(2):
            head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
            assert head.startswith(b"HTTP/1.1 200")
            assert b"connection: close" not in head.lower()
            (length,) = (
                int(line.split(b":")[1])
                for line in head.splitlines()
                if line.lower().startswith(b"content-length")
            )
            assert json.loads(await reader.readexactly(length))["status"] == "ok"
        writer.close()
        await writer.wait_closed()

    async def test_bytes_that_are_not_http_end_only_their_own_connection(
        self, direct: DirectPort, caller: httpx.AsyncClient
    ) -> None:
        reader, writer = await asyncio.open_connection(HOST, direct.port)
        writer.write(b"\x16\x03\x01 this is not HTTP\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400")
        writer.close()
        await writer.wait_closed()
        assert (await caller.get("/healthz")).status_code == 200

    async def test_requests_are_counted_under_the_door_direct(self, shop: Shop) -> None:
        metrics = Metrics()
        edge = await shop.edge(metrics=metrics)
        async with opened(edge) as direct, client_at(direct) as caller, client_of(edge) as front:
            await caller.post(FLOW, content=BODY)
            await caller.get("/nothing")
            await front.post(FLOW, content=BODY)
        assert metrics.counts(REQUESTS) == {
            ("flow_run", "direct", "200"): 1,
            ("none", "direct", "404"): 1,
            ("flow_run", "serve", "200"): 1,
        }


class TestStart:
    async def test_the_port_is_that_of_the_socket(self, edge: Edge) -> None:
        listening = bind(HOST, 0)
        direct = DirectPort(edge, listening, finish_s=1)
        await direct.started()
        assert direct.port == listening.getsockname()[1]
        assert direct.serving
        await direct.drain(0)
        assert not direct.serving

    async def test_signal_handlers_are_left_alone(self, edge: Edge) -> None:
        before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        async with opened(edge):
            after = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
        assert after == before

    async def test_a_closed_socket_raises_an_error(self, edge: Edge) -> None:
        listening = bind(HOST, 0)
        listening.close()
        direct = DirectPort(edge, listening, finish_s=1)
        with pytest.raises(OSError, match="Bad file descriptor"):
            await asyncio.wait_for(direct.started(), 10)
        assert not direct.serving


async def pieces(count: int, size: int) -> AsyncIterator[bytes]:
    for _ in range(count):
        yield b" " * size


class TestLimits:
    async def test_a_body_over_the_limit_is_refused_and_the_next_request_is_served(
        self, shop: Shop
    ) -> None:
        edge = await shop.edge(Limits(max_body_bytes=1_000))
        async with opened(edge) as direct, client_at(direct) as caller:
            for body in (b" " * 1_001, pieces(11, 100), b" " * 1_000_000, pieces(100, 10_000)):
                assert status_and_code(await caller.post(FLOW, content=body)) == (413, "too_large")
                assert (await caller.post(FLOW, content=BODY)).status_code == 200

    async def test_a_body_with_too_large_a_content_length_is_refused_at_once(
        self, direct: DirectPort
    ) -> None:
        reader, writer = await asyncio.open_connection(HOST, direct.port)
        writer.write(
            b"POST /v1/flows/for_you HTTP/1.1\r\nhost: shop\r\ncontent-length: 99999999999\r\n\r\n{"
        )
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
        assert head.startswith(b"HTTP/1.1 413")
        writer.close()
        await writer.wait_closed()

    async def test_a_request_whose_body_does_not_arrive_ends_at_its_deadline(
        self, direct: DirectPort
    ) -> None:
        slow = await SlowRequest.begin(direct, f"{TIMEOUT}: 50")
        response = await slow.answer()
        assert status_and_code(response) == (504, "deadline_exceeded")
        assert response.json()["error"]["message"] == "no answer in 50 ms"

    async def test_an_invalid_timeout_is_refused(self, caller: httpx.AsyncClient) -> None:
        response = await caller.post(FLOW, content=BODY, headers={TIMEOUT: "soon"})
        assert (response.status_code, response.json()["error"]["field"]) == (400, TIMEOUT)

    async def test_a_request_over_max_ongoing_is_refused_as_overloaded(self, shop: Shop) -> None:
        edge = await shop.edge(Limits(max_ongoing=2))
        async with opened(edge) as direct, client_at(direct) as caller, client_of(edge) as front:
            first = await SlowRequest.begin(direct)
            assert (await caller.post(FLOW, content=BODY)).status_code == 200
            second = await SlowRequest.begin(direct)
            for client in (caller, front):
                response = await client.post(FLOW, content=BODY)
                assert status_and_code(response) == (503, "overloaded")
                assert response.headers["retry-after"] == "1"
            assert [(await slow.finish()).status_code for slow in (first, second)] == [200, 200]
            assert (await caller.post(FLOW, content=BODY)).status_code == 200

    async def test_a_client_that_disconnects_within_the_body_frees_its_place(
        self, shop: Shop
    ) -> None:
        metrics = Metrics()
        edge = await shop.edge(Limits(max_ongoing=1), metrics=metrics)
        async with opened(edge) as direct, client_at(direct) as caller:
            slow = await SlowRequest.begin(direct)
            assert metrics.counts(REQUESTS) == {}
            await slow.disconnect()
            await wait_until(lambda: bool(metrics.counts(REQUESTS)))
            assert metrics.counts(REQUESTS) == {("flow_run", "direct", "499"): 1}
            assert (await caller.post(FLOW, content=BODY)).status_code == 200


class TestDrain:
    async def test_requests_are_served_while_draining_and_replies_close_the_connection(
        self, direct: DirectPort, caller: httpx.AsyncClient
    ) -> None:
        assert "connection" not in (await caller.get("/healthz")).headers
        draining = asyncio.create_task(direct.drain(1.0))
        for wait_s in (0, 0.4):
            await asyncio.sleep(wait_s)
            for path in ("/healthz", "/nothing"):
                response = await caller.get(path)
                assert response.headers["connection"] == "close"
            async with client_at(direct) as another:
                assert (await another.post(FLOW, content=BODY)).status_code == 200
            assert direct.serving
        await draining

    async def test_the_reply_to_a_request_in_progress_closes_the_connection_too(
        self, direct: DirectPort
    ) -> None:
        """Otherwise its client would send the next request on a connection about to close."""
        slow = await SlowRequest.begin(direct)
        draining = asyncio.create_task(direct.drain(0.3))
        await asyncio.sleep(0)
        response = await slow.finish()
        assert response.status_code == 200
        assert response.headers.get("connection") == "close"
        await draining

    async def test_requests_in_progress_finish(self, direct: DirectPort) -> None:
        port = direct.port
        slow = await SlowRequest.begin(direct)
        draining = asyncio.create_task(direct.drain(0))
        await wait_until(lambda: refuses(port))
        assert not draining.done()
        response = await slow.finish()
        assert response.status_code == 200
        assert response.json()["output"]["ids"] == []
        await draining

    async def test_a_drained_port_refuses_connections_and_is_free(self, edge: Edge) -> None:
        async with opened(edge) as direct, client_at(direct) as caller:
            port = direct.port
            assert (await caller.get("/healthz")).status_code == 200
            await direct.drain(0)
            assert not direct.serving
            with pytest.raises(httpx.ConnectError):
                await caller.get("/healthz")
            bind(HOST, port).close()

    async def test_idle_connections_do_not_delay_draining(self, edge: Edge) -> None:
        async with opened(edge, finish_s=600) as direct, client_at(direct) as caller:
            assert (await caller.get("/healthz")).status_code == 200
            reader, writer = await asyncio.open_connection(HOST, direct.port)
            await asyncio.wait_for(direct.drain(0), 5)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
            await writer.wait_closed()

    async def test_draining_waits_for_requests_no_longer_than_finish_s(self, shop: Shop) -> None:
        edge = await shop.edge(Limits(timeout_ms=600_000))
        async with opened(edge, finish_s=0.1) as direct:
            slow = await SlowRequest.begin(direct)
            await asyncio.wait_for(direct.drain(0), 10)
            assert (await asyncio.wait_for(slow.answer(), 10)).status_code == 500

    async def test_draining_again_is_a_no_op(self, edge: Edge) -> None:
        async with opened(edge) as direct:
            await direct.drain(0)
            await asyncio.wait_for(direct.drain(0), 5)


def refuses(port: int) -> bool:
    """Return whether a port refuses connections."""
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the clock of the direct port, which stands still until a test changes `now`."""
    stopped = SimpleNamespace(now=1_000.0)
    stopped.monotonic = lambda: stopped.now
    monkeypatch.setattr(module, "time", stopped)
    return stopped


class TestLoad:
    async def test_the_load_is_zero_without_requests(
        self, clock: SimpleNamespace, direct: DirectPort
    ) -> None:
        assert direct.take_average_ongoing() == 0
        clock.now += 10
        assert direct.take_average_ongoing() == 0

    async def test_requests_that_take_no_time_add_no_load(
        self, clock: SimpleNamespace, direct: DirectPort, caller: httpx.AsyncClient
    ) -> None:
        for _ in range(5):
            await caller.get("/healthz")
            clock.now += 1
        assert direct.take_average_ongoing() == 0

    async def test_over_no_time_the_load_is_the_number_of_requests_in_progress(
        self, clock: SimpleNamespace, direct: DirectPort
    ) -> None:
        requests = [await SlowRequest.begin(direct) for _ in range(3)]
        assert direct.take_average_ongoing() == 3
        for request in requests:
            await request.finish()
        await wait_until(lambda: direct.take_average_ongoing() == 0)

    async def test_a_request_adds_load_for_as_long_as_it_lasts(
        self, clock: SimpleNamespace, shop: Shop
    ) -> None:
        metrics = Metrics()
        edge = await shop.edge(Limits(timeout_ms=60_000), metrics=metrics)

        def answered() -> int:
            return metrics.counts(REQUESTS)["flow_run", "direct", "200"]

        async with opened(edge) as direct:
            clock.now += 1  # no request is in progress during this second
            first = await SlowRequest.begin(direct)
            clock.now += 2  # the first request is in progress
            second = await SlowRequest.begin(direct)
            clock.now += 3  # both requests are in progress
            await first.finish()
            await wait_until(lambda: answered() == 1)
            clock.now += 4  # only the second request is in progress
            assert direct.take_average_ongoing() == pytest.approx((2 + 2 * 3 + 4) / 10)
            clock.now += 1  # the second request is still in progress
            await second.finish()
            await wait_until(lambda: answered() == 2)
            clock.now += 3  # no request is in progress
            assert direct.take_average_ongoing() == pytest.approx(1 / 4)
            clock.now += 1
            assert direct.take_average_ongoing() == 0

    async def test_a_request_whose_client_disconnected_adds_no_more_load(
        self, clock: SimpleNamespace, direct: DirectPort
    ) -> None:
        slow = await SlowRequest.begin(direct)
        assert direct.take_average_ongoing() == 1
        await slow.disconnect()
        await wait_until(lambda: direct.take_average_ongoing() == 0)
        clock.now += 10
        assert direct.take_average_ongoing() == 0
