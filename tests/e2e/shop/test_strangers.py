"""Wrong input on every route and at both doors is refused, and breaks nothing."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from kirana.edge.route import Route
from kirana.edge.routes import ROUTES
from kirana.wire import messages_pb2 as pb
from tests.e2e.serving import listening_on
from tests.waiting import wait_for

JSON = {"content-type": "application/json"}
PROTO = {"content-type": "application/x-protobuf"}
ACCEPT = {"accept": "application/x-protobuf"}
GET, PUT = "/v1/features/get", "/v1/features/put"
EVENTS, QUERY = "/v1/interactions", "/v1/interactions/query"
INFER, FLOW = "/v1/infer/ranker", "/v1/flows/for_you"
CLICK = "/v1/catalog/event_type/click"
MEMORY_BYTES = 300 << 20


class Case(NamedTuple):
    """A request, and the status, code and field of the expected error. None allows any field."""

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


def _inferflow(score: str) -> dict[str, Any]:
    models = [{"name": "click", "model": "click_model", "output": "p_click"}]
    context = {"user_id": "user", "product_id": "product"}
    return {
        "context": context,
        "rows": "product_id",
        "features": ["product.stats.ctr"],
        "models": models,
        "score": score,
    }


def _proto_put(block: pb.Block) -> bytes:
    clicks = pb.Block(dtype="int32", shape=[1], data=b"1234")
    keys = {"product_id": pb.Ids(texts=["1"])}
    columns = {"clicks": clicks, "ctr": block}
    return pb.FeaturesPut(group="product.stats", keys=keys, columns=columns).SerializeToString()


def _proto_infer(block: pb.Block) -> bytes:
    user, products = pb.Ids(texts=["7"], one=True), pb.Ids(texts=["1"])
    context = {"user_id": user, "product_id": products}
    return pb.Infer(context=context, inputs={"similar": block}).SerializeToString()


INVALID = "invalid_input"
HUGE = (1 << 32) - 1
EVENT_TYPES = [{"kind": "event_type", "name": f"t{n}"} for n in range(10_000)]
DEEP = b'{"context": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
LARGE = b'{"entity": "' + b"x" * (10 << 20) + b'"}'

CASES = [
    Case("unknown entity", "POST", GET, _get(entity="produkt"), 404, "unknown_entity", "entity"),
    Case("unknown feature", "POST", GET, _get(features=["stats.x"]), 404, "unknown_feature"),
    Case("no feature", "POST", GET, _get(features=[]), 400, INVALID, "features"),
    Case("missing field", "POST", GET, {"entity": "product"}, 400, INVALID, "keys"),
    Case("extra field", "POST", GET, _get(x=1), 400, INVALID, "x"),
    Case("list for a string", "POST", GET, _get(entity=["product"]), 400, INVALID, "entity"),
    Case("string for a list", "POST", GET, _get(features="stats.ctr"), 400, INVALID, "features"),
    Case("null key", "POST", GET, _get(keys={"product_id": [None]}), 400, INVALID),
    Case("float key", "POST", GET, _get(keys={"product_id": [1.5]}), 400, INVALID),
    Case("empty key", "POST", GET, _get(keys={"product_id": [""]}), 400, INVALID, "keys.product_id[0]"),
    Case("no key", "POST", GET, _get(keys={"product_id": []}), 400, INVALID, "keys.product_id"),
    Case("another key", "POST", GET, _get(keys={"id": ["1"]}), 400, INVALID, "keys.id"),
    Case("surrogate key", "POST", GET, b'{"entity":"product","keys":{"product_id":["\\ud800"]},"features":["stats.ctr"]}', 400, "invalid_json"),
    Case("long key", "POST", GET, _get(keys={"product_id": ["x" * 401]}), 413, "too_large", "keys.product_id[0]"),
    Case("many keys", "POST", GET, _get(keys={"product_id": list(range(10_001))}), 413, "too_large", "keys.product_id"),
    Case("unequal lists", "POST", GET, {"entity": "user_category", "keys": {"user_id": ["1", "2"], "category_id": [1]}, "features": ["affinity.clicks"]}, 400, INVALID, "keys.category_id"),
    Case("key out of range", "POST", GET, {"entity": "category", "keys": {"category_id": [1 << 70]}, "features": ["stats.share"]}, 400, INVALID, "keys.category_id[0]"),
    Case("a field twice, of two types", "POST", GET, b'{"entity":"product","keys":{"product_id":[null]},"keys":5,"features":["stats.ctr"]}', 400, INVALID, "keys"),
    Case("true for a key", "POST", GET, _get(keys={"product_id": [True]}), 400, INVALID),
    Case("number of many digits", "POST", GET, b'{"entity":"product","keys":{"product_id":[' + b"9" * 5_000 + b']},"features":["stats.ctr"]}', 400, "invalid_json"),
    Case("key that is not a number", "POST", GET, {"entity": "category", "keys": {"category_id": ["1|2"]}, "features": ["stats.share"]}, 400, INVALID, "keys.category_id[0]"),
    Case("unknown group", "POST", PUT, _put(group="product.x"), 404, "unknown_feature_group", "group"),
    Case("missing column", "POST", PUT, _put(columns={"ctr": [0.5]}), 400, INVALID, "columns.clicks"),
    Case("extra column", "POST", PUT, _put(columns={"clicks": [1], "ctr": [0.5], "x": [1]}), 404, "unknown_feature", "columns.x"),
    Case("unequal columns", "POST", PUT, _put(columns={"clicks": [1, 2], "ctr": [0.5]}), 400, INVALID, "columns.clicks"),
    Case("wrong dtype", "POST", PUT, _put(columns={"clicks": ["1"], "ctr": [0.5]}), 400, INVALID, "columns.clicks[0]"),
    Case("float for an integer", "POST", PUT, _put(columns={"clicks": [1.5], "ctr": [0.5]}), 400, INVALID, "columns.clicks[0]"),
    Case("integer out of range", "POST", PUT, _put(columns={"clicks": [1 << 31], "ctr": [0.5]}), 400, INVALID, "columns.clicks[0]"),
    Case("float out of range", "POST", PUT, _put(columns={"clicks": [1], "ctr": [1e39]}), 400, INVALID, "columns.ctr[0]"),
    Case("bare NaN", "POST", PUT, b'{"group":"product.stats","keys":{"product_id":["1"]},"columns":{"clicks":[1],"ctr":[NaN]}}', 400, "invalid_json"),
    Case("many digits for a float", "POST", PUT, _put(columns={"clicks": [1], "ctr": [10**400]}), 400, INVALID, "columns.ctr[0]"),
    Case("many digits for a time", "POST", PUT, _put(event_time=10**400), 400, INVALID, "event_time"),
    Case("unequal times", "POST", PUT, _put(event_time=[1, 2]), 400, INVALID, "event_time"),
    Case("vector of another shape", "POST", PUT, {"group": "product.similar", "keys": {"product_id": ["1"]}, "columns": {"ids": [[1, [2], 3, 4]], "weights": [[1, 2, 3, 4]]}}, 400, INVALID, "columns.ids[0]"),
    Case("string for a column", "POST", PUT, _put(columns={"clicks": "1", "ctr": [0.5]}), 400, INVALID, "columns.clicks"),
    Case("text that is not an infinity", "POST", PUT, _put(columns={"clicks": [1], "ctr": ["nan"]}), 400, INVALID, "columns.ctr[0]"),
    Case("future", "POST", PUT, _put(event_time=(1 << 52)), 400, INVALID, "event_time"),
    Case("negative time", "POST", PUT, _put(event_time=-1), 400, INVALID, "event_time"),
    Case("unknown version", "POST", PUT, _put(schema_version=9), 400, INVALID, "schema_version"),
    Case("delete without keys", "POST", "/v1/features/delete", {"group": "product.stats", "keys": {}}, 400, INVALID, "keys.product_id"),
    Case("unknown event", "POST", EVENTS, _event(event="klick"), 404, "unknown_event_type", "events[0].event"),
    Case("event without time", "POST", EVENTS, {"events": [{"user_id": "7", "event": "click", "product_id": "1"}]}, 400, INVALID, "events[0].timestamp"),
    Case("time as text", "POST", EVENTS, _event(timestamp="now"), 400, INVALID, "events[0].timestamp"),
    Case("event of the future", "POST", EVENTS, _event(timestamp=1 << 52), 400, INVALID, "events[0].timestamp"),
    Case("no user", "POST", EVENTS, _event(user_id=""), 400, INVALID, "events[0].user_id"),
    Case("metadata as text", "POST", EVENTS, _event(metadata="x"), 400, INVALID, "events[0].metadata"),
    Case("user with NUL", "POST", EVENTS, _event(user_id="a\0b"), 400, INVALID, "events[0].user_id"),
    Case("long user", "POST", EVENTS, _event(user_id="é" * 101), 400, INVALID, "events[0].user_id"),
    Case("user as a list", "POST", EVENTS, _event(user_id=["7"]), 400, INVALID, "events[0].user_id"),
    Case("surrogate user", "POST", EVENTS, b'{"events":[{"user_id":"\\udfff","event":"click","product_id":"1","timestamp":1700000000000}]}', 400, "invalid_json"),
    Case("metadata out of range", "POST", EVENTS, _event(metadata={"x": 1 << 70}), 400, INVALID, "events[0].metadata"),
    Case("deep metadata", "POST", EVENTS, b'{"events":[{"user_id":"7","event":"click","product_id":"1","timestamp":1700000000000,"metadata":{"x":' + b"[" * 500 + b"]" * 500 + b"}}]}", 400, INVALID, "events[0].metadata"),
    Case("no user in the path", "DELETE", "/v1/interactions/", None, 400, INVALID, "user_id"),
    Case("long user in the path", "DELETE", "/v1/interactions/" + "x" * 201, None, 400, INVALID, "user_id"),
    Case("no events", "POST", EVENTS, {"events": []}, 400, INVALID, "events"),
    Case("query of an empty user", "POST", QUERY, {"user_ids": [""], "events": ["click"]}, 400, INVALID, "user_ids[0]"),
    Case("query of a user after repeats", "POST", QUERY, {"user_ids": ["7", "7", ""], "events": ["click"]}, 400, INVALID, "user_ids[2]"),
    Case("query of an unknown type", "POST", QUERY, {"user_ids": ["7"], "events": ["klick"]}, 404, "unknown_event_type", "events[0]"),
    Case("query of text", "POST", QUERY, {"user_ids": "7", "events": ["click"]}, 400, INVALID, "user_ids"),
    Case("query by last and by time", "POST", QUERY, {"user_ids": ["7"], "events": ["click"], "last": 1, "since": 1}, 400, INVALID, "last"),
    Case("query without users", "POST", QUERY, {"user_ids": [], "events": ["click"]}, 400, INVALID, "user_ids"),
    Case("last of 0", "GET", "/v1/interactions/7/click?last=0", None, 400, INVALID, "last"),
    Case("last as text", "GET", "/v1/interactions/7/click?last=x", None, 400, INVALID, "last"),
    Case("last twice", "GET", "/v1/interactions/7/click?last=1&last=2", None, 400, INVALID, "last"),
    Case("last and since", "GET", "/v1/interactions/7/click?last=1&since=2", None, 400, INVALID, "last"),
    Case("since after until", "GET", "/v1/interactions/7/click?since=1700000000005&until=1700000000001", None, 400, INVALID, "since"),
    Case("unknown parameter", "GET", "/v1/interactions/7/click?lasst=1", None, 400, INVALID, "lasst"),
    Case("garbage parameter", "GET", "/v1/interactions/7/click?%ff=%00", None, 400, INVALID),
    Case("path that is not UTF-8", "GET", "/v1/interactions/%ff/click", None, 400, INVALID, "path"),
    Case("slash in a type", "GET", "/v1/interactions/7/cl%2Fick", None, 404, "unknown_event_type", "event"),
    Case("control characters", "GET", "/v1/interactions/7/%00%1b", None, 404, "unknown_event_type", "event"),
    Case("unknown flow", "POST", "/v1/flows/f%25x", {"context": {}}, 404, "unknown_flow"),
    Case("flow without context", "POST", FLOW, {}, 400, INVALID, "context"),
    Case("flow without a user", "POST", FLOW, {"context": {}}, 400, INVALID, "context.user_id"),
    Case("user as true", "POST", FLOW, {"context": {"user_id": True}}, 400, INVALID, "context.user_id"),
    Case("user as an object", "POST", FLOW, {"context": {"user_id": {"a": 1}}}, 400, INVALID, "context.user_id"),
    Case("user as a list", "POST", FLOW, {"context": {"user_id": ["7"]}}, 400, INVALID, "context.user_id"),
    Case("unknown model id", "POST", "/v1/infer/x", _infer(), 404, "unknown_model_id", "model_id"),
    Case("one id for rows", "POST", INFER, {"context": {"user_id": "7", "product_id": "1"}}, 400, INVALID, "context.product_id"),
    Case("rows for one id", "POST", INFER, {"context": {"user_id": ["7"], "product_id": ["1"]}}, 400, INVALID, "context.user_id"),
    Case("extra id", "POST", INFER, {"context": {"user_id": "7", "product_id": ["1"], "x": "1"}}, 400, INVALID, "context.x"),
    Case("number beyond float64", "POST", INFER, b'{"context":{"user_id":"7","product_id":["1"]},"inputs":{"similar":1e999}}', 400, "invalid_json"),
    Case("input out of range", "POST", INFER, _infer(inputs={"similar": 1e300}), 400, INVALID, "inputs.similar"),
    Case("unequal input", "POST", INFER, _infer(inputs={"similar": [1, 2]}), 400, INVALID, "inputs.similar"),
    Case("unknown input", "POST", INFER, _infer(inputs={"x": 1}), 400, INVALID, "inputs.x"),
    Case("top_k of 0", "POST", INFER, _infer(top_k=0), 400, INVALID, "top_k"),
    Case("unknown return", "POST", INFER, _infer(**{"return": ["x"]}), 400, INVALID, "return[0]"),
    Case("deep", "POST", FLOW, DEEP, 400, "invalid_json"),
    Case("large", "POST", GET, LARGE, 413, "too_large"),
    Case("broken JSON", "POST", GET, b'{"entity": ', 400, "invalid_json"),
    Case("no body", "POST", GET, b"", 400, "invalid_json"),
    Case("bytes", "POST", GET, b"\xff\xfe\x00", 400, "invalid_json"),
    Case("a list", "POST", GET, [1], 400, INVALID),
    Case("wrong content type", "POST", GET, b"x=1", 415, "unsupported_media_type", None, {"content-type": "text/plain"}),
    Case("broken Protobuf", "POST", GET, b"\xff\xff", 400, "invalid_protobuf", None, PROTO),
    Case("Protobuf on a JSON route", "POST", FLOW, b"", 415, "unsupported_media_type", None, PROTO),
    Case("empty Protobuf", "POST", GET, b"", 400, INVALID, "features", PROTO),
    Case("shape that does not fit the data", "POST", PUT, pb.FeaturesPut(group="product.stats", keys={"product_id": pb.Ids(texts=["1"])}, columns={"ctr": pb.Block(dtype="float32", shape=[1 << 31, 1 << 31], data=b"1234")}).SerializeToString(), 400, INVALID, "columns.ctr.data", PROTO),
    Case("block without rows", "POST", PUT, _proto_put(pb.Block(dtype="float32", data=b"1234")), 400, INVALID, None, PROTO),
    Case("block of too many dimensions", "POST", PUT, _proto_put(pb.Block(dtype="float32", shape=[1] * 100, data=b"1234")), 400, INVALID, None, PROTO),
    Case("empty block of a huge width", "POST", PUT, _proto_put(pb.Block(dtype="float32", shape=[0, HUGE, HUGE])), 400, INVALID, None, PROTO),
    Case("block of too many strings", "POST", PUT, _proto_put(pb.Block(dtype="string", shape=[HUGE, HUGE])), 400, INVALID, "columns.ctr.lengths", PROTO),
    Case("string that is not UTF-8", "POST", PUT, _proto_put(pb.Block(dtype="string", shape=[1], data=b"\xff", lengths=[1])), 400, INVALID, "columns.ctr[0]", PROTO),
    Case("nulls that don't fit", "POST", PUT, _proto_put(pb.Block(dtype="float32", shape=[1], data=b"1234", nulls=b"\0\0")), 400, INVALID, None, PROTO),
    Case("input of too many dimensions", "POST", INFER, _proto_infer(pb.Block(dtype="float32", shape=[1] * 100, data=b"1234")), 400, INVALID, None, PROTO),
    Case("unequal Protobuf input", "POST", INFER, _proto_infer(pb.Block(dtype="float32", shape=[2], data=b"12341234")), 400, INVALID, "inputs.similar", PROTO),
    Case("text as an input", "POST", INFER, _proto_infer(pb.Block(dtype="string", shape=[1], data=b"a", lengths=[1])), 400, INVALID, "inputs.similar", PROTO),
    Case("'one' without an id", "POST", GET, pb.FeaturesGet(entity="product", keys={"product_id": pb.Ids(one=True)}, features=["stats.ctr"]).SerializeToString(), 400, INVALID, "keys.product_id", PROTO),
    Case("unequal events", "POST", EVENTS, pb.InteractionsPost(types=["click"], events=[0], user_ids=[], product_ids=["1"], timestamps=[1]).SerializeToString(), 400, INVALID, "user_ids", PROTO),
    Case("metadata that is not an object", "POST", EVENTS, pb.InteractionsPost(types=["click"], events=[0], user_ids=["7"], product_ids=["1"], timestamps=[1], metadata=["[" * 100_000]).SerializeToString(), 400, INVALID, "events[0].metadata", PROTO),
    Case("delete of an unknown group in Protobuf", "POST", "/v1/features/delete", pb.FeaturesDelete(group="x").SerializeToString(), 404, "unknown_feature_group", "group", PROTO),
    Case("query without users in Protobuf", "POST", QUERY, pb.InteractionsQuery(events=["click"]).SerializeToString(), 400, INVALID, "user_ids", PROTO),
    Case("unknown type, answer in Protobuf", "GET", "/v1/interactions/7/klick", None, 404, "unknown_event_type", "event", ACCEPT),
    Case("no user, answer in Protobuf", "DELETE", "/v1/interactions/%00", None, 400, INVALID, "user_id", ACCEPT),
    Case("block of an unknown dtype", "POST", INFER, pb.Infer(context={"product_id": pb.Ids(texts=["1"])}, inputs={"similar": pb.Block(dtype="complex64")}).SerializeToString(), 400, INVALID, "inputs.similar.dtype", PROTO),
    Case("texts and numbers", "POST", GET, pb.FeaturesGet(entity="product", keys={"product_id": pb.Ids(texts=["1"], numbers=[1])}).SerializeToString(), 400, INVALID, "keys.product_id", PROTO),
    Case("event with an unknown type", "POST", EVENTS, pb.InteractionsPost(types=[], events=[5], user_ids=["7"], product_ids=["1"], timestamps=[1]).SerializeToString(), 400, INVALID, "events[0].event", PROTO),
    Case("unknown kind", "GET", "/v1/catalog/thing/x", None, 404, "unknown_kind", "kind"),
    Case("unknown object", "GET", "/v1/catalog/entity/x", None, 404, "unknown_entity", "name"),
    Case("object as a list", "PUT", CLICK, {"object": [1]}, 400, INVALID, "object"),
    Case("object of another name", "PUT", CLICK, {"object": {"name": "x"}}, 400, INVALID, "object.name"),
    Case("object with a wrong field", "PUT", CLICK, {"object": {"keep": -1}}, 400, "invalid_catalog", "object.keep"),
    Case("another revision", "PUT", CLICK, {"object": {}, "expected_revision": 999}, 409, "conflict", "expected_revision"),
    Case("model path with NUL", "PUT", "/v1/catalog/model/click_model", {"object": {"path": "a\0b"}}, 400, "invalid_catalog", "object.path"),
    Case("endless model path", "PUT", "/v1/catalog/model/click_model", {"object": {"path": "a" * 5_000}}, 400, "invalid_catalog", "object.path"),
    Case("too many dimensions", "PUT", "/v1/catalog/feature_group/product.far", {"object": {"features": [{"name": "v", "dtype": "float32", "shape": [1] * 100}]}}, 400, "invalid_catalog"),
    Case("ten thousand event types", "POST", "/v1/catalog", {"objects": [*EVENT_TYPES, {"kind": "model", "name": "x", "path": "nowhere"}]}, 400, "invalid_catalog", "objects[10000].path"),
    Case("name with a slash", "PUT", "/v1/catalog/event_type/..%2F..%2Fx", {"object": {}}, 400, "invalid_catalog", "object.name"),
    Case("name with NUL", "PUT", "/v1/catalog/event_type/a%00b", {"object": {}}, 400, "invalid_catalog", "object.name"),
    Case("kind that is a list", "POST", "/v1/catalog", {"objects": [{"kind": [1], "name": {}}]}, 400, "invalid_catalog", "objects[0].kind"),
    Case("deep object", "POST", "/v1/catalog", b'{"objects":[{"kind":"flow","name":"x","graph":' + b"[" * 500 + b"]" * 500 + b"}]}", 400, "invalid_catalog", "objects[0]"),
    Case("endless score", "PUT", "/v1/catalog/inferflow/ranker", {"object": _inferflow("-" * 1_900 + "p_click")}, 400, "invalid_catalog", "object.score"),
    Case("negative history", "GET", "/v1/catalog?history=-1", None, 400, INVALID, "history"),
    Case("revision as text", "DELETE", "/v1/catalog/event_type/click?expected_revision=x", None, 400, INVALID, "expected_revision"),
    Case("revision twice", "DELETE", "/v1/catalog/event_type/click?expected_revision=998&expected_revision=999", None, 400, INVALID, "expected_revision"),
    Case("no objects", "POST", "/v1/catalog", {}, 400, INVALID, "objects"),
    Case("two objects of one name", "POST", "/v1/catalog", {"objects": [{"kind": "event_type", "name": "a"}] * 2}, 400, "invalid_catalog"),
    Case("object that is used", "DELETE", "/v1/catalog/entity/user", None, 400, "invalid_catalog"),
    Case("history as text", "GET", "/v1/catalog?history=all", None, 400, INVALID, "history"),
    Case("bad deadline", "GET", "/healthz", None, 400, INVALID, "x-kirana-timeout-ms", {"x-kirana-timeout-ms": "-1"}),
    Case("no route", "GET", "/v1/nothing", None, 404, "not_found"),
    Case("encoded slash in a route", "GET", "/v1%2Fcatalog", None, 404, "not_found"),
]  # fmt: skip


def _path(route: Route) -> str:
    """Return a valid path for a route, so that only the rest of a request can be wrong."""
    is_catalog = route.name.startswith("catalog")
    values = {"name": "click" if is_catalog else "for_you", "kind": "event_type"}
    values |= {"model_id": "ranker", "user_id": "7", "event": "click"}
    return re.sub(r"\{(.*?)\}", lambda match: values[match[1]], route.template)


def _cases_of_every_route() -> Iterator[Case]:
    """Yield wrong requests to each route: methods, timeouts, queries, bodies and content types."""
    for route in ROUTES:
        method, path = route.method, _path(route)
        for other in sorted(EVERY_METHOD - METHODS[route.template]):
            yield Case(f"{other} {route.name}", other, path, None, 405, "method_not_allowed")
        for wrong in ("0", "600001", "1.5", "x", "", "-1", "9" * 5_000):
            headers = {"x-kirana-timeout-ms": wrong}
            name = f"{route.name} in {wrong[:6]!r} ms"
            yield Case(name, method, path, None, 400, INVALID, "x-kirana-timeout-ms", headers)
        for query, field in WRONG_QUERIES.items() if route.query else ():
            yield Case(
                f"{route.name}?{query}", method, f"{path}?{query}", None, 400, INVALID, field
            )
        if route.request is None:
            continue
        for description, body in NOT_JSON.items():
            yield Case(f"{route.name} of {description}", method, path, body, 400, "invalid_json")
        for text in ("[]", "5", '"x"', "null", "true"):
            yield Case(f"{route.name} of {text}", method, path, text.encode(), 400, INVALID)
        yield Case(
            f"{route.name} with an unknown field", method, path, {"surprise": 1}, 400, INVALID
        )
        yield Case(f"{route.name} of 10 MB", method, path, LARGE, 413, "too_large")
        for kind in ("text/plain", "application/x-www-form-urlencoded", "x", ""):
            headers = {"content-type": kind}
            name = f"{route.name} as {kind!r}"
            yield Case(name, method, path, b"{}", 415, "unsupported_media_type", None, headers)
        for description, body in NOT_PROTO.items():
            status, code = (400, "invalid_protobuf") if route.binary else (415, UNSUPPORTED)
            name = f"{route.name} in Protobuf of {description}"
            yield Case(name, method, path, body, status, code, None, PROTO)


UNSUPPORTED = "unsupported_media_type"
EVERY_METHOD = {"GET", "PUT", "POST", "PATCH", "DELETE", "OPTIONS"}
METHODS = {
    route.template: {other.method for other in ROUTES if other.template == route.template}
    for route in ROUTES
}
# A DELETE of this path removes the events of a user with the id `query`.
METHODS["/v1/interactions/query"].add("DELETE")
WRONG_QUERIES = {
    "x=1": "x",
    "%00=1": "\0",
    "=1": "",
    "%FF=1": None,
    "x" * 5_000 + "=1": None,
}
NOT_JSON = {
    "nothing": b"",
    "half an object": b'{"a": ',
    "bytes": b"\xff\xfe\x00",
    "a byte order mark": b"\xef\xbb\xbf{}",
    "NaN": b"NaN",
    "deep nesting": b"[" * 100_000 + b"]" * 100_000,
    "two objects": b"{}{}",
    "half a surrogate pair": b'{"a": "\\ud800"}',
    "a raw control character": b'{"\x00": 1}',
}
NOT_PROTO = {
    "a field of endless length": b"\x0a\xff\xff\xff\xff\x0f",
    "bytes": b"\xff\xff",
    "JSON": b"{}",
}
EVERYWHERE = list(_cases_of_every_route())


@pytest.fixture(scope="module")
def direct(client: httpx.Client) -> str:
    endpoints = wait_for(lambda: client.get("/v1/endpoints").json()["endpoints"], "a direct port")
    return str(endpoints[0]["url"])


@pytest.fixture(scope="module")
def replica(direct: str) -> psutil.Process:
    return listening_on(direct)


@pytest.fixture(scope="module", params=["front door", "direct port"])
def door(request: pytest.FixtureRequest, client: httpx.Client, direct: str) -> str:
    return direct if request.param == "direct port" else str(client.base_url).rstrip("/")


@pytest.fixture(scope="module", autouse=True)
def unharmed(
    client: httpx.Client, direct: str, replica: psutil.Process, shop_folder: Path
) -> Iterator[None]:
    """Check after all tests that the replica still runs, is healthy, and has logged no traceback.

    Check also that its memory has grown by less than `MEMORY_BYTES`.
    """
    before = replica.memory_info().rss
    yield
    assert replica.is_running()
    assert listening_on(direct).pid == replica.pid
    assert client.get("/healthz").json()["status"] == "ok"
    assert replica.memory_info().rss < before + MEMORY_BYTES
    assert "Traceback" not in (shop_folder / ".kirana" / "kirana.log").read_text()


@pytest.mark.parametrize("case", [*CASES, *EVERYWHERE], ids=lambda case: case.name)
def test_a_wrong_request_is_refused_with_code_message_and_field(door: str, case: Case) -> None:
    raw = isinstance(case.body, bytes)
    content = case.body if raw else None if case.body is None else json.dumps(case.body).encode()
    headers = {**(JSON if content is not None else {}), **case.headers}
    # `raw_path`, because httpx would escape and normalize a path.
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
    """Send raw bytes, and return the reply: all of it, or less if the server disconnects.

    Without `finish`, disconnect and return b"".
    """
    url = httpx.URL(door)
    with socket.create_connection((url.host, url.port or 80), timeout=30) as connection:
        for part in parts:
            # A server that refuses the request may close the connection before all is sent.
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                connection.sendall(part)
                time.sleep(pause_s)
        if not finish:
            return b""
        reply = b""
        with contextlib.suppress(ConnectionResetError):
            while chunk := connection.recv(65_536):
                reply += chunk
                head, gap, body = reply.partition(b"\r\n\r\n")
                if gap and f"content-length: {len(body)}".encode() in head.lower():
                    break
        return reply


def _status(answer: bytes) -> int:
    return int(answer.split(b" ", 2)[1])


def _head(method: str, path: str, *headers: str, kind: str = "application/json") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "host: x", f"content-type: {kind}", *headers]
    return "\r\n".join([*lines, "", ""]).encode()


@pytest.mark.parametrize("binary", [False, True], ids=["JSON", "Protobuf"])
def test_a_slow_body_ends_at_the_deadline(door: str, binary: bool) -> None:
    url = httpx.URL(door)
    routes = [route for route in ROUTES if route.request and (route.binary or not binary)]
    with contextlib.ExitStack() as stack:
        connections = [
            stack.enter_context(socket.create_connection((url.host, url.port or 80), timeout=30))
            for _ in routes
        ]
        for route, connection in zip(routes, connections, strict=True):
            headers = ("x-kirana-timeout-ms: 300", "content-length: 1000")
            kind = (PROTO if binary else JSON)["content-type"]
            connection.sendall(_head(route.method, _path(route), *headers, kind=kind))
        for _ in range(5):
            for connection in connections:
                connection.sendall(b" ")
            time.sleep(0.1)
        for connection in connections:
            answer = connection.recv(65_536)
            assert _status(answer) == 504
            assert b"deadline_exceeded" in answer


def test_a_body_that_never_ends_is_cut_off(door: str) -> None:
    head = b"POST /v1/features/get HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + b" " * 0x10000 + b"\r\n"
    answer = _exchange(door, head, *[chunk] * 160)
    assert answer == b"" or _status(answer) == 413


def test_a_client_that_disconnects_does_not_affect_others(door: str) -> None:
    head = b"POST /v1/features/get HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    for length in (0, 1, 1000):
        _exchange(door, head + b"content-length: 1000\r\n\r\n", b" " * length, finish=False)
    assert httpx.get(f"{door}/openapi.json").status_code == 200


def test_the_trailer_of_a_chunked_body_is_bounded(direct: str) -> None:
    """HAProxy refuses a large trailer. The direct port must not keep one in memory either."""
    head = _head("POST", GET, "transfer-encoding: chunked") + b"1\r\n \r\n0\r\n"
    trailer = b"".join(b"h%d: 1\r\n" % n for n in range(20_000))
    answer = _exchange(direct, head, *[trailer] * 4, b"\r\n")
    assert answer == b"" or _status(answer) in (400, 413), answer[:300]
    if answer:
        assert b"invalid_json" not in answer, "the whole trailer was kept in memory"


GOOD_BODY = b'{"entity":"product","keys":{"product_id":["1"]},"features":["stats.ctr"]}'
LENGTH = f"content-length: {len(GOOD_BODY)}"
CHUNKED = "transfer-encoding: chunked"
PING = "GET /v1/endpoints"
MANY = "".join(f"h{n}: 1\r\n" for n in range(200))

RAW_REQUESTS: dict[str, tuple[bytes, int, int]] = {
    # The bytes to send, and the status at the front door and at the direct port.
    "TLS": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 300, 400, 400),
    "not HTTP": (b"\x16\x03\x01\x00\x00hello\r\n\r\n", 400, 400),
    "no version": (b"GET /\r\n\r\n", 400, 404),
    "a future version": (f"{PING} HTTP/3.7\r\nhost: x\r\n\r\n".encode(), 200, 400),
    "version 1.0": (f"{PING} HTTP/1.0\r\n\r\n".encode(), 200, 200),
    "no host": (f"{PING} HTTP/1.1\r\n\r\n".encode(), 200, 200),
    "lines without CR": (f"{PING} HTTP/1.1\nhost: x\n\n".encode(), 200, 400),
    "space in the path": (b"GET /v1/end points HTTP/1.1\r\nhost: x\r\n\r\n", 400, 400),
    "path of raw UTF-8": ("GET /v1/\u00e9 HTTP/1.1\r\nhost: x\r\n\r\n".encode(), 400, 400),
    "NUL in the path": (b"GET /v1/\x00 HTTP/1.1\r\nhost: x\r\n\r\n", 400, 400),
    "percent without digits": (b"GET /v1/%zz HTTP/1.1\r\nhost: x\r\n\r\n", 404, 404),
    "absolute path": (b"GET http://x/v1/endpoints HTTP/1.1\r\nhost: x\r\n\r\n", 200, 200),
    "asterisk": (b"OPTIONS * HTTP/1.1\r\nhost: x\r\n\r\n", 404, 404),
    "tunnel": (b"CONNECT x:443 HTTP/1.1\r\nhost: x\r\n\r\n", 404, 400),
    "TRACE": (b"TRACE /healthz HTTP/1.1\r\nhost: x\r\n\r\n", 405, 405),
    "HEAD": (b"HEAD /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 405, 405),
    "unknown method": (b"FROB /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 400, 400),
    "method in lower case": (b"get /healthz HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n", 400, 400),
    "header without a colon": (f"{PING} HTTP/1.1\r\nhost: x\r\ny\r\n\r\n".encode(), 400, 400),
    "header with a space": (f"{PING} HTTP/1.1\r\nhost: x\r\na b: c\r\n\r\n".encode(), 400, 400),
    "header with NUL": (f"{PING} HTTP/1.1\r\nhost: x\r\na: \0\r\n\r\n".encode(), 400, 400),
    "header over two lines": (f"{PING} HTTP/1.1\r\nhost: x\r\na: b\r\n c\r\n\r\n".encode(), 200, 400),
    "200 headers": (f"{PING} HTTP/1.1\r\nhost: x\r\n{MANY}\r\n".encode(), 400, 200),
    "path of 12 kB": (b"GET /v1/" + b"a" * 12_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 404, 404),
    "head of 20 kB": (f"{PING} HTTP/1.1\r\nhost: x\r\nx: {'a' * 20_000}\r\n\r\n".encode(), 400, 200),
    "giant header": (f"{PING} HTTP/1.1\r\nhost: x\r\nx: {'a' * 1_000_000}\r\n\r\n".encode(), 400, 400),
    "giant path": (b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n", 400, 400),
    "two lengths": (_head("POST", GET, "content-length: 1", "content-length: 2") + b"x", 400, 400),
    "a length twice": (_head("POST", GET, LENGTH, LENGTH) + GOOD_BODY, 200, 400),
    "negative length": (_head("POST", GET, "content-length: -1"), 400, 400),
    "length with a sign": (_head("POST", GET, "content-length: +1") + b"x", 400, 400),
    "length of many digits": (_head("POST", GET, "content-length: " + "9" * 30), 400, 400),
    "length and chunks": (_head("POST", GET, "content-length: 5", CHUNKED) + b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD_BODY), GOOD_BODY), 200, 400),
    "bad chunk": (_head("POST", GET, CHUNKED) + b"zz\r\n", 400, 400),
    "negative chunk": (_head("POST", GET, CHUNKED) + b"-1\r\n", 400, 400),
    "chunk of many digits": (_head("POST", GET, CHUNKED) + b"f" * 30 + b"\r\n", 400, 400),
    "unknown coding": (_head("POST", GET, "transfer-encoding: x") + GOOD_BODY, 400, 400),
    "two codings": (_head("POST", GET, "transfer-encoding: gzip, chunked") + b"%x\r\n%b\r\n0\r\n\r\n" % (len(GOOD_BODY), GOOD_BODY), 422, 200),
}  # fmt: skip


@pytest.mark.parametrize("name", RAW_REQUESTS)
def test_unusual_http_gets_the_expected_status(door: str, direct: str, name: str) -> None:
    sent, by_front_door, by_direct_port = RAW_REQUESTS[name]
    answer = _exchange(door, sent)
    if not answer and "giant" in name:
        # A server that refuses a request early may reset the connection and lose the reply.
        return
    assert _status(answer) == (by_direct_port if door == direct else by_front_door), answer[:300]
    assert b"Traceback" not in answer


def test_a_request_for_another_protocol_is_not_a_server_error(door: str) -> None:
    for more in (
        [
            "upgrade: websocket",
            "sec-websocket-version: 13",
            "sec-websocket-key: " + "A" * 22 + "==",
        ],
        ["upgrade: h2c", "http2-settings: AAMAAABkAAQAAP__"],
    ):
        lines = ["GET /healthz HTTP/1.1", "host: x", "connection: upgrade", *more]
        answer = _exchange(door, "\r\n".join([*lines, "", ""]).encode())
        assert _status(answer) < 500, answer[:300]


def test_metadata_that_was_accepted_can_be_read(door: str) -> None:
    for depth in range(246, 257):
        user = f"deep{depth}"
        metadata: dict[str, Any] = {}
        for _ in range(depth - 1):
            metadata = {"a": metadata}
        event = _event(user_id=user, metadata=metadata)
        written = httpx.post(door + EVENTS, content=json.dumps(event), headers=JSON)
        if written.status_code == 200:
            single = httpx.get(f"{door}/v1/interactions/{user}/click")
            queried = httpx.post(door + QUERY, json={"user_ids": [user], "events": ["click"]})
            httpx.delete(f"{door}/v1/interactions/{user}")
            assert (single.status_code, queried.status_code) == (200, 200), depth
        else:
            assert written.json()["error"]["field"] == "events[0].metadata"


def test_refused_requests_leave_nothing_in_the_catalog(door: str) -> None:
    listed = httpx.get(f"{door}/v1/catalog").json()
    assert listed["objects"]["event_type"] == ["click", "wishlist"]
    assert listed["revision"] == 1


def test_ids_may_contain_separators_control_characters_and_unicode(door: str) -> None:
    for product in ("a|b", "a\\b", "a/b", "50%", "né 🛒", "\x00\x1b", " ", "a" * 400):
        put = _put(keys={"product_id": [product]})
        reply = httpx.post(door + PUT, json=put)
        assert reply.json() == {"written": 1, "stale": 0, "expired": 0}, reply.text
        content = httpx.post(door + GET, json=_get(keys={"product_id": [product]})).json()
        assert content["status"] == {"stats": ["ok"]}
    for user in ("a/b", "50%", "né 🛒", "a|b"):
        httpx.post(door + EVENTS, json=_event(user_id=user)).raise_for_status()
        quoted = "".join(f"%{byte:02X}" for byte in user.encode())
        url = httpx.URL(door).copy_with(raw_path=f"/v1/interactions/{quoted}/click".encode())
        assert len(httpx.get(url).json()["interactions"]) == 1
