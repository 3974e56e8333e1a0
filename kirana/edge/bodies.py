"""Decoding of JSON bodies and query strings into messages."""

from __future__ import annotations

from typing import Any, TypeVar
from urllib.parse import parse_qsl

import msgspec

from kirana.edge.errors import HttpError
from kirana.edge.validation import check_bounds, first_error
from kirana.errors import InvalidInput, did_you_mean

M = TypeVar("M", bound=msgspec.Struct)

MAX_DIGITS = 19
"""The maximum number of digits of an integer in a query string.

It is enough for a time in nanoseconds, so that a later check can say that the unit is wrong.
"""

_DECODERS: dict[type, msgspec.json.Decoder[Any]] = {}


def decode_json(message: type[M], body: bytes) -> M:
    """Decode a JSON body into a `message`.

    Raise `HttpError` if the body is not JSON, `InvalidInput` with the field if a value is wrong.
    """
    decoder = _DECODERS.get(message)
    if decoder is None:
        decoder = _DECODERS[message] = msgspec.json.Decoder(message)
    try:
        decoded: M = decoder.decode(body)
    except msgspec.ValidationError:
        # msgspec stopped at the wrong value. If the rest is not JSON, report that instead.
        raise first_error(message, _decode_untyped(body), body) from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None
    return decoded


def _decode_untyped(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise _not_json(error) from None


def _not_json(error: Exception) -> HttpError:
    return HttpError(400, "invalid_json", f"the body is not JSON: {error}")


def decode_query(message: type[M], text: bytes) -> M:
    """Decode a query string into a `message`, all of whose fields are integers.

    Raise `InvalidInput` if a parameter is unknown, repeated, not an integer or out of bounds. The
    error's field is the name of the parameter.
    """
    known = message.__struct_fields__
    arguments: dict[str, int] = {}
    for name, value in parse_qsl(text.decode("latin-1"), keep_blank_values=True):
        if name not in known:
            reason = f"unknown parameter '{name}': {did_you_mean(name, known)}"
            raise InvalidInput(reason, field=name)
        if name in arguments:
            raise InvalidInput(f"'{name}' is given twice", field=name)
        digits = value.removeprefix("-")
        if not (digits.isascii() and digits.isdecimal() and len(digits) <= MAX_DIGITS):
            raise InvalidInput(
                f"must be an integer of at most {MAX_DIGITS} digits, not '{value[:40]}'", field=name
            )
        arguments[name] = int(value)
    decoded = message(**arguments)
    check_bounds(decoded)
    return decoded
