"""One request in, one reply out: bytes, without a framework's cost a request."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
import orjson

from kirana.edge.errors import HttpError, from_validation
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.edge.protobuf import decode as decode_binary
from kirana.errors import InvalidInput, TooLarge
from kirana.loop import INLINE_BYTES
from kirana.request import RequestContext

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

M = TypeVar("M", bound=msgspec.Struct)

TIMEOUT_HEADER = b"x-kirana-timeout-ms"
REQUEST_ID_HEADER = b"x-request-id"
CALLER_HEADER = b"x-kirana-caller"
MAX_TIMEOUT_MS = 600_000
MAX_DIGITS = 19
"""Of a number in a query string: one in nanoseconds is told what it is."""

_BINARY_HEADER = (b"content-type", CONTENT_TYPE)
_JSON_HEADER = (b"content-type", b"application/json")
_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {}


class Disconnected(Exception):
    """The client hung up before its request was whole: nobody waits for a reply."""


@dataclass(frozen=True, slots=True)
class HttpRequest:
    """`parameters` are the decoded segments of the path that the route leaves open."""

    parameters: tuple[str, ...]
    query_string: bytes
    body: bytes
    context: RequestContext
    binary: bool = False
    binary_reply: bool = False

    async def decode(self, message: type[M]) -> M:
        """Parse the body. Raises `InvalidInput` with the field, or `HttpError` if it's neither
        JSON nor, if it is said to be, Proto3.
        """
        parse = decode_binary if self.binary else self._decode_json
        if len(self.body) <= INLINE_BYTES:
            return parse(message, self.body)
        return await asyncio.to_thread(parse, message, self.body)

    def _decode_json(self, message: type[M], body: bytes) -> M:
        decoder = _DECODERS.get(message)
        if decoder is None:
            decoder = _DECODERS[message] = msgspec.json.Decoder(message)
        try:
            decoded: M = decoder.decode(body)
        except msgspec.ValidationError as error:
            self._require_json()
            raise from_validation(error, body, message) from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_json(error) from None
        return decoded

    def _require_json(self) -> None:
        """What is of a wrong type may be followed by what is no JSON at all: that comes first."""
        try:
            msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise _not_json(error) from None

    def query(self, known: Mapping[str, str]) -> dict[str, int]:
        """Parse a query string of whole numbers; `known` says what each is for."""
        found: dict[str, int] = {}
        text = self.query_string.decode("latin-1")
        for name, value in parse_qsl(text, keep_blank_values=True):
            if name not in known:
                raise InvalidInput(f"unknown parameter '{name}': {sorted(known)}", field=name)
            if name in found:
                raise InvalidInput(f"'{name}' stands here twice", field=name)
            digits = value.removeprefix("-")
            if not (digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS):
                raise InvalidInput(f"'{value[:40]}' is no whole number: {known[name]}", field=name)
            found[name] = int(value)
        return found


def _not_json(error: Exception) -> HttpError:
    return HttpError(400, "invalid_json", f"the body is no JSON: {error}")


def json_bytes(value: object) -> bytes:
    """Serialize, numpy arrays included. Arrays must be finite: see `kirana.edge.json_values`."""
    return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)


def path_segments(scope: Scope) -> tuple[str, ...]:
    """Split the raw path, so that `a%2Fb` is one segment, and decode each.

    Raises `InvalidInput` for a segment that is not UTF-8.
    """
    raw: bytes | None = scope.get("raw_path")
    root: str = scope.get("root_path", "")
    if raw is None:
        return tuple(scope["path"].removeprefix(root).split("/")[1:])
    path = raw.decode("latin-1").partition("?")[0].removeprefix(root)
    try:
        return tuple(unquote(each, errors="strict") for each in path.split("/")[1:])
    except UnicodeDecodeError:
        raise InvalidInput("the path is not UTF-8", field="path") from None


@dataclass(slots=True)
class Headers:
    """What the headers say; each is checked where it is used, so that every reply has an id."""

    content_length: int = 0
    content_type: bytes | None = None
    accept: bytes = b""
    timeout: bytes | None = None
    request_id: bytes = b""
    traceparent: bytes = b""
    caller: bytes = b""

    def timeout_ms(self, default: int) -> int:
        """Raises `InvalidInput` for what is no number of milliseconds."""
        value = self.timeout
        if value is None:
            return default
        short = value.isdigit() and len(value) <= len(str(MAX_TIMEOUT_MS))
        if not short or not 1 <= int(value) <= MAX_TIMEOUT_MS:
            raise InvalidInput(
                f"a timeout is 1 to {MAX_TIMEOUT_MS} ms", field=TIMEOUT_HEADER.decode()
            )
        return int(value)

    def binary(self, method: str, *, binary_route: bool) -> bool:
        """Return whether the body is Proto3. Raises `HttpError` if the route doesn't take it."""
        if self.content_type is None or method not in ("POST", "PUT"):
            return False
        return _is_binary(self.content_type, binary_route)

    def binary_reply(self, *, binary_route: bool) -> bool:
        return binary_route and CONTENT_TYPE in self.accept.lower()


_NAMES = {
    b"content-type": "content_type",
    b"accept": "accept",
    TIMEOUT_HEADER: "timeout",
    REQUEST_ID_HEADER: "request_id",
    b"traceparent": "traceparent",
    CALLER_HEADER: "caller",
}


def read_headers(scope: Scope) -> Headers:
    found = Headers()
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            digits = value.lstrip(b"0") or b"0"
            found.content_length = int(digits) if len(digits) <= 15 else 1 << 60
        elif name in _NAMES:
            setattr(found, _NAMES[name], value)
    return found


async def read_body(receive: Receive, content_length: int, limit: int) -> bytes:
    """Return the whole body. Raises `TooLarge` as soon as it is, `Disconnected` if it ends."""
    if content_length > limit:
        raise TooLarge(f"the body is over the limit of {limit} bytes")
    chunks: list[bytes] = []
    size, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise Disconnected
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > limit:
            raise TooLarge(f"the body is over the limit of {limit} bytes")
        more = message.get("more_body", False)
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _is_binary(value: bytes, binary_route: bool) -> bool:
    content_type = value.split(b";")[0].strip().lower()
    if content_type == b"application/json":
        return False
    if content_type == CONTENT_TYPE and binary_route:
        return True
    known = "application/json" + (f" or {CONTENT_TYPE.decode()}" if binary_route else "")
    shown = value.decode("latin-1")[:60]
    raise HttpError(415, "unsupported_media_type", f"send {known}, not '{shown}'")


async def reply(
    send: Send,
    status: int,
    body: bytes,
    headers: tuple[tuple[bytes, bytes], ...] = (),
    *,
    binary: bool = False,
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [_BINARY_HEADER if binary else _JSON_HEADER, length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})
