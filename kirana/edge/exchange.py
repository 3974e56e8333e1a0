"""Calls, requests and responses: the types between doors, edge and handlers.

None of them depends on a transport.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

import msgspec

from kirana.edge.bodies import decode_json, decode_query
from kirana.edge.headers import Headers
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.edge.protobuf import decode as decode_binary
from kirana.loop import INLINE_BYTES, inline_or_thread
from kirana.request import RequestContext

M = TypeVar("M", bound=msgspec.Struct)

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Call:
    """A request as a door passes it to the edge.

    `path` is still percent-encoded and has no query string. `read_body` takes the maximum size of
    the body in bytes, and raises `TooLarge` for a larger one. `disconnected` may be called only
    after the body has been read. It waits for the client's next message, and returns whether that
    is a disconnect. A door that can't detect disconnects passes None.
    """

    method: str
    path: str
    query: bytes
    headers: Headers
    door: str
    read_body: Callable[[int], Awaitable[bytes]]
    disconnected: Callable[[], Awaitable[bool]] | None = None


class ClientDisconnected(Exception):
    """The client has disconnected, so it needs no response."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request as a handler receives it.

    `parameters` are the decoded values of the route's open segments. `binary` says that the body
    is Protobuf, `binary_reply` that the reply must be.
    """

    parameters: tuple[str, ...]
    query_string: bytes
    headers: Headers
    body: bytes
    context: RequestContext
    binary: bool = False
    binary_reply: bool = False

    async def decode(self, message: type[M]) -> M:
        """Decode the body, in a thread if it is larger than `INLINE_BYTES`.

        Raise `HttpError` if the body can't be parsed, `InvalidInput` with the field if a value is
        wrong.
        """
        parse = decode_binary if self.binary else decode_json
        return await inline_or_thread(len(self.body) <= INLINE_BYTES, parse, message, self.body)

    def query(self, message: type[M]) -> M:
        """Decode the query string. Raise `InvalidInput` with the name of a wrong parameter."""
        return decode_query(message, self.query_string)


@dataclass(frozen=True, slots=True)
class Response:
    """A response as a handler returns it.

    `headers` are sent in addition to `content-type` and `content-length`.
    """

    body: bytes
    status: int = 200
    content_type: bytes = JSON
    headers: tuple[tuple[bytes, bytes], ...] = ()


def json_response(reply: msgspec.Struct, status: int = 200) -> Response:
    """Return a response with `reply` as JSON. Fragments in `reply` are copied unchanged."""
    return Response(msgspec.json.encode(reply), status)


def binary_response(body: bytes, status: int = 200) -> Response:
    """Return a response with an encoded message of `kirana.wire.messages_pb2`."""
    return Response(body, status, CONTENT_TYPE)
