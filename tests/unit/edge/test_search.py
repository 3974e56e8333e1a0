"""Requests drawn from `/openapi.json`: every reply must keep to the documented contract."""

from __future__ import annotations

import asyncio
import copy
import json
import re
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from kirana.edge.openapi import openapi_document
from kirana.edge.routes import ROUTES
from tests.support import open_shop, publish, write_shop
from tests.unit.edge.conftest import client_of

DOCUMENT: dict[str, Any] = orjson.loads(openapi_document(ROUTES))
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in DOCUMENT["paths"].items()
    for method, operation in methods.items()
]
NAMES = [operation["operationId"] for _, _, operation in OPERATIONS]
OPERATIONS_PAGE = (Path(__file__).parents[3] / "docs" / "operations.md").read_text()
EXAMPLES = 40
SENT_MS = 1_700_000_000_000

GOOD: dict[str, Any] = {
    "features_get": {"entity": "product", "keys": {"product_id": ["1"]}, "features": ["stats.ctr"]},
    "features_put": {
        "group": "product.stats",
        "keys": {"product_id": ["1"]},
        "columns": {"clicks": [1], "ctr": [0.5]},
        "event_time": SENT_MS,
    },
    "features_delete": {"group": "product.stats", "keys": {"product_id": ["1"]}},
    "interactions_post": {
        "events": [{"user_id": "7", "event": "click", "product_id": "1", "timestamp": SENT_MS}]
    },
    "interactions_query": {"user_ids": ["7"], "events": ["click"], "last": 3},
    "flow_run": {"context": {"user_id": "7"}, "trace": True},
    "infer": {
        "context": {"user_id": "7", "product_id": ["1", "2"]},
        "inputs": {"similar": 0.5},
        "top_k": 1,
        "return": ["outputs", "matrix"],
    },
    "catalog_put": {"object": {"keep": 7}, "expected_revision": 1},
    "catalog_post": {"objects": [{"kind": "event_type", "name": "cart"}], "delete": []},
}
PATH_PARAMETERS = {"name": "for_you", "model_id": "ranker", "kind": "event_type", "user_id": "7"}
PATH_PARAMETERS_OF_AREA = {"catalog": {"name": "click"}, "interactions": {"event": "click"}}
"""Further parameters, by the area of the operation: the first word of its id."""


def _whole(reference: dict[str, Any]) -> dict[str, Any]:
    """Return a schema together with the components that it refers to."""
    text = json.dumps({**reference, "components": DOCUMENT["components"]})
    schema: dict[str, Any] = json.loads(text)
    return schema


def _request_schema(operation: dict[str, Any]) -> dict[str, Any] | None:
    if "requestBody" not in operation:
        return None
    return _whole(operation["requestBody"]["content"]["application/json"]["schema"])


def _reply_schema(operation: dict[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = operation["responses"]["200"]["content"]["application/json"]["schema"]
    return schema


@cache
def _reply_validator(operation: str) -> Draft202012Validator:
    schema = _whole(_reply_schema(OPERATIONS[NAMES.index(operation)][2]))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@asynccontextmanager
async def _shop() -> AsyncIterator[httpx.AsyncClient]:
    with tempfile.TemporaryDirectory() as temporary:
        folder = write_shop(Path(temporary) / "shop")
        publish(folder)
        opened = open_shop(folder)
        try:
            async with client_of(await opened.edge()) as client:
                yield client
        finally:
            await opened.close()


class Prober:
    """A shop that serves all examples of a test, on its own event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._context = _shop()
        self._client = self._loop.run_until_complete(self._context.__aenter__())

    def close(self) -> None:
        self._loop.run_until_complete(self._context.__aexit__(None, None, None))
        self._loop.close()

    def probe(self, operation: dict[str, Any], method: str, path: str, body: Any) -> int:
        """Send a request, check its reply against the contract, and return its status."""
        content = None if body is None else json.dumps(body).encode()
        headers = {"content-type": "application/json"}
        call = self._client.request(method, path, content=content, headers=headers)
        reply = self._loop.run_until_complete(call)
        content_of_reply = reply.json()
        assert reply.status_code < 500, content_of_reply
        if reply.status_code == 200:
            _reply_validator(operation["operationId"]).validate(content_of_reply)
            return 200
        assert list(content_of_reply) == ["error"]
        error = content_of_reply["error"]
        assert set(error) == {"code", "message", "field"}
        assert isinstance(error["message"], str)
        assert error["message"]
        assert f"`{error['code']}`" in OPERATIONS_PAGE, error
        return reply.status_code


@pytest.fixture
def prober() -> Iterator[Prober]:
    shared = Prober()
    yield shared
    shared.close()


def _filled(operation: str, path: str, parameters: dict[str, str] | None = None) -> str:
    """Return a path with its parameters filled in: with `parameters`, else with known names."""
    area = operation.partition("_")[0]
    values = {**PATH_PARAMETERS, **PATH_PARAMETERS_OF_AREA.get(area, {}), **(parameters or {})}
    return re.sub(r"\{(.*?)\}", lambda match: quote(values[match[1]], safe=""), path)


def _fitting(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return a strategy for values of a JSON schema.

    It supports the keywords that Kirana's schemas use for types, but not those for bounds.
    """
    if "$ref" in schema:
        return _fitting(DOCUMENT["components"]["schemas"][schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of([_fitting(part) for part in schema["anyOf"]])
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind == "array":
        return st.lists(_fitting(schema.get("items", {})), max_size=4)
    if kind == "object" and "properties" in schema:
        parts = {name: _fitting(part) for name, part in schema["properties"].items()}
        required = {name: parts.pop(name) for name in schema.get("required", [])}
        return st.fixed_dictionaries(required, optional=parts)
    if kind == "object":
        inner = schema.get("additionalProperties", {})
        keys = st.sampled_from(WORDS) | st.text(max_size=6)
        return st.dictionaries(keys, _fitting(inner if isinstance(inner, dict) else {}), max_size=3)
    return LEAVES.get(str(kind), ANYTHING)


WORDS = [
    *("product", "user", "stats.ctr", "product.stats", "product_id", "user_id", "clicks", "ctr"),
    *("click", "for_you", "ranker", "similar", "outputs", "matrix", "event_type", "kind", "name"),
]
"""Words that valid requests to the shop contain. Random text alone would seldom be valid."""

SEARCH = settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


LEAVES: dict[str, st.SearchStrategy[Any]] = {
    "string": st.sampled_from(WORDS) | st.text(max_size=8),
    "integer": st.integers(-3, 3) | st.integers() | st.integers(SENT_MS, SENT_MS + 3),
    "number": st.floats(allow_nan=False, allow_infinity=False),
    "boolean": st.booleans(),
    "null": st.none(),
}


@pytest.mark.parametrize("index", range(len(OPERATIONS)), ids=NAMES)
def test_a_body_with_the_types_of_its_schema_gets_a_documented_reply(
    prober: Prober, index: int
) -> None:
    method, path, operation = OPERATIONS[index]
    schema = _request_schema(operation)
    bodies: st.SearchStrategy[Any] = st.none() if schema is None else _fitting(schema)
    segment = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable())
    queries = st.dictionaries(
        st.sampled_from(["last", "since", "until", "limit", "history", "expected_revision", "x"]),
        st.integers(-5, 1 << 60).map(str) | st.text(max_size=4),
        max_size=2,
    )

    @SEARCH
    @given(bodies, st.booleans(), segment, segment, queries)
    def search(
        body: Any, random_segments: bool, first: str, second: str, query: dict[str, str]
    ) -> None:
        names = re.findall(r"\{(.*?)\}", path)
        parameters = dict(zip(names, (first, second), strict=False)) if random_segments else {}
        url = _filled(operation["operationId"], path, parameters)
        if method in ("GET", "DELETE") and query:
            url += f"?{httpx.QueryParams(query)}"
        prober.probe(operation, method, url, body)

    search()


@pytest.mark.parametrize("name", GOOD)
def test_a_good_body_with_one_value_changed_gets_a_documented_reply(
    prober: Prober, name: str
) -> None:
    method, path, operation = OPERATIONS[NAMES.index(name)]
    url = _filled(name, path)
    value_paths = list(_paths(GOOD[name]))

    @SEARCH
    @given(st.sampled_from(value_paths), ANYTHING)
    def search(value_path: tuple[str | int, ...], value: Any) -> None:
        body = copy.deepcopy(GOOD[name])
        container: Any = body
        for step in value_path[:-1]:
            container = container[step]
        container[value_path[-1]] = value
        prober.probe(operation, method, url, body)

    assert prober.probe(operation, method, url, GOOD[name]) == 200
    search()


def _paths(value: Any, *above: str | int) -> Iterator[tuple[str | int, ...]]:
    """Yield the path to every value in a body."""
    if above:
        yield above
    steps: list[str | int] = []
    if isinstance(value, dict):
        steps = list(value)
    elif isinstance(value, list):
        steps = list(range(len(value)))
    for step in steps:
        yield from _paths(value[step], *above, step)


def test_every_operation_has_a_reply_schema() -> None:
    for _, _, operation in OPERATIONS:
        assert _reply_schema(operation)["$ref"]
