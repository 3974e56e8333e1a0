"""A call comes in, a response goes out: what every door shares, and no transport is in it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from kirana.edge.bodies import decode_json, decode_query
from kirana.edge.headers import Headers
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.edge.protobuf import decode as decode_binary
from kirana.loop import INLINE_BYTES
from kirana.request import RequestContext

M = TypeVar("M", bound=msgspec.Struct)

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Call:
    """What a door hands in. `path` is still encoded, without the query.

    `read_body` takes the most bytes that the body may have. `hung_up` ends when nothing more can
    come from the client, and tells whether it is gone; None where that can't be.
    """

    method: str
    path: str
    query: bytes
    headers: Headers
    door: str
    read_body: Callable[[int], Awaitable[bytes]]
    hung_up: Callable[[], Awaitable[bool]] | None = None


class HungUp(Exception):
    """The client is gone: nobody waits for a response."""


@dataclass(frozen=True, slots=True)
class Request:
    """What a handler takes. `parameters` are the decoded segments that the route leaves open.

    `binary` says that the body is Proto3, `binary_reply` that the client takes it.
    """

    parameters: tuple[str, ...]
    query_string: bytes
    headers: Headers
    body: bytes
    context: RequestContext
    binary: bool = False
    binary_reply: bool = False

    async def decode(self, message: type[M]) -> M:
        """Parse the body. Raises `InvalidInput` with the field, or `HttpError` if it's neither
        JSON nor, if it is said to be, Proto3.
        """
        parse = decode_binary if self.binary else decode_json
        if len(self.body) <= INLINE_BYTES:
            return parse(message, self.body)
        return await asyncio.to_thread(parse, message, self.body)

    def query(self, message: type[M]) -> M:
        """Parse the query string. Raises `InvalidInput` that names the parameter."""
        return decode_query(message, self.query_string)


@dataclass(frozen=True, slots=True)
class Response:
    """What a handler returns."""

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(reply: msgspec.Struct, status: int = 200) -> Response:
    """Encode one of `kirana.edge.replies`; what `fragment` made is taken as it is."""
    return Response(msgspec.json.encode(reply), status)


def binary_response(body: bytes) -> Response:
    """Answer with a message of `kirana.wire.messages_pb2`, encoded."""
    return Response(body, content_type=CONTENT_TYPE)
