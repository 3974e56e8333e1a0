"""The HTTP status and body of each error in the `kirana.errors` tree."""

from __future__ import annotations

import msgspec

from kirana.edge.replies import ErrorBody, ErrorReply
from kirana.errors import (
    CatalogError,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    KiranaError,
    ModelFailed,
    NodeError,
    Overloaded,
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
"""The status of each class of errors. The first class that fits counts: subclasses come first."""


class HttpError(KiranaError):
    """An error that only the edge raises, for example for an unknown route or for invalid JSON.

    `headers` are added to the response.
    """

    def __init__(
        self, status: int, code: str, message: str, headers: tuple[tuple[bytes, bytes], ...] = ()
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.headers = headers


RETRY_AFTER = ((b"retry-after", b"1"),)


def headers_of(error: KiranaError) -> tuple[tuple[bytes, bytes], ...]:
    """Return the headers that are added to the response to an error."""
    if isinstance(error, HttpError):
        return error.headers
    return RETRY_AFTER if isinstance(error, Overloaded) else ()


def status_of(error: KiranaError) -> int:
    """Return the HTTP status of an error: 500 unless the error or its class has another."""
    if isinstance(error, HttpError):
        return error.status
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def body_of(error: KiranaError) -> bytes:
    """Return an error as JSON, in the form of `ErrorReply`."""
    # A message may quote half of a surrogate pair, which UTF-8 can't encode.
    message = error.message.encode(errors="replace").decode()
    field = error.field and error.field.encode(errors="replace").decode()
    return msgspec.json.encode(ErrorReply(ErrorBody(error.code, message, field)))
