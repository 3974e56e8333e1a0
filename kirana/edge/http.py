"""One request in, one reply out: bytes, without a framework's cost a request."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
import orjson

from kirana.edge.errors import HttpError, from_validation
from kirana.errors import InvalidInput, TooLarge
from kirana.loop import INLINE_BYTES, bounded

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

M = TypeVar("M", bound=msgspec.Struct)

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
    revision: int

    async def decode(self, message: type[M]) -> M:
        """Parse the body. Raises `InvalidInput` with the field, or `HttpError` if it's no JSON."""
        return await bounded(len(self.body) <= INLINE_BYTES, self._decode, message)

    def _decode(self, message: type[M]) -> M:
        decoder = _DECODERS.get(message)
        if decoder is None:
            decoder = _DECODERS[message] = msgspec.json.Decoder(message)
        try:
            decoded: M = decoder.decode(self.body)
        except msgspec.ValidationError as error:
            self._require_json()
            raise from_validation(error, self.body, message) from None
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
            if not (digits.isascii() and digits.isdecimal() and len(digits) < 19):
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


async def read_body(scope: Scope, receive: Receive, limit: int) -> bytes:
    """Return the whole body. Raises `TooLarge` as soon as it is, `Disconnected` if it ends."""
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            digits = value.lstrip(b"0") or b"0"
            if len(digits) > 15 or int(digits) > limit:
                raise TooLarge(f"the body is over the limit of {limit} bytes")
        if name == b"content-type" and scope["method"] in ("POST", "PUT"):
            _require_json_type(value)
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


def _require_json_type(value: bytes) -> None:
    if value.split(b";")[0].strip().lower() != b"application/json":
        shown = value.decode("latin-1")[:60]
        raise HttpError(415, "unsupported_media_type", f"send application/json, not '{shown}'")


async def reply(
    send: Send, status: int, body: bytes, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [_JSON_HEADER, length, *headers],
        }
    )
    await send({"type": "http.response.body", "body": body})
