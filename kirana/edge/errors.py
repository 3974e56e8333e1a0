"""From the tree of errors to HTTP: the one place that knows statuses."""

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
    """Return the documented JSON of an error."""
    # what a message quotes may hold half a surrogate pair, which has no UTF-8
    message = error.message.encode(errors="replace").decode()
    field = error.field and error.field.encode(errors="replace").decode()
    return msgspec.json.encode(ErrorReply(ErrorBody(error.code, message, field)))
