"""The ASGI application: routes, bodies, deadlines, metrics, and work off the event loop."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from kirana.admission import ALWAYS_WAITING
from kirana.catalog.objects import ModelObject
from kirana.catalog.revisions import LiveRevision
from kirana.edge import Edge, Limits, Resources, app
from kirana.edge.app import REQUEST_SECONDS, REQUESTS
from kirana.edge.asgi import FRONT_DOOR, AsgiEdge
from kirana.edge.route import Route
from kirana.edge.routes import ROUTES
from kirana.errors import KiranaError
from kirana.flow import FlowRequest, FlowResult
from kirana.inferflow.engine import InferflowService
from kirana.lmdb.environment import open_environment
from kirana.metrics import Metrics
from kirana.models.copies import ModelCopies
from kirana.models.loaded import LoadedModel, LoadedModels
from kirana.models.registry import ModelRegistry
from kirana.request import RequestContext
from kirana.revision import Revision
from tests.busy_threads import busy_threads
from tests.support import Shop
from tests.unit.edge.conftest import client_of, refused

Message = dict[str, Any]
Headers = Sequence[tuple[bytes, bytes]]
POSTS = [route.template for route in ROUTES if route.method == "POST"]
FLOW = "/v1/flows/for_you"
BODY = b'{"context": {"user_id": "7"}}'
TIMEOUT = "x-kirana-timeout-ms"
SENT_MS = 1_700_000_000_000


def filled(template: str) -> str:
    """Return the path of a POST route with its parameters filled in."""
    return template.replace("{name}", "for_you").replace("{model_id}", "ranker")


async def never() -> Message:
    """Wait forever, like a client that sends nothing more."""
    await asyncio.Event().wait()
    raise AssertionError("unreachable")


@dataclass
class Exchange:
    """One raw ASGI call.

    The edge receives `messages`, and then those that `then` returns. `sent` has the messages that
    the edge sent.
    """

    messages: list[Message]
    then: Callable[[], Awaitable[Message]] = never
    sent: list[Message] = field(default_factory=list)
    received: int = 0

    async def receive(self) -> Message:
        if self.received < len(self.messages):
            self.received += 1
            return self.messages[self.received - 1]
        return await self.then()

    async def send(self, message: Any) -> None:
        self.sent.append(message)

    @property
    def status(self) -> int:
        return int(self.sent[0]["status"])

    @property
    def headers(self) -> dict[bytes, bytes]:
        return dict(self.sent[0]["headers"])

    @property
    def error(self) -> Any:
        return self.body["error"]

    @property
    def body(self) -> Any:
        assert [message["type"] for message in self.sent] == [
            "http.response.start",
            "http.response.body",
        ]
        raw = self.sent[1]["body"]
        assert self.headers[b"content-length"] == str(len(raw)).encode()
        return json.loads(raw)


async def exchange(
    edge: Edge,
    messages: list[Message],
    *,
    method: str = "POST",
    path: str = FLOW,
    headers: Headers = (),
    door: str = FRONT_DOOR,
    **scope: Any,
) -> Exchange:
    """Call the edge with these ASGI messages, and return what it sent."""
    call = Exchange(messages)
    whole_scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "headers": headers,
        **scope,
    }
    async with asyncio.timeout(30):
        await AsgiEdge(edge, door=door)(whole_scope, call.receive, call.send)
    return call


def chunk(body: bytes, more: bool = False) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


class TestRoutes:
    @pytest.mark.parametrize(
        "path",
        ["/", "", "/v1", "/v1/", "/v2/models", "/v1/features", "/v1/features/get/", "/healthz/",
         "//healthz", "/V1/features/get", "/v1/flows", "/v1/flows/a/b", "/healthz%2F"],
    )  # fmt: skip
    async def test_an_unknown_route_is_not_found(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        assert await refused(client, "GET", path) == (404, "not_found", None)

    @pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS", "BREW"])
    @pytest.mark.parametrize("path", POSTS)
    async def test_a_wrong_method_is_refused_with_the_allowed_methods(
        self, client: httpx.AsyncClient, method: str, path: str
    ) -> None:
        allowed = {"POST"}
        if path == "/v1/interactions/query":
            allowed.add("DELETE")  # forgets the user whose id is "query"
        if path == "/v1/catalog":
            allowed.add("GET")
        if method in allowed:
            return
        response = await client.request(method, filled(path))
        assert response.status_code == 405
        assert set(response.headers["allow"].split(", ")) == allowed
        assert response.json()["error"]["code"] == "method_not_allowed"

    async def test_routes_match_the_raw_path(self, edge: Edge) -> None:
        event = {"user_id": "a/b", "event": "click", "product_id": "1", "timestamp": SENT_MS}
        post = json.dumps({"events": [event]}).encode()
        assert (await exchange(edge, [chunk(post)], path="/v1/interactions")).status == 200
        reply = await exchange(
            edge, [chunk(b"")], method="GET", path="/v1/interactions/a/b/click",
            raw_path=b"/v1/interactions/a%2Fb/click",
        )  # fmt: skip
        assert [click["product_id"] for click in reply.body["interactions"]] == ["1"]

    async def test_a_percent_sign_is_decoded_once(self, edge: Edge) -> None:
        event = {"user_id": "%41", "event": "click", "product_id": "1", "timestamp": SENT_MS}
        post = json.dumps({"events": [event]}).encode()
        assert (await exchange(edge, [chunk(post)], path="/v1/interactions")).status == 200
        reply = await exchange(
            edge, [chunk(b"")], method="GET", path="/v1/interactions/%41/click",
            raw_path=b"/v1/interactions/%2541/click",
        )  # fmt: skip
        assert len(reply.body["interactions"]) == 1

    @pytest.mark.parametrize("user", ["é", "%41"])
    async def test_without_a_raw_path_the_path_is_not_decoded_again(
        self, edge: Edge, user: str
    ) -> None:
        """`raw_path` is optional in ASGI, and `path` is already decoded."""
        event = {"user_id": user, "event": "click", "product_id": "1", "timestamp": SENT_MS}
        post = json.dumps({"events": [event]}).encode()
        assert (await exchange(edge, [chunk(post)], path="/v1/interactions")).status == 200
        path = f"/v1/interactions/{user}/click"
        reply = await exchange(edge, [chunk(b"")], method="GET", path=path, raw_path=None)
        assert len(reply.body["interactions"]) == 1

    async def test_a_mount_below_a_root_path_serves_the_same_routes(self, edge: Edge) -> None:
        reply = await exchange(
            edge, [chunk(b"")], method="GET", path="/shop/healthz", root_path="/shop"
        )
        assert reply.status == 200

    async def test_a_path_that_is_not_utf8_is_refused(self, edge: Edge) -> None:
        reply = await exchange(
            edge, [chunk(BODY)], path="/v1/flows/x", raw_path=b"/v1/flows/%ff%fe"
        )
        assert (reply.status, reply.error["field"]) == (400, "path")


class TestBodies:
    async def test_a_body_in_chunks_is_one_body(self, edge: Edge) -> None:
        pieces = [chunk(BODY[i : i + 1], more=True) for i in range(len(BODY))]
        assert (await exchange(edge, [*pieces, chunk(b"")])).status == 200

    async def test_messages_may_omit_fields_with_defaults(self, edge: Edge) -> None:
        messages = [{"type": "http.request", "more_body": True}, chunk(BODY, more=True)]
        assert (await exchange(edge, [*messages, {"type": "http.request"}])).status == 200

    @pytest.mark.parametrize(
        "before", [[], [chunk(BODY[:5], more=True)]], ids=["before the body", "within the body"]
    )
    async def test_a_client_that_disconnected_gets_no_reply(
        self, edge: Edge, before: list[Message]
    ) -> None:
        reply = await exchange(edge, [*before, {"type": "http.disconnect"}])
        assert reply.sent == []

    async def test_a_body_of_exactly_the_limit_is_accepted(self, shop: Shop) -> None:
        edge = await shop.edge(Limits(max_body_bytes=len(BODY)))
        length = [(b"content-length", str(len(BODY)).encode())]
        assert (await exchange(edge, [chunk(BODY)], headers=length)).status == 200
        halves = [chunk(BODY[:9], more=True), chunk(BODY[9:])]
        assert (await exchange(edge, halves)).status == 200

    async def test_a_body_with_too_large_a_content_length_is_not_read(self, shop: Shop) -> None:
        edge = await shop.edge(Limits(max_body_bytes=20))
        reply = await exchange(edge, [chunk(BODY)], headers=[(b"content-length", b"21")])
        assert (reply.status, reply.error["code"], reply.received) == (413, "too_large", 0)

    @pytest.mark.parametrize("length", [b"9" * 30, b"9" * 5000], ids=len)
    async def test_a_huge_content_length_is_too_large(self, edge: Edge, length: bytes) -> None:
        reply = await exchange(edge, [chunk(BODY)], headers=[(b"content-length", length)])
        assert (reply.status, reply.error["code"]) == (413, "too_large")

    @pytest.mark.parametrize("length", [b"many", b"", b"-1", b"0000000000000000029"])
    async def test_an_invalid_content_length_causes_no_internal_error(
        self, edge: Edge, length: bytes
    ) -> None:
        reply = await exchange(edge, [chunk(BODY)], headers=[(b"content-length", length)])
        assert reply.status in (200, 400)

    async def test_a_body_is_refused_as_soon_as_it_exceeds_the_limit(self, shop: Shop) -> None:
        """The edge does not wait for the rest, which the client may never send."""
        edge = await shop.edge(Limits(max_body_bytes=20, timeout_ms=2_000))
        for pieces in (
            [chunk(b" " * 21)],
            [chunk(b" " * 11, more=True), chunk(b" " * 10, more=True)],
            [chunk(b" " * 21, more=True)],
        ):
            reply = await exchange(edge, pieces)
            assert (reply.status, reply.error["code"]) == (413, "too_large"), pieces

    async def test_a_request_whose_body_does_not_arrive_ends_at_its_deadline(
        self, edge: Edge
    ) -> None:
        headers = [(TIMEOUT.encode(), b"5")]
        for pieces in ([], [chunk(BODY[:5], more=True)]):
            reply = await exchange(edge, pieces, headers=headers)
            assert (reply.status, reply.error["code"]) == (504, "deadline_exceeded")
            assert reply.error["message"] == "no answer in 5 ms"

    async def test_the_default_timeout_applies_without_a_header(self, shop: Shop) -> None:
        reply = await exchange(await shop.edge(Limits(timeout_ms=5)), [])
        assert (reply.status, reply.error["message"]) == (504, "no answer in 5 ms")

    @pytest.mark.parametrize(
        "value",
        ["0", "-1", "600001", "soon", "1.5", "", " 5", "٣", "9" * 5000],
        ids=lambda v: v[:9],
    )
    async def test_an_invalid_timeout_is_refused(self, edge: Edge, value: str) -> None:
        headers = [(TIMEOUT.encode(), value.encode())]
        reply = await exchange(edge, [chunk(BODY)], headers=headers)
        assert (reply.status, reply.error["code"], reply.error["field"]) == (
            400,
            "invalid_input",
            TIMEOUT,
        )

    async def test_the_longest_timeout_is_accepted(self, edge: Edge) -> None:
        headers = [(TIMEOUT.encode(), b"600000")]
        assert (await exchange(edge, [chunk(BODY)], headers=headers)).status == 200

    @pytest.mark.parametrize(
        "kind",
        ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x",
         "application/jsonp", "", "application/json-seq"],
    )  # fmt: skip
    @pytest.mark.parametrize("path", POSTS)
    async def test_another_content_type_is_refused(
        self, client: httpx.AsyncClient, path: str, kind: str
    ) -> None:
        headers = {"content-type": kind}
        refusal = await refused(client, "POST", filled(path), content=BODY, headers=headers)
        assert refusal == (415, "unsupported_media_type", None)

    @pytest.mark.parametrize(
        "kind",
        ["application/json", "Application/JSON", "application/json; charset=utf-8",
         "application/json ;charset=utf-8", None],
    )  # fmt: skip
    async def test_the_json_content_type_may_have_parameters_or_be_left_out(
        self, client: httpx.AsyncClient, kind: str | None
    ) -> None:
        headers = {} if kind is None else {"content-type": kind}
        response = await client.post(FLOW, content=BODY, headers=headers)
        assert response.status_code == 200


INVALID_JSON = {
    "empty": b"",
    "cut short": BODY[:-1],
    "two values": BODY + b" {}",
    "single quotes": BODY.replace(b'"', b"'"),
    "a comment": BODY + b" // hello",
    "a trailing comma": BODY + b",",
    "latin-1": BODY.replace(b"7", b"\xe9"),
    "UTF-16": BODY.decode().encode("utf-16"),
    "a byte order mark": b"\xef\xbb\xbf" + BODY,
    "NUL": b"\0",
}


class TestJson:
    @pytest.mark.parametrize("body", INVALID_JSON.values(), ids=INVALID_JSON.keys())
    async def test_invalid_json_is_refused(self, client: httpx.AsyncClient, body: bytes) -> None:
        refusal = await refused(client, "POST", FLOW, content=body)
        assert refusal == (400, "invalid_json", None)

    @pytest.mark.parametrize("path", POSTS)
    async def test_an_empty_body_is_invalid_json(
        self, client: httpx.AsyncClient, path: str
    ) -> None:
        refusal = await refused(client, "POST", filled(path))
        assert refusal == (400, "invalid_json", None)

    @pytest.mark.parametrize("path", POSTS)
    @pytest.mark.parametrize("body", [b"[]", b"null", b"1", b'"text"', b"true"])
    async def test_json_that_is_not_an_object_is_refused(
        self, client: httpx.AsyncClient, path: str, body: bytes
    ) -> None:
        refusal = await refused(client, "POST", filled(path), content=body)
        assert refusal == (400, "invalid_input", None)

    @pytest.mark.parametrize("path", POSTS)
    @pytest.mark.parametrize("opened", [b"[", b'{"a":', b'{"context":{"a":' + b"[", b'{"keys":['])
    async def test_extremely_deep_nesting_is_refused(
        self, client: httpx.AsyncClient, path: str, opened: bytes
    ) -> None:
        body = opened + b"[" * 100_000 + b"]" * 100_000
        status, code, _ = await refused(client, "POST", filled(path), content=body)
        assert status == 400
        assert code in ("invalid_json", "invalid_input")

    @pytest.mark.parametrize(
        "literal",
        [b"NaN", b"Infinity", b"-Infinity", b"1e999", b"-1e999", b'"\\ud800"', b'"\\udc00"',
         b"0x10", b"01", b"+1", b".5", b"9" * 5000],
        ids=lambda literal: literal[:10].decode(),
    )  # fmt: skip
    async def test_invalid_json_literals_are_refused_within_values_too(
        self, client: httpx.AsyncClient, literal: bytes
    ) -> None:
        bodies = {
            "/v1/features/put": b'{"group": "product.stats", "keys": {"product_id": "1"}, '
            b'"columns": {"clicks": [1], "ctr": [%s]}}',
            "/v1/features/get": b'{"entity": "product", "keys": {"product_id": [%s]}, '
            b'"features": ["stats.ctr"]}',
            "/v1/interactions": b'{"events": [{"user_id": "7", "event": "click", '
            b'"product_id": "1", "timestamp": 1700000000000, "metadata": {"a": %s}}]}',
            "/v1/interactions/query": b'{"user_ids": [%s], "events": ["click"]}',
            FLOW: b'{"context": {"user_id": %s}}',
            "/v1/infer/ranker": b'{"context": {"user_id": "7", "product_id": ["1"]}, '
            b'"inputs": {"similar": %s}}',
        }
        for path, body in bodies.items():
            status, _, _ = await refused(client, "POST", path, content=body % literal)
            assert status == 400, path

    @pytest.mark.parametrize("body", [{"context": {"user_id": 10**400}}, {"context": {"a": 2**64}}])
    async def test_an_id_beyond_64_bits_is_refused(
        self, client: httpx.AsyncClient, body: Any
    ) -> None:
        status, _, field_path = await refused(client, "POST", FLOW, body)
        assert (status, field_path) == (400, "context.user_id")

    async def test_an_unknown_name_is_quoted_in_the_message(
        self, client: httpx.AsyncClient
    ) -> None:
        name = 'a"b\\c\n\0é🛒'
        body = {"entity": name, "keys": {}, "features": ["a.b"]}
        response = await client.post("/v1/features/get", json=body)
        assert response.status_code == 404
        assert name in response.json()["error"]["message"]


class Failing:
    """A flow runner that raises `error`."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def prepare(self, revision: Revision) -> None:
        pass

    async def run(self, request: FlowRequest, context: RequestContext) -> FlowResult:
        raise self.error


class TestErrors:
    @staticmethod
    async def edge_with(shop: Shop, flows: Failing) -> Edge:
        live = LiveRevision(shop.source, [])
        await live.start()
        parts = shop.served(flows=flows)
        return Edge(Resources(parts, live, shop.source))

    async def test_an_internal_error_reveals_no_details(
        self, shop: Shop, caplog: pytest.LogCaptureFixture
    ) -> None:
        edge = await self.edge_with(shop, Failing(ZeroDivisionError("secret")))
        reply = await exchange(edge, [chunk(BODY)])
        assert (reply.status, reply.error["code"]) == (500, "internal")
        assert "secret" not in reply.error["message"]
        assert "secret" in caplog.text

    async def test_an_error_whose_text_is_not_utf8_is_still_answered(self, shop: Shop) -> None:
        """The name of a file or the reply of a store may contain a lone surrogate."""
        edge = await self.edge_with(shop, Failing(KiranaError("caf\udce9 is gone")))
        assert (await exchange(edge, [chunk(BODY)])).status == 500

    async def test_lifespan_messages_are_acknowledged(self, edge: Edge) -> None:
        call = Exchange([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        await AsgiEdge(edge)({"type": "lifespan"}, call.receive, call.send)
        assert [message["type"] for message in call.sent] == [
            "lifespan.startup.complete",
            "lifespan.shutdown.complete",
        ]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
async def counted(shop: Shop, metrics: Metrics) -> Edge:
    return await shop.edge(Limits(max_body_bytes=1_000), metrics=metrics)


class TestMetrics:
    @pytest.mark.parametrize(
        ("method", "path", "body", "route", "status"),
        [
            ("GET", "/healthz", b"", "healthz", 200),
            ("POST", FLOW, BODY, "flow_run", 200),
            ("POST", "/v1/flows/another", BODY, "flow_run", 404),
            ("POST", FLOW, b"{", "flow_run", 400),
            ("POST", FLOW, b" " * 1_001, "flow_run", 413),
            ("GET", "/v1/interactions/7/click", b"", "interactions_get", 200),
            ("GET", "/v1/interactions/7/click?last=x", b"", "interactions_get", 400),
            ("GET", "/v1/endpoints", b"", "endpoints", 200),
            ("GET", "/nothing", b"", "none", 404),
            ("GET", FLOW, b"", "none", 405),
            ("GET", "/%ff", b"", "none", 400),
        ],
    )
    async def test_a_request_is_counted_by_route_door_and_status(
        self, counted: Edge, metrics: Metrics,
        method: str, path: str, body: bytes, route: str, status: int,
    ) -> None:  # fmt: skip
        async with client_of(counted) as client:
            response = await client.request(method, path, content=body)
        assert response.status_code == status
        assert metrics.counts(REQUESTS) == {(route, "serve", str(status)): 1}
        assert set(metrics.buckets(REQUEST_SECONDS)) == {(route, "serve")}

    @pytest.mark.parametrize("route", ROUTES, ids=lambda route: route.name)
    async def test_every_route_is_counted_under_its_name(
        self, counted: Edge, metrics: Metrics, route: Route
    ) -> None:
        path = filled(route.template).replace("{user_id}", "7").replace("{event}", "click")
        async with client_of(counted) as client:
            await client.request(route.method, path, content=b"")
        ((name, _, _),) = metrics.counts(REQUESTS)
        assert name == route.name

    async def test_requests_are_counted_by_route_and_not_by_path(
        self, counted: Edge, metrics: Metrics
    ) -> None:
        async with client_of(counted) as client:
            for i in range(20):
                await client.get(f"/{i}")
                await client.get(f"/v1/interactions/{i}/click")
        assert metrics.counts(REQUESTS) == {
            ("none", "serve", "404"): 20,
            ("interactions_get", "serve", "200"): 20,
        }

    async def test_requests_are_counted_under_the_door_that_the_server_names(
        self, counted: Edge, metrics: Metrics
    ) -> None:
        await exchange(counted, [chunk(BODY)], door="direct")
        assert metrics.counts(REQUESTS) == {("flow_run", "direct", "200"): 1}
        assert set(metrics.buckets(REQUEST_SECONDS)) == {("flow_run", "direct")}

    @pytest.mark.parametrize(
        "before", [[], [chunk(BODY[:5], more=True)]], ids=["before the body", "within the body"]
    )
    async def test_a_client_that_disconnected_is_counted_too(
        self, counted: Edge, metrics: Metrics, before: list[Message]
    ) -> None:
        await exchange(counted, [*before, {"type": "http.disconnect"}])
        assert metrics.counts(REQUESTS) == {("flow_run", "serve", "499"): 1}

    async def test_a_client_that_disconnects_while_its_request_waits_is_counted(
        self, counted: Edge, metrics: Metrics
    ) -> None:
        async with busy_threads():
            reply = await exchange(counted, [chunk(BODY), {"type": "http.disconnect"}])
            assert reply.sent == []
            assert metrics.counts(REQUESTS) == {("flow_run", "serve", "499"): 1}

    async def test_a_request_that_timed_out_is_counted_in_its_bucket(
        self, counted: Edge, metrics: Metrics
    ) -> None:
        await exchange(counted, [], headers=[(TIMEOUT.encode(), b"30")])
        assert metrics.counts(REQUESTS) == {("flow_run", "serve", "504"): 1}
        (buckets,) = metrics.buckets(REQUEST_SECONDS).values()
        assert sum(buckets[REQUEST_SECONDS.bounds.index(0.05) :]) == sum(buckets) == 1

    async def test_an_internal_error_is_counted(self, shop: Shop, metrics: Metrics) -> None:
        live = LiveRevision(shop.source, [])
        await live.start()
        flows = Failing(ZeroDivisionError("secret"))
        parts = shop.served(flows=flows)
        edge = Edge(Resources(parts, live, shop.source), metrics=metrics)
        await exchange(edge, [chunk(BODY)])
        assert metrics.counts(REQUESTS) == {("flow_run", "serve", "500"): 1}

    async def test_lifespan_and_websocket_scopes_are_not_counted(
        self, counted: Edge, metrics: Metrics
    ) -> None:
        call = Exchange([{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}])
        await AsgiEdge(counted)({"type": "lifespan"}, call.receive, call.send)
        await AsgiEdge(counted)({"type": "websocket", "path": FLOW}, call.receive, call.send)
        assert metrics.counts(REQUESTS) == {}


class TestOngoing:
    async def test_requests_whose_bodies_are_too_large_together_do_not_wait(
        self, edge: Edge, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(app, "MAX_WAITING_BYTES", len(BODY) + 5)
        async with busy_threads() as threads, client_of(edge) as client:
            calls = [asyncio.create_task(client.post(FLOW, content=BODY)) for _ in range(2)]
            (refused_call,), (waiting,) = await asyncio.wait(
                calls, return_when=asyncio.FIRST_COMPLETED
            )
            response = refused_call.result()
            assert response.status_code == 503
            assert "the requests that wait" in response.json()["error"]["message"]
            await threads.release()
            assert (await waiting).status_code == 200
            assert (await client.post(FLOW, content=BODY)).status_code == 200

    async def test_requests_over_max_ongoing_are_refused(
        self, shop: Shop, metrics: Metrics
    ) -> None:
        edge = await shop.edge(Limits(max_ongoing=2), metrics=metrics)
        reading = asyncio.Semaphore(0)

        async def body_that_never_comes() -> Message:
            reading.release()
            return await never()

        scope = {
            "type": "http", "method": "POST", "path": FLOW, "query_string": b"", "headers": [],
        }  # fmt: skip
        calls = [AsgiEdge(edge)(scope, body_that_never_comes, Exchange([]).send) for _ in range(2)]
        waiting = [asyncio.create_task(call) for call in calls]
        for _ in waiting:
            await asyncio.wait_for(reading.acquire(), 10)
        async with client_of(edge) as client:
            response = await client.post(FLOW, content=BODY)
            assert response.headers["retry-after"] == "1"
            assert await refused(client, "POST", FLOW, content=BODY) == (503, "overloaded", None)
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
            assert (await client.post(FLOW, content=BODY)).status_code == 200
        assert metrics.counts(REQUESTS) == {
            ("flow_run", "serve", "503"): 2,
            ("flow_run", "serve", "499"): 2,
            ("flow_run", "serve", "200"): 1,
        }


class WatchedModels(LoadedModels):
    """Models that record which threads load them."""

    def __init__(self, root: Path) -> None:
        super().__init__(ModelCopies(root))
        self.threads: set[int] = set()

    def load(self, model: ModelObject) -> LoadedModel:
        self.threads.add(threading.get_ident())
        return super().load(model)


class TestLoop:
    async def test_concurrent_calls_succeed_and_writes_to_lmdb_run_off_the_loop(
        self, tmp_path: Path, edge: Edge
    ) -> None:
        """Send 200 calls, as many at a time as may always wait, and record which threads write."""
        now_ms = int(time.time() * 1000)

        def put(i: int) -> tuple[str, Any]:
            keys, columns = {"product_id": str(i)}, {"clicks": [i], "ctr": [0.5]}
            return "/v1/features/put", {"group": "product.stats", "keys": keys, "columns": columns}

        def event(i: int) -> tuple[str, Any]:
            click = {"user_id": "7", "event": "click", "product_id": i, "timestamp": now_ms - i}
            return "/v1/interactions", {"events": [click]}

        def read(i: int) -> tuple[str, Any]:
            keys = {"product_id": [str(key) for key in range(50)]}
            body = {"entity": "product", "keys": keys, "features": ["stats.ctr"]}
            return "/v1/features/get", body

        def flow(i: int) -> tuple[str, Any]:
            return FLOW, {"context": {"user_id": "7"}}

        data = tmp_path / "shop/.kirana/data"
        environments = [open_environment(data / name) for name in ("features", "interactions")]
        writers: set[int] = set()

        def record_thread(transaction: Any) -> None:
            writers.add(threading.get_ident())

        places = asyncio.Semaphore(ALWAYS_WAITING)
        async with client_of(edge) as client:

            async def post(path: str, body: Any) -> httpx.Response:
                async with places:
                    return await client.post(path, json=body)

            calls = [make(i) for i in range(50) for make in (put, event, read, flow)]
            responses = await asyncio.gather(
                *(post(path, body) for path, body in calls),
                *(
                    environment.write(record_thread)
                    for environment in environments
                    for _ in range(20)
                ),
            )
            assert {reply.status_code for reply in responses if reply is not None} == {200}
            assert len(writers) == 2
            assert threading.get_ident() not in writers
            path, body = read(0)
            reply = (await client.post(path, json=body)).json()
            assert reply["status"] == {"stats": ["ok"] * 50}
            clicks = (await client.get("/v1/interactions/7/click?last=100")).json()
            assert len(clicks["interactions"]) == 50
        for environment in environments:
            environment.close()

    async def test_models_are_loaded_off_the_loop(self, shop: Shop, tmp_path: Path) -> None:
        watched = WatchedModels(tmp_path / "shop/models")
        models = ModelRegistry(watched, shop.source)
        inferflow = InferflowService(shop.features, models, shop.source)
        live = LiveRevision(shop.source, [shop.features])
        await live.start()
        parts = shop.served(inferflow=inferflow)
        edge = Edge(Resources(parts, live, shop.source))
        body = {"context": {"user_id": "7", "product_id": ["1"]}}
        async with client_of(edge) as client:
            calls = [client.post("/v1/infer/ranker", json=body) for _ in range(10)]
            assert {response.status_code for response in await asyncio.gather(*calls)} == {200}
        assert watched.threads
        assert threading.get_ident() not in watched.threads

    async def test_a_long_read_in_a_thread_does_not_block_the_loop(
        self, tmp_path: Path, edge: Edge
    ) -> None:
        """A small read is answered while a read in a thread is in progress."""
        environment = open_environment(tmp_path / "shop/.kirana/data/features")
        reading, answered = threading.Event(), threading.Event()

        def read(transaction: Any) -> bool:
            reading.set()
            return answered.wait(1)  # False if the event loop is blocked

        long_read = asyncio.create_task(asyncio.to_thread(environment.read, read))
        await asyncio.to_thread(reading.wait)
        body = {"entity": "product", "keys": {"product_id": "1"}, "features": ["stats.ctr"]}
        async with client_of(edge) as client:
            assert (await client.post("/v1/features/get", json=body)).status_code == 200
        answered.set()
        blocked = not await long_read
        environment.close()
        assert not blocked
