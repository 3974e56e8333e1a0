"""From the tree of errors to HTTP: the one place that knows statuses."""

from __future__ import annotations

import re
from itertools import islice

import msgspec
import orjson

from kirana.errors import (
    CatalogError,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    KiranaError,
    ModelFailed,
    NodeError,
    TooLarge,
    Unavailable,
    Unknown,
)

_STATUS: tuple[tuple[type[KiranaError], int], ...] = (
    (TooLarge, 413),
    (InvalidInput, 400),
    (Unknown, 404),
    (CatalogError, 400),
    (Conflict, 409),
    (Unavailable, 503),
    (DeadlineExceeded, 504),
    (NodeError, 502),
    (ModelFailed, 502),
)

_AT = re.compile(r" - at `\$\.?(.*)`$", re.DOTALL)
_ANY_KEY = "[...]"
MAX_KEYS_TRIED = 64
_NAMED = re.compile(r"(?:required|unknown) field `(.*?)`")


class HttpError(KiranaError):
    """What only exists at the edge: no such route, a wrong method, a wrong content type."""

    def __init__(
        self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


def status_of(error: KiranaError) -> int:
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(error: KiranaError) -> bytes:
    # what a message quotes may hold half a surrogate pair, which has no UTF-8
    message = error.message.encode(errors="replace").decode()
    field = error.field and error.field.encode(errors="replace").decode()
    return orjson.dumps({"error": {"code": error.code, "message": message, "field": field}})


def from_validation(
    error: msgspec.ValidationError, body: bytes, message_type: type[msgspec.Struct]
) -> InvalidInput:
    """Turn msgspec's message into one with a field: `events[3].timestamp`."""
    text = str(error)
    at = _AT.search(text)
    field = at[1] if at else ""
    if _ANY_KEY in field:
        field = _with_key(field, text, body, message_type)
    message = text[: at.start()] if at else text
    named = _NAMED.search(message)
    if named:
        field = f"{field}.{named[1]}" if field else named[1]
    return InvalidInput(message.replace("`", "'"), field=field or None)


def _with_key(field: str, text: str, body: bytes, message_type: type[msgspec.Struct]) -> str:
    """msgspec does not say which key of a mapping is wrong: try each alone."""
    name, _, rest = field.partition(_ANY_KEY)
    try:
        whole = msgspec.json.decode(body)
        mapping = whole[name]
    except (msgspec.DecodeError, KeyError, TypeError):
        return name
    if not isinstance(mapping, dict):
        return name  # it stands there twice: the last one has another shape
    for key, value in islice(mapping.items(), MAX_KEYS_TRIED):
        try:
            msgspec.convert({**whole, name: {key: value}}, message_type)
        except msgspec.ValidationError as error:
            if str(error) == text:
                return f"{name}.{key}{rest}"
    return name
