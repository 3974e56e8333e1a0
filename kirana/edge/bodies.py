"""From bytes to messages: JSON bodies and query strings."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from kirana.edge.errors import HttpError
from kirana.edge.validation import check_bounds, refusal
from kirana.errors import InvalidInput, did_you_mean

M = TypeVar("M", bound=msgspec.Struct)

MAX_DIGITS = 19
"""Of a number in a query string: one in nanoseconds is told what it is."""

_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {}


def decode_json(message: type[M], body: bytes) -> M:
    """Raises `InvalidInput` with the field, `HttpError` if the body is no JSON."""
    decoder = _DECODERS.get(message)
    if decoder is None:
        decoder = _DECODERS[message] = msgspec.json.Decoder(message)
    try:
        decoded: M = decoder.decode(body)
    except msgspec.ValidationError:
        # a body that is not JSON further on is told first
        raise refusal(message, _plain(body), body) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    return decoded


def _plain(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None


def _not_json(error: Exception) -> HttpError:
    return HttpError(400, "invalid_json", f"the body is not JSON: {error}")


def decode_query(message: type[M], text: bytes) -> M:
    """Parse a query string of whole numbers. Raises `InvalidInput` that names the parameter."""
    known = message.__struct_fields__
    found: dict[str, int] = {}
    for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            reason = f"unknown parameter '{name}': {did_you_mean(name, known)}"
            raise InvalidInput(reason, field=name)
        if name in found:
            raise InvalidInput(f"'{name}' is given twice", field=name)
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS):
            raise InvalidInput(f"'{value[:40]}' is not a whole number", field=name)
        found[name] = int(value)
    decoded = message(**found)
    check_bounds(decoded)
    return decoded
