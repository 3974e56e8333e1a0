"""`/openapi.json`, from the same routes and messages that the application runs on."""

from __future__ import annotations

from functools import cache
from typing import Any

import msgspec
import orjson

from kirana import __version__
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.edge.routes import ROUTES, RouteSpec

_BINARY = CONTENT_TYPE.decode()
_BINARY_CONTENT = {"schema": {"type": "string", "format": "binary"}}
"""The messages are in `proto/kirana/v1/messages.proto`."""

_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "field"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "field": {"type": ["string", "null"]},
            },
        }
    },
}


@cache
def openapi_document() -> bytes:
    """Return the OpenAPI 3.1 document."""
    requests = [route.request for route in ROUTES if route.request is not None]
    replies = [route.reply for route in ROUTES]
    _, schemas = msgspec.json.schema_components(
        list(dict.fromkeys([*requests, *replies])), ref_template="#/components/schemas/{name}"
    )
    paths: dict[str, dict[str, Any]] = {}
    for route in ROUTES:
        paths.setdefault(route.template, {})[route.method.lower()] = _operation(route)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Kirana", "version": __version__},
        "paths": paths,
        "components": {"schemas": {**schemas, "Error": _ERROR}},
    }
    return orjson.dumps(document, option=orjson.OPT_INDENT_2)


def _reference(message: type[msgspec.Struct]) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{message.__name__}"}


def _operation(route: RouteSpec) -> dict[str, Any]:
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in route.open_segments
    ]
    in_query = [
        {"name": name, "in": "query", "schema": {"type": "integer"}} for name in route.query
    ]
    error = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    replies: dict[str, Any] = {"application/json": {"schema": _reference(route.reply)}}
    if route.binary:
        replies[_BINARY] = _BINARY_CONTENT
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.summary,
        "parameters": [*in_path, *in_query],
        "responses": {
            "200": {"description": "Done", "content": replies},
            "4XX": {"description": "What was sent is wrong", "content": error},
            "5XX": {"description": "It could not be done", "content": error},
        },
    }
    if route.request is not None:
        content: dict[str, Any] = {"application/json": {"schema": _reference(route.request)}}
        if route.binary:
            content[_BINARY] = _BINARY_CONTENT
        operation["requestBody"] = {"required": True, "content": content}
    return operation
