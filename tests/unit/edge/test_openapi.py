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
    found: dict[str, Any] = response.json()
    return found


def operations(document: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    ]


def references(value: Any) -> list[str]:
    if isinstance(value, dict):
        here = [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        return here + [each for part in value.values() for each in references(part)]
    if isinstance(value, list):
        return [each for part in value for each in references(part)]
    return []


def schema_of(document: dict[str, Any], operation: dict[str, Any]) -> dict[str, Any]:
    reference = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"]
    found: dict[str, Any] = document["components"]["schemas"][reference.rpartition("/")[2]]
    return found


async def test_every_route_is_described_once(document: dict[str, Any]) -> None:
    described = [(method.upper(), path) for method, path, _ in operations(document)]
    assert sorted(described) == sorted((route.method, route.template) for route in ROUTES)
    names = [operation["operationId"] for _, _, operation in operations(document)]
    assert len(set(names)) == len(names)


async def test_every_route_that_is_described_is_there(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    for method, path, _ in operations(document):
        response = await client.request(method, re.sub(r"\{.*?\}", "unknown", path), json={})
        if response.status_code in (404, 405):
            assert response.json()["error"]["code"] not in ("not_found", "method_not_allowed")


async def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    found = references(document)
    assert found
    for reference in found:
        at: Any = document
        for step in reference.removeprefix("#/").split("/"):
            assert step in at, reference
            at = at[step]


async def test_parameters_are_those_of_the_path_and_query(document: dict[str, Any]) -> None:
    for _, path, operation in operations(document):
        in_path = [each["name"] for each in operation["parameters"] if each["in"] == "path"]
        assert in_path == re.findall(r"\{(.*?)\}", path)
    get = document["paths"]["/v1/interactions/{user_id}/{event}"]["get"]
    query = [each["name"] for each in get["parameters"] if each["in"] == "query"]
    assert query == ["last", "since", "until", "limit"]


async def test_every_query_parameter_that_is_described_is_known(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    get = document["paths"]["/v1/interactions/{user_id}/{event}"]["get"]
    for parameter in get["parameters"]:
        if parameter["in"] == "query":
            of_time = parameter["name"] in ("since", "until")
            query = {parameter["name"]: 1_700_000_000_000 if of_time else 1}
            response = await client.get("/v1/interactions/7/click", params=query)
            assert response.status_code == 200


async def test_every_required_field_is_required_and_no_other_is_known(
    client: httpx.AsyncClient, document: dict[str, Any]
) -> None:
    for method, path, operation in operations(document):
        if "requestBody" not in operation:
            continue
        schema = schema_of(document, operation)
        called = re.sub(r"\{.*?\}", "unknown", path).replace("unknown/unknown", "flow/unknown")
        found = await refused(client, method, called, {})
        required = schema.get("required") or ["objects"]
        assert found == (400, "invalid_input", required[0])
        assert schema["additionalProperties"] is False
        found = await refused(client, method, called, {"surprise": 1})
        assert found[:2] == (400, "invalid_input")


async def test_fields_have_the_names_that_are_sent(document: dict[str, Any]) -> None:
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
        assert set(operation["responses"]) == {"200", "4XX", "5XX"}
