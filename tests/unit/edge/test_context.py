"""The headers of a request as parts receive them, and clients that disconnect."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx
import numpy as np
import pytest

from kirana.catalog.revisions import LiveRevision
from kirana.doors.direct import DirectPort
from kirana.edge import Edge, Resources
from kirana.edge.app import REQUESTS
from kirana.edge.disconnect import WATCHED_AFTER_S
from kirana.errors import Unavailable
from kirana.flow import FlowRequest, FlowResult
from kirana.flow.values import Candidates
from kirana.metrics import Metrics
from kirana.request import RequestContext, current_id
from kirana.revision import Revision
from kirana.serving.preflight import bind
from tests.support import Shop
from tests.unit.edge.conftest import client_of, refused
from tests.waiting import wait_until

FLOW = "/v1/flows/for_you"
BODY = {"context": {"user_id": "7"}}
TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@dataclass
class Flows:
    """A flow runner that records its contexts, and answers once `may_answer` is set."""

    may_answer: asyncio.Event = field(default_factory=asyncio.Event)
    contexts: list[RequestContext] = field(default_factory=list)
    cancelled: int = 0
    error: Exception | None = None

    async def prepare(self, revision: Revision) -> None:
        pass

    async def run(self, request: FlowRequest, context: RequestContext) -> FlowResult:
        self.contexts.append(context)
        try:
            await self.may_answer.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.error is not None:
            logging.getLogger("kirana.flow").warning("%s", current_id.get())
            raise self.error
        return FlowResult(Candidates(["1"], {"score": np.ones(1, dtype=np.float32)}))


@pytest.fixture
def flows() -> Flows:
    runner = Flows()
    runner.may_answer.set()
    return runner


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def edge(shop: Shop, flows: Flows, metrics: Metrics) -> Edge:
    live = LiveRevision(shop.source, [])
    await live.start()
    parts = shop.served(flows=flows)
    return Edge(Resources(parts, live, shop.source), metrics=metrics)


@pytest.fixture
async def client(edge: Edge) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(edge) as opened:
        yield opened


class TestHeaders:
    async def test_a_part_gets_the_values_of_the_headers(
        self, client: httpx.AsyncClient, flows: Flows, shop: Shop
    ) -> None:
        headers = {
            "x-request-id": "from-the-gateway",
            "x-kirana-caller": "storefront",
            "x-kirana-timeout-ms": "2000",
            "traceparent": TRACE,
        }
        reply = await client.post(FLOW, json=BODY, headers=headers)
        (context,) = flows.contexts
        assert (context.id, context.caller, context.traceparent) == (
            "from-the-gateway",
            "storefront",
            TRACE,
        )
        assert 1.0 < context.left_s() <= 2.0
        assert (context.revision, context.priority) == (shop.revision, "shopper")
        assert reply.headers["x-request-id"] == "from-the-gateway"

    async def test_a_request_without_an_id_gets_a_new_one(
        self, client: httpx.AsyncClient, flows: Flows
    ) -> None:
        replies = [await client.post(FLOW, json=BODY) for _ in range(2)]
        ids = [context.id for context in flows.contexts]
        assert [reply.headers["x-request-id"] for reply in replies] == ids
        assert len({*ids}) == 2

    @pytest.mark.parametrize("path", [FLOW, "/nothing", "/v1/features/get"])
    async def test_every_reply_has_the_id(self, client: httpx.AsyncClient, path: str) -> None:
        reply = await client.post(path, json=BODY, headers={"x-request-id": "mine"})
        assert reply.headers["x-request-id"] == "mine"

    @pytest.mark.parametrize("header", ["x-request-id", "x-kirana-caller"])
    @pytest.mark.parametrize("value", ["a b", "x" * 129, "caf\xe9"])
    async def test_an_invalid_request_id_or_caller_is_refused(
        self, client: httpx.AsyncClient, flows: Flows, header: str, value: str
    ) -> None:
        sent = {header: value.encode("latin-1")}
        refusal = await refused(client, "POST", FLOW, BODY, headers=sent)
        assert refusal == (400, "invalid_input", header)
        assert flows.contexts == []

    @pytest.mark.parametrize("value", ["", "00-1-2-01", TRACE.upper(), f"{TRACE}-more"])
    async def test_an_invalid_traceparent_is_ignored(
        self, client: httpx.AsyncClient, flows: Flows, value: str
    ) -> None:
        await client.post(FLOW, json=BODY, headers={"traceparent": value})
        assert flows.contexts[0].traceparent == ""

    async def test_a_log_line_has_the_request_id(
        self, client: httpx.AsyncClient, flows: Flows, caplog: pytest.LogCaptureFixture
    ) -> None:
        flows.error = Unavailable("down")
        reply = await client.post(FLOW, json=BODY, headers={"x-request-id": "mine"})
        assert reply.status_code == 503
        assert [record.message for record in caplog.records if record.name == "kirana.flow"] == [
            "mine"
        ]


class TestDisconnect:
    @pytest.fixture
    async def direct(self, edge: Edge) -> AsyncIterator[DirectPort]:
        port = DirectPort(edge, bind("127.0.0.1", 0), finish_s=5.0)
        await port.started()
        yield port
        await port.drain(0)

    @pytest.fixture
    async def writer(self, direct: DirectPort, flows: Flows) -> AsyncIterator[asyncio.StreamWriter]:
        """Yield a connection whose request waits in the flow runner."""
        flows.may_answer.clear()
        _, writer = await asyncio.open_connection("127.0.0.1", direct.port)
        body = b'{"context": {"user_id": "7"}}'
        head = f"POST {FLOW} HTTP/1.1\r\nhost: shop\r\ncontent-length: {len(body)}\r\n\r\n"
        writer.write(head.encode() + body)
        await wait_until(lambda: len(flows.contexts) == 1)
        yield writer
        writer.close()

    async def test_the_work_for_a_client_that_disconnected_is_cancelled(
        self, writer: asyncio.StreamWriter, flows: Flows, metrics: Metrics
    ) -> None:
        writer.close()
        await wait_until(lambda: flows.cancelled == 1)
        await wait_until(lambda: metrics.counts(REQUESTS) == {("flow_run", "direct", "499"): 1})

    async def test_a_client_that_waits_gets_its_reply(
        self, writer: asyncio.StreamWriter, flows: Flows, metrics: Metrics
    ) -> None:
        await asyncio.sleep(WATCHED_AFTER_S * 2)
        flows.may_answer.set()
        await wait_until(lambda: metrics.counts(REQUESTS) == {("flow_run", "direct", "200"): 1})
        assert flows.cancelled == 0
