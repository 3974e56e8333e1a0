"""Input from strangers over every route and both doors: refused as documented, nothing breaks."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from kirana.edge.routes import ROUTES
from kirana.wire import messages_pb2 as pb
from tests.e2e.serving import listening_on
from tests.e2e.waiting import wait_for

JSON = {"content-type": "application/json"}
PROTO = {"content-type": "application/x-protobuf"}
GET, PUT = "/v1/features/get", "/v1/features/put"
EVENTS, QUERY = "/v1/interactions", "/v1/interactions/query"
INFER, FLOW = "/v1/infer/ranker", "/v1/flows/for_you"
CLICK = "/v1/catalog/event_type/click"
MEMORY_BYTES = 300 << 20


class Case(NamedTuple):
    """What is sent, and the status, code and field of the refusal (None: any field)."""

    name: str
    method: str
    path: str
    body: Any
    status: int
    code: str
    field: str | None = None
    headers: dict[str, str] = {}


def _get(**changed: Any) -> dict[str, Any]:
    good = {"entity": "product", "keys": {"product_id": ["1"]}, "features": ["stats.ctr"]}
    return {**good, **changed}


def _put(**changed: Any) -> dict[str, Any]:
    columns = {"clicks": [1], "ctr": [0.5]}
    return {"group": "product.stats", "keys": {"product_id": ["1"]}, "columns": columns, **changed}


def _event(**changed: Any) -> dict[str, Any]:
    good = {"user_id": "7", "event": "click", "product_id": "1", "timestamp": 1_700_000_000_000}
    return {"events": [{**good, **changed}]}


def _infer(**changed: Any) -> dict[str, Any]:
    return {"context": {"user_id": "7", "product_id": ["1"]}, **changed}


BAD = "invalid_input"
DEEP = b'{"context": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LARGE = b'{"entity": "' + b"x" * (10 << 20) + b'"}'

CASES = [
    Case("unknown entity", "POST", GET, _get(entity="produkt"), 404, "unknown_entity", "entity"),
    Case("unknown feature", "POST", GET, _get(features=["stats.x"]), 404, "unknown_feature"),
    Case("no feature", "POST", GET, _get(features=[]), 400, BAD, "features"),
    Case("missing field", "POST", GET, {"entity": "product"}, 400, BAD, "keys"),
    Case("extra field", "POST", GET, _get(x=1), 400, BAD, "x"),
    Case("list for a string", "POST", GET, _get(entity=["product"]), 400, BAD, "entity"),
    Case("string for a list", "POST", GET, _get(features="stats.ctr"), 400, BAD, "features"),
    Case("null key", "POST", GET, _get(keys={"product_id": [None]}), 400, BAD),
    Case("float key", "POST", GET, _get(keys={"product_id": [1.5]}), 400, BAD),
    Case("empty key", "POST", GET, _get(keys={"product_id": [""]}), 400, BAD, "keys.product_id[0]"),
    Case("no key", "POST", GET, _get(keys={"product_id": []}), 400, BAD, "keys.product_id"),
    Case("another key", "POST", GET, _get(keys={"id": ["1"]}), 400, BAD, "keys.id"),
    Case("surrogate key", "POST", GET, b'{"entity":"product","keys":{"product_id":["\\ud800"]},"features":["stats.ctr"]}', 400, "invalid_json"),
    Case("long key", "POST", GET, _get(keys={"product_id": ["x" * 401]}), 413, "too_large", "keys.product_id[0]"),
    Case("many keys", "POST", GET, _get(keys={"product_id": list(range(10_001))}), 413, "too_large", "keys.product_id"),
    Case("unequal lists", "POST", GET, {"entity": "user_category", "keys": {"user_id": ["1", "2"], "category_id": [1]}, "features": ["affinity.clicks"]}, 400, BAD, "keys.category_id"),
    Case("key out of range", "POST", GET, {"entity": "category", "keys": {"category_id": [1 << 70]}, "features": ["stats.share"]}, 400, BAD, "keys.category_id[0]"),
    Case("key that is no number", "POST", GET, {"entity": "category", "keys": {"category_id": ["1|2"]}, "features": ["stats.share"]}, 400, BAD, "keys.category_id[0]"),
    Case("unknown group", "POST", PUT, _put(group="product.x"), 404, "unknown_feature_group", "group"),
    Case("missing column", "POST", PUT, _put(columns={"ctr": [0.5]}), 400, BAD, "columns.clicks"),
    Case("extra column", "POST", PUT, _put(columns={"clicks": [1], "ctr": [0.5], "x": [1]}), 404, "unknown_feature", "columns.x"),
    Case("unequal columns", "POST", PUT, _put(columns={"clicks": [1, 2], "ctr": [0.5]}), 400, BAD, "columns.clicks"),
    Case("wrong dtype", "POST", PUT, _put(columns={"clicks": ["1"], "ctr": [0.5]}), 400, BAD, "columns.clicks[0]"),
    Case("float for an integer", "POST", PUT, _put(columns={"clicks": [1.5], "ctr": [0.5]}), 400, BAD, "columns.clicks[0]"),
    Case("integer out of range", "POST", PUT, _put(columns={"clicks": [1 << 31], "ctr": [0.5]}), 400, BAD, "columns.clicks[0]"),
    Case("float out of range", "POST", PUT, _put(columns={"clicks": [1], "ctr": [1e39]}), 400, BAD, "columns.ctr[0]"),
    Case("bare NaN", "POST", PUT, b'{"group":"product.stats","keys":{"product_id":["1"]},"columns":{"clicks":[1],"ctr":[NaN]}}', 400, "invalid_json"),
    Case("future", "POST", PUT, _put(event_time=(1 << 52)), 400, BAD, "event_time"),
    Case("negative time", "POST", PUT, _put(event_time=-1), 400, BAD, "event_time"),
    Case("unknown version", "POST", PUT, _put(schema_version=9), 400, BAD, "schema_version"),
    Case("delete of nothing", "POST", "/v1/features/delete", {"group": "product.stats", "keys": {}}, 400, BAD, "keys.product_id"),
    Case("unknown event", "POST", EVENTS, _event(event="klick"), 404, "unknown_event_type", "events[0].event"),
    Case("event without time", "POST", EVENTS, {"events": [{"user_id": "7", "event": "click", "product_id": "1"}]}, 400, BAD, "events[0].timestamp"),
    Case("time as text", "POST", EVENTS, _event(timestamp="now"), 400, BAD, "events[0].timestamp"),
    Case("event of the future", "POST", EVENTS, _event(timestamp=1 << 52), 400, BAD, "events[0].timestamp"),
    Case("no user", "POST", EVENTS, _event(user_id=""), 400, BAD, "events[0].user_id"),
    Case("metadata as text", "POST", EVENTS, _event(metadata="x"), 400, BAD, "events[0].metadata"),
    Case("no events", "POST", EVENTS, {"events": []}, 400, BAD, "events"),
    Case("query without users", "POST", QUERY, {"user_ids": [], "events": ["click"]}, 400, BAD, "user_ids"),
    Case("last of nothing", "GET", "/v1/interactions/7/click?last=0", None, 400, BAD, "last"),
    Case("last as text", "GET", "/v1/interactions/7/click?last=x", None, 400, BAD, "last"),
    Case("last twice", "GET", "/v1/interactions/7/click?last=1&last=2", None, 400, BAD, "last"),
    Case("last and since", "GET", "/v1/interactions/7/click?last=1&since=2", None, 400, BAD, "last"),
    Case("since after until", "GET", "/v1/interactions/7/click?since=5&until=1", None, 400, BAD, "since"),
    Case("unknown parameter", "GET", "/v1/interactions/7/click?lasst=1", None, 400, BAD, "lasst"),
    Case("garbage parameter", "GET", "/v1/interactions/7/click?%ff=%00", None, 400, BAD),
    Case("path that is not UTF-8", "GET", "/v1/interactions/%ff/click", None, 400, BAD, "path"),
    Case("slash in a type", "GET", "/v1/interactions/7/cl%2Fick", None, 404, "unknown_event_type", "event"),
    Case("control characters", "GET", "/v1/interactions/7/%00%1b", None, 404, "unknown_event_type", "event"),
    Case("unknown flow", "POST", "/v1/flows/f%25x", {"context": {}}, 404, "unknown_flow"),
    Case("flow without context", "POST", FLOW, {}, 400, BAD, "context"),
    Case("flow without a user", "POST", FLOW, {"context": {}}, 400, BAD, "context.user_id"),
    Case("user as a list", "POST", FLOW, {"context": {"user_id": ["7"]}}, 400, BAD, "context.user_id"),
    Case("unknown model id", "POST", "/v1/infer/x", _infer(), 404, "unknown_model_id", "model_id"),
    Case("one id for rows", "POST", INFER, {"context": {"user_id": "7", "product_id": "1"}}, 400, BAD, "context.product_id"),
    Case("rows for one id", "POST", INFER, {"context": {"user_id": ["7"], "product_id": ["1"]}}, 400, BAD, "context.user_id"),
    Case("extra id", "POST", INFER, {"context": {"user_id": "7", "product_id": ["1"], "x": "1"}}, 400, BAD, "context.x"),
    Case("unequal input", "POST", INFER, _infer(inputs={"similar": [1, 2]}), 400, BAD, "inputs.similar"),
    Case("unknown input", "POST", INFER, _infer(inputs={"x": 1}), 400, BAD, "inputs.x"),
    Case("top of nothing", "POST", INFER, _infer(top_k=0), 400, BAD, "top_k"),
    Case("unknown return", "POST", INFER, _infer(**{"return": ["x"]}), 400, BAD, "return[0]"),
    Case("deep", "POST", FLOW, DEEP, 400, "invalid_json"),
    Case("large", "POST", GET, LARGE, 413, "too_large"),
    Case("broken JSON", "POST", GET, b'{"entity": ', 400, "invalid_json"),
    Case("no body", "POST", GET, b"", 400, "invalid_json"),
    Case("bytes", "POST", GET, b"\xff\xfe\x00", 400, "invalid_json"),
    Case("a list", "POST", GET, [1], 400, BAD),
    Case("wrong content type", "POST", GET, b"x=1", 415, "unsupported_media_type", None, {"content-type": "text/plain"}),
    Case("broken Proto3", "POST", GET, b"\xff\xff", 400, "invalid_protobuf", None, PROTO),
    Case("Proto3 on a JSON route", "POST", FLOW, b"", 415, "unsupported_media_type", None, PROTO),
    Case("empty Proto3", "POST", GET, b"", 404, "unknown_entity", "entity", PROTO),
    Case("block that lies", "POST", PUT, pb.FeaturesPut(group="product.stats", keys={"product_id": pb.Ids(texts=["1"])}, columns={"ctr": pb.Block(dtype="float32", shape=[1 << 31, 1 << 31], data=b"1234")}).SerializeToString(), 400, BAD, "columns.ctr.data", PROTO),
    Case("block of no dtype", "POST", INFER, pb.Infer(context={"product_id": pb.Ids(texts=["1"])}, inputs={"similar": pb.Block(dtype="complex64")}).SerializeToString(), 400, BAD, "inputs.similar.dtype", PROTO),
    Case("texts and numbers", "POST", GET, pb.FeaturesGet(entity="product", keys={"product_id": pb.Ids(texts=["1"], numbers=[1])}).SerializeToString(), 400, BAD, "keys.product_id", PROTO),
    Case("event of no type", "POST", EVENTS, pb.InteractionsPost(types=[], events=[5], user_ids=["7"], product_ids=["1"], timestamps=[1]).SerializeToString(), 400, BAD, "events[0].event", PROTO),
    Case("unknown kind", "GET", "/v1/catalog/thing/x", None, 404, "unknown_kind", "kind"),
    Case("unknown object", "GET", "/v1/catalog/entity/x", None, 404, "unknown_entity", "name"),
    Case("object as a list", "PUT", CLICK, {"object": [1]}, 400, BAD, "object"),
    Case("object of another name", "PUT", CLICK, {"object": {"name": "x"}}, 400, BAD, "object.name"),
    Case("object with a wrong field", "PUT", CLICK, {"object": {"keep": -1}}, 400, "invalid_catalog", "object.keep"),
    Case("another revision", "PUT", CLICK, {"object": {}, "expected_revision": 999}, 409, "conflict", "expected_revision"),
    Case("no objects", "POST", "/v1/catalog", {}, 400, BAD, "objects"),
    Case("two of a name", "POST", "/v1/catalog", {"objects": [{"kind": "event_type", "name": "a"}] * 2}, 400, "invalid_catalog"),
    Case("object that is used", "DELETE", "/v1/catalog/entity/user", None, 400, "invalid_catalog"),
    Case("history as text", "GET", "/v1/catalog?history=all", None, 400, BAD, "history"),
    Case("bad deadline", "GET", "/healthz", None, 400, BAD, "x-kirana-timeout-ms", {"x-kirana-timeout-ms": "-1"}),
    Case("no route", "GET", "/v1/nothing", None, 404, "not_found"),
    Case("encoded slash in a route", "GET", "/v1%2Fcatalog", None, 404, "not_found"),
]  # fmt: skip
WRONG_METHOD = [
    Case(f"PATCH {route.template}", "PATCH", route.template.replace("{", "").replace("}", ""),
         None, 405, "method_not_allowed")
    for route in ROUTES
]  # fmt: skip


@pytest.fixture(scope="module")
def direct(client: httpx.Client) -> str:
    found = wait_for(lambda: client.get("/v1/endpoints").json()["endpoints"], "a direct port")
    return str(found[0]["url"])


@pytest.fixture(scope="module")
def replica(direct: str) -> psutil.Process:
    return listening_on(direct)


@pytest.fixture(scope="module", params=["front door", "direct port"])
def door(request: pytest.FixtureRequest, client: httpx.Client, direct: str) -> str:
    return direct if request.param == "direct port" else str(client.base_url).rstrip("/")


@pytest.fixture(scope="module", autouse=True)
def unharmed(client: httpx.Client, replica: psutil.Process, shop_folder: Path) -> Iterator[None]:
    """After all that: the same process, no larger, healthy, and no trace in its log."""
    before = replica.memory_info().rss
    yield
    assert replica.is_running()
    assert client.get("/healthz").json()["status"] == "ok"
    assert replica.memory_info().rss < before + MEMORY_BYTES
    assert "Traceback" not in (shop_folder / ".kirana" / "kirana.log").read_text()


@pytest.mark.parametrize("case", [*CASES, *WRONG_METHOD], ids=lambda case: case.name)
def test_it_is_refused_with_code_message_and_field(door: str, case: Case) -> None:
    raw = isinstance(case.body, bytes)
    content = case.body if raw else None if case.body is None else json.dumps(case.body).encode()
    headers = {**(JSON if content is not None else {}), **case.headers}
    # httpx would escape and normalize the path: what is sent is what stands here
    url = httpx.URL(door).copy_with(raw_path=case.path.encode())
    reply = httpx.request(case.method, url, content=content, headers=headers, timeout=30)
    assert reply.status_code == case.status, reply.text[:500]
    error = reply.json()["error"]
    assert set(error) == {"code", "message", "field"}
    assert error["code"] == case.code
    assert error["message"]
    assert "Traceback" not in error["message"]
    if case.field is not None:
        assert error["field"] == case.field


def _exchange(door: str, *parts: bytes, pause_s: float = 0.0, finish: bool = True) -> bytes:
    """Send bytes as they are; return all that comes back until the other side is done."""
    url = httpx.URL(door)
    with socket.create_connection((url.host, url.port or 80), timeout=30) as connection:
        for part in parts:
            # what refuses may close before all was sent
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(part)
                time.sleep(pause_s)
        if not finish:
            return b""
        found = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65_536):
                found += chunk
                head, gap, body = found.partition(b"\r\n\r\n")
                if gap and f"content-length: {len(body)}".encode() in head.lower():
                    break
        return found


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def test_an_endless_slow_body_is_bounded_in_time(door: str) -> None:
    head = b"POST /v1/features/get HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += b"x-kirana-timeout-ms: 300\r\ncontent-length: 1000\r\n\r\n"
    answer = _exchange(door, head, *[b" "] * 5, pause_s=0.1)
    assert _status(answer) == 504
    assert b"deadline_exceeded" in answer


def test_a_body_that_never_ends_is_cut_off(door: str) -> None:
    head = b"POST /v1/features/get HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = _exchange(door, head, *[chunk] * 160)
    assert answer == b"" or _status(answer) == 413


def test_a_client_that_hangs_up_harms_nobody(door: str) -> None:
    head = b"POST /v1/features/get HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for length in (0, 1, 1000):
        _exchange(door, head + b"content-length: 1000\r\n\r\n", b" " * length, finish=False)
    assert httpx.get(f"{door}/openapi.json").status_code == 200


BEFORE_US = {
    "no HTTP": (b"\x16\x03\x01\x00\x00hello\r\n\r\n", {400}),
    "no version": (b"GET /\r\n\r\n", {400, 404}),
    "giant header": (b"GET /healthz HTTP/1.1\r\nhost: x\r\nx: " + b"a" * 1_000_000 + b"\r\n\r\n", {400}),
    "two lengths": (b"POST /v1/features/get HTTP/1.1\r\nhost: x\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nx", {400}),
    "negative length": (b"POST /v1/features/get HTTP/1.1\r\nhost: x\r\ncontent-length: -1\r\n\r\n", {400}),
    "bad chunk": (b"POST /v1/features/get HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n", {400}),
}  # fmt: skip


@pytest.mark.parametrize("name", BEFORE_US)
def test_what_is_no_request_is_answered_before_us(door: str, name: str) -> None:
    sent, statuses = BEFORE_US[name]
    answer = _exchange(door, sent)
    assert answer == b"" or _status(answer) in statuses, answer[:300]


def test_ids_may_hold_whatever_is_unicode(door: str) -> None:
    for product in ("a|b", "a\\b", "a/b", "50%", "né 🛒", "\x00\x1b", " ", "a" * 400):
        put = _put(keys={"product_id": [product]})
        reply = httpx.post(door + PUT, json=put)
        assert reply.json() == {"written": 1, "stale": 0}, reply.text
        found = httpx.post(door + GET, json=_get(keys={"product_id": [product]})).json()
        assert found["status"] == {"stats": ["ok"]}
    for user in ("a/b", "50%", "né 🛒", "a|b"):
        httpx.post(door + EVENTS, json=_event(user_id=user)).raise_for_status()
        quoted = "".join(f"%{byte:02X}" for byte in user.encode())
        url = httpx.URL(door).copy_with(raw_path=f"/v1/interactions/{quoted}/click".encode())
        assert len(httpx.get(url).json()["interactions"]) == 1
