"""The direct port over the real shop, on a real socket: same answers, limits, drain, load."""

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

from kirana.doors import direct as module
from kirana.doors.direct import DirectPort
from kirana.edge import Edge, Limits
from kirana.edge.app import REQUESTS
from kirana.metrics import Metrics
from kirana.serving.preflight import bind
from tests.e2e.shop_requests import BAD, READS, WRITES, Call
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


class Slow:
    """A request that is under way, with half of its body, until its client goes on."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def begin(cls, direct: DirectPort, *headers: str) -> Slow:
        """Return once the application reads the body: that is what the server says 100 for."""
        made = cls(*await asyncio.open_connection(HOST, direct.port))
        fixed = ("host: shop", f"content-length: {len(BODY)}", "expect: 100-continue")
        lines = (f"POST {FLOW} HTTP/1.1", *fixed, *headers, "", "")
        made._writer.write("\r\n".join(lines).encode())
        assert (await made._head()).status_code == 100
        made._writer.write(BODY[:9])
        return made

    async def finish(self) -> httpx.Response:
        self._writer.write(BODY[9:])
        return await self.answer()

    async def answer(self) -> httpx.Response:
        head = await self._head()
        body = await self._reader.readexactly(int(head.headers["content-length"]))
        await self.hang_up()
        return httpx.Response(head.status_code, headers=head.headers, content=body)

    async def hang_up(self) -> None:
        self._writer.close()
        await asyncio.gather(self._writer.wait_closed(), return_exceptions=True)

    async def _head(self) -> httpx.Response:
        first, *lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        headers = [(line.partition(": ")[0], line.partition(": ")[2]) for line in lines if line]
        return httpx.Response(int(first.split()[1]), headers=headers)


def code_of(response: httpx.Response) -> tuple[int, str]:
    return response.status_code, response.json()["error"]["code"]


class TestAnswers:
    async def test_they_are_those_of_the_front_door(
        self, edge: Edge, caller: httpx.AsyncClient
    ) -> None:
        async def ask(client: httpx.AsyncClient, call: Call) -> tuple[int, Any, dict[str, str]]:
            named = {"x-request-id": "one"}
            reply = await client.request(call.method, call.path, json=call.body, headers=named)
            headers = {k: v for k, v in reply.headers.items() if k != "date"}
            return reply.status_code, reply.json(), headers

        async with client_of(edge) as front:
            for call in (*WRITES, *READS, *(each[0] for each in BAD)):
                assert await ask(caller, call) == await ask(front, call), call

    async def test_many_at_once_are_answered(self, caller: httpx.AsyncClient) -> None:
        calls = [caller.post(FLOW, content=BODY) for _ in range(100)]
        assert {each.status_code for each in await asyncio.gather(*calls)} == {200}

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

    async def test_what_is_no_http_ends_its_own_connection_only(
        self, direct: DirectPort, caller: httpx.AsyncClient
    ) -> None:
        reader, writer = await asyncio.open_connection(HOST, direct.port)
        writer.write(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
        assert (await asyncio.wait_for(reader.read(), 10)).startswith(b"HTTP/1.1 400")
        writer.close()
        await writer.wait_closed()
        assert (await caller.get("/healthz")).status_code == 200

    async def test_requests_are_counted_as_those_of_this_door(self, shop: Shop) -> None:
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
    async def test_its_port_is_that_of_the_socket(self, edge: Edge) -> None:
        listening = bind(HOST, 0)
        direct = DirectPort(edge, listening, finish_s=1)
        await direct.started()
        assert direct.port == listening.getsockname()[1]
        assert direct.serving
        await direct.drain(0)
        assert not direct.serving

    async def test_signals_stay_the_replicas_business(self, edge: Edge) -> None:
        before = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        async with opened(edge):
            now = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)]
        assert now == before

    async def test_a_socket_that_can_not_be_served_is_an_error(self, edge: Edge) -> None:
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
    async def test_a_body_over_the_limit_is_refused_and_the_connection_lives_on(
        self, shop: Shop
    ) -> None:
        edge = await shop.edge(Limits(max_body_bytes=1_000))
        async with opened(edge) as direct, client_at(direct) as caller:
            for body in (b" " * 1_001, pieces(11, 100), b" " * 1_000_000, pieces(100, 10_000)):
                assert code_of(await caller.post(FLOW, content=body)) == (413, "too_large")
                assert (await caller.post(FLOW, content=BODY)).status_code == 200

    async def test_a_body_that_says_it_is_too_large_is_not_waited_for(
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

    async def test_a_body_that_does_not_come_meets_the_deadline(self, direct: DirectPort) -> None:
        slow = await Slow.begin(direct, f"{TIMEOUT}: 50")
        response = await slow.answer()
        assert code_of(response) == (504, "deadline_exceeded")
        assert response.json()["error"]["message"] == "no answer in 50 ms"

    async def test_a_deadline_that_is_none_is_refused(self, caller: httpx.AsyncClient) -> None:
        response = await caller.post(FLOW, content=BODY, headers={TIMEOUT: "soon"})
        assert (response.status_code, response.json()["error"]["field"]) == (400, TIMEOUT)

    async def test_who_comes_when_all_places_are_taken_is_turned_away(self, shop: Shop) -> None:
        edge = await shop.edge(Limits(max_ongoing=2))
        async with opened(edge) as direct, client_at(direct) as caller, client_of(edge) as front:
            one = await Slow.begin(direct)
            assert (await caller.post(FLOW, content=BODY)).status_code == 200
            other = await Slow.begin(direct)
            for client in (caller, front):
                response = await client.post(FLOW, content=BODY)
                assert code_of(response) == (503, "overloaded")
                assert response.headers["retry-after"] == "1"
            assert [(await each.finish()).status_code for each in (one, other)] == [200, 200]
            assert (await caller.post(FLOW, content=BODY)).status_code == 200

    async def test_who_hangs_up_within_the_body_leaves_a_free_place(self, shop: Shop) -> None:
        metrics = Metrics()
        edge = await shop.edge(Limits(max_ongoing=1), metrics=metrics)
        async with opened(edge) as direct, client_at(direct) as caller:
            slow = await Slow.begin(direct)
            assert metrics.counts(REQUESTS) == {}
            await slow.hang_up()
            await wait_until(lambda: bool(metrics.counts(REQUESTS)))
            assert metrics.counts(REQUESTS) == {("flow_run", "direct", "499"): 1}
            assert (await caller.post(FLOW, content=BODY)).status_code == 200


class TestDrain:
    async def test_replies_say_close_and_requests_are_taken_while_clients_move(
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

    async def test_a_request_that_was_under_way_says_close_too(self, direct: DirectPort) -> None:
        """Else its client sends the next one on a connection that is about to be closed."""
        slow = await Slow.begin(direct)
        draining = asyncio.create_task(direct.drain(0.3))
        await asyncio.sleep(0)
        response = await slow.finish()
        assert response.status_code == 200
        assert response.headers.get("connection") == "close"
        await draining

    async def test_requests_under_way_finish(self, direct: DirectPort) -> None:
        port = direct.port
        slow = await Slow.begin(direct)
        draining = asyncio.create_task(direct.drain(0))
        await wait_until(lambda: refuses(port))
        assert not draining.done()
        response = await slow.finish()
        assert response.status_code == 200
        assert response.json()["output"]["ids"] == []
        await draining

    async def test_afterwards_nobody_is_let_in_and_the_port_is_free(self, edge: Edge) -> None:
        async with opened(edge) as direct, client_at(direct) as caller:
            port = direct.port
            assert (await caller.get("/healthz")).status_code == 200
            await direct.drain(0)
            assert not direct.serving
            with pytest.raises(httpx.ConnectError):
                await caller.get("/healthz")
            bind(HOST, port).close()

    async def test_connections_that_wait_for_nothing_do_not_hold_it_up(self, edge: Edge) -> None:
        async with opened(edge, finish_s=600) as direct, client_at(direct) as caller:
            assert (await caller.get("/healthz")).status_code == 200
            reader, writer = await asyncio.open_connection(HOST, direct.port)
            await asyncio.wait_for(direct.drain(0), 5)
            assert await asyncio.wait_for(reader.read(), 5) == b""
            writer.close()
            await writer.wait_closed()

    async def test_who_does_not_finish_is_not_waited_for_without_end(self, shop: Shop) -> None:
        edge = await shop.edge(Limits(timeout_ms=600_000))
        async with opened(edge, finish_s=0.1) as direct:
            slow = await Slow.begin(direct)
            await asyncio.wait_for(direct.drain(0), 10)
            assert (await asyncio.wait_for(slow.answer(), 10)).status_code == 500

    async def test_draining_again_is_a_no_op(self, edge: Edge) -> None:
        async with opened(edge) as direct:
            await direct.drain(0)
            await asyncio.wait_for(direct.drain(0), 5)


def refuses(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex((HOST, port)) != 0


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """What the direct port takes the time from: it stands still until a test moves `now`."""
    made = SimpleNamespace(now=1_000.0)
    made.monotonic = lambda: made.now
    monkeypatch.setattr(module, "time", made)
    return made


class TestLoad:
    async def test_nothing_was_under_way(self, clock: SimpleNamespace, direct: DirectPort) -> None:
        assert direct.average_ongoing() == 0
        clock.now += 10
        assert direct.average_ongoing() == 0

    async def test_what_took_no_time_weighs_nothing(
        self, clock: SimpleNamespace, direct: DirectPort, caller: httpx.AsyncClient
    ) -> None:
        for _ in range(5):
            await caller.get("/healthz")
            clock.now += 1
        assert direct.average_ongoing() == 0

    async def test_within_no_time_it_is_what_is_under_way_now(
        self, clock: SimpleNamespace, direct: DirectPort
    ) -> None:
        slow = [await Slow.begin(direct) for _ in range(3)]
        assert direct.average_ongoing() == 3
        for each in slow:
            await each.finish()
        await wait_until(lambda: direct.average_ongoing() == 0)

    async def test_requests_weigh_as_long_as_they_last(
        self, clock: SimpleNamespace, shop: Shop
    ) -> None:
        metrics = Metrics()
        edge = await shop.edge(Limits(timeout_ms=60_000), metrics=metrics)

        def answered() -> int:
            return metrics.counts(REQUESTS)["flow_run", "direct", "200"]

        async with opened(edge) as direct:
            clock.now += 1  # nobody
            one = await Slow.begin(direct)
            clock.now += 2  # one
            other = await Slow.begin(direct)
            clock.now += 3  # both
            await one.finish()
            await wait_until(lambda: answered() == 1)
            clock.now += 4  # the other
            assert direct.average_ongoing() == pytest.approx((2 + 2 * 3 + 4) / 10)
            clock.now += 1  # still the other
            await other.finish()
            await wait_until(lambda: answered() == 2)
            clock.now += 3  # nobody
            assert direct.average_ongoing() == pytest.approx(1 / 4)
            clock.now += 1
            assert direct.average_ongoing() == 0

    async def test_who_hung_up_weighs_nothing_any_more(
        self, clock: SimpleNamespace, direct: DirectPort
    ) -> None:
        slow = await Slow.begin(direct)
        assert direct.average_ongoing() == 1
        await slow.hang_up()
        await wait_until(lambda: direct.average_ongoing() == 0)
        clock.now += 10
        assert direct.average_ongoing() == 0
