"""`/openapi.json`, generated from the routes and messages that the edge runs on."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import orjson

from kirana import __version__
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.edge.replies import ErrorReply
from kirana.edge.route import Route

_BINARY = CONTENT_TYPE.decode()
_BINARY_CONTENT = {"schema": {"type": "string", "format": "binary"}}
"""Content of a Protobuf body. The messages are defined in `proto/kirana/v1/messages.proto`."""

_REFERENCE = "#/components/schemas/{name}"


@cache
def openapi_document(routes: tuple[Route, ...]) -> bytes:
    """Return the OpenAPI 3.1 document of the routes, as JSON."""
    requests = [route.request for route in routes if route.request is not None]
    replies = [route.reply for route in routes]
    replies += [route.accepted for route in routes if route.accepted is not None]
    _, schemas = msgspec.json.schema_components(
        list(dict.fromkeys([*requests, *replies, ErrorReply])), ref_template=_REFERENCE
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Kirana", "version": __version__},
        "paths": paths,
        "components": {"schemas": schemas},
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _reference(message: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(name=message.__name__)}


def _operation(route: Route) -> dict[str, Any]:
    path_parameters = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.open_segments
    ]
    error = {"application/json": {"schema": _reference(ErrorReply)}}
    replies: dict[str, Any] = {"application/json": {"schema": _reference(route.reply)}}
    if route.binary:
        replies[_BINARY] = _BINARY_CONTENT
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [*path_parameters, *_query_parameters(route.query)],
        "responses": {
            "200": {"description": "Done", "content": replies},
            "4XX": {"description": "The request is invalid", "content": error},
            "5XX": {"description": "The request could not be answered", "content": error},
        },
    }
    if route.accepted is not None:
        accepted = {"application/json": {"schema": _reference(route.accepted)}}
        operation["responses"]["202"] = {
            "description": "Kafka has taken the rows, which are not in the store yet",
            "content": accepted | ({_BINARY: _BINARY_CONTENT} if route.binary else {}),
        }
    if route.request is not None:
        content: dict[str, Any] = {"application/json": {"schema": _reference(route.request)}}
        if route.binary:
            content[_BINARY] = _BINARY_CONTENT
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _query_parameters(query: type[msgspec.Struct] | None) -> list[dict[str, Any]]:
    if query is None:
        return []
    (schema,) = msgspec.json.schema(query)["$defs"].values()
    return [
        {
            "name": name,
            "in": "query",
            "description": field["description"],
            "schema": {key: value for key, value in field.items() if key != "description"},
        }
        for name, field in schema["properties"].items()
    ]
