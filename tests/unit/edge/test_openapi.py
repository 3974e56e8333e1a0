"""`/openapi.json`: the contract that the routes are tested against."""

from __future__ import annotations

import re
from typing import Any

import httpx
import pytest

from kirana.edge.routes import ROUTES
from tests.unit.edge.conftest import refused


@pytest.fixture
async def document(client: httpx.AsyncClient) -> dict[str, Any]:
    response = await client.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    content: dict[str, Any] = response.json()
    return content


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """Return the method, path and description of every operation."""
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def references(value: Any) -> list[str]:
    """Return every `$ref` within a value."""
    if isinstance(value, dict):
        own = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return own + [reference for part in value.values() for reference in references(part)]
    if isinstance(value, list):
        return [reference for part in value for reference in references(part)]
    return []


def schema_of(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    """Return the schema of the JSON body of an operation."""
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    schema: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return schema


async def test_every_route_is_described_once(document: dict[str, Any]) -> None:
    described = [(method.upper(), path) for method, path, _ in operations(document)]
    assert sorted(described) == sorted((route.method, route.template) for route in ROUTES)
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


async def test_every_described_route_exists(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    for method, path, _ in operations(document):
        response = await client.request(method, re.sub(r"\{.*?\}", "unknown", path), json={})
        if response.status_code in (404, 405):
            assert response.json()["error"]["code"] not in ("not_found", "method_not_allowed")


async def test_every_reference_resolves(document: dict[str, Any]) -> None:
    paths = references(document)
    assert paths
    for reference in paths:
        target: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in target, reference
            target = target[step]


async def test_parameters_match_the_path_and_the_query(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        in_path = [
            parameter["name"] for parameter in operation["parameters"] if parameter["in"] == "path"
        ]
        assert in_path == re.findall(r"\{(.*?)\}", path)
    get = document["paths"]["/v1/interactions/{user_id}/{event}"]["get"]
    query = [parameter["name"] for parameter in get["parameters"] if parameter["in"] == "query"]
    assert query == ["last", "since", "until", "limit"]


async def test_every_described_query_parameter_is_accepted(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    get = document["paths"]["/v1/interactions/{user_id}/{event}"]["get"]
    for parameter in get["parameters"]:
        if parameter["in"] == "query":
            is_time = parameter["name"] in ("since", "until")
            query = {parameter["name"]: 1_700_000_000_000 if is_time else 1}
            response = await client.get("/v1/interactions/7/click", params=query)
            assert response.status_code == 200


async def test_an_empty_body_and_an_unknown_field_are_refused(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    for method, path, operation in operations(document):
        if "requestBody" not in operation:
            continue
        schema = schema_of(document, operation)
        url = re.sub(r"\{.*?\}", "unknown", path).replace("unknown/unknown", "flow/unknown")
        refusal = await refused(client, method, url, {})
        required = schema.get("required") or ["objects"]
        assert refusal == (400, "invalid_input", required[0])
        assert schema["additionalProperties"] is False
        refusal = await refused(client, method, url, {"surprise": 1})
        assert refusal[:2] == (400, "invalid_input")


async def test_fields_have_the_names_that_clients_send(document: dict[str, Any]) -> None:
    schemas = document["components"]["schemas"]
    assert set(schemas["Infer"]["properties"]) == {"context", "inputs", "top_k", "return"}
    assert schemas["FeaturesPut"]["required"] == ["group", "keys", "columns"]


async def test_errors_are_described_as_they_are_sent(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    error = document["components"]["schemas"]["ErrorBody"]
    sent = (await client.get("/nowhere")).json()["error"]
    assert set(sent) == set(error["properties"]) == set(error["required"])
    for _, _, operation in operations(document):
        assert set(operation["responses"]) - {"202"} == {"200", "4XX", "5XX"}
