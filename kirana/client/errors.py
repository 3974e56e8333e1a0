"""Conversion of error replies to the errors of `kirana.errors`."""

from __future__ import annotations

import re

import msgspec

from kirana.errors import (
    CatalogError,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    KiranaError,
    ModelFailed,
    NodeError,
    Overloaded,
    Problem,
    StoreFull,
    TooLarge,
    Unavailable,
    Unknown,
)

MAX_SHOWN = 200
"""How many characters an error shows of a reply that does not have the form of an error."""
HAPROXY_500_BODY = "Internal Server Error"
"""The body of HAProxy's 500 if a replica stopped during a request, or if no replica is running."""

_BY_CODE: dict[str, type[KiranaError]] = {
    kind.code: kind
    for kind in (
        CatalogError,
        Conflict,
        DeadlineExceeded,
        InvalidInput,
        ModelFailed,
        NodeError,
        Overloaded,
        StoreFull,
        TooLarge,
        Unavailable,
    )
}
_BY_STATUS: dict[int, type[KiranaError]] = {
    400: InvalidInput,
    404: Unknown,
    409: Conflict,
    413: TooLarge,
    415: InvalidInput,
    502: Unavailable,
    503: Unavailable,
    504: DeadlineExceeded,
}


class _Error(msgspec.Struct):
    code: str
    message: str
    field: str | None = None


class _ErrorReply(msgspec.Struct):
    error: _Error


def error_of(status: int, body: bytes) -> KiranaError:
    """Return the error for a reply with a status other than 200.

    Its `code` and `field` are those of the reply. If the reply does not have the form of an error,
    for example because a proxy sent it, the code is `http_<status>`. The code decides the class of
    the error. If no class has this code, the status decides.
    """
    try:
        reply = msgspec.json.decode(body, type=_ErrorReply).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace").strip()[:MAX_SHOWN]
        reply = _Error(f"http_{status}", text or f"HTTP {status}")
        if status == 500 and text == HAPROXY_500_BODY:
            status = 503
    kind = _BY_CODE.get(reply.code)
    if kind is None:
        kind = Unknown if reply.code.startswith("unknown_") else None
    if kind is None:
        kind = _BY_STATUS.get(status, KiranaError)
    error = kind.__new__(kind)
    KiranaError.__init__(error, reply.message, field=reply.field)
    error.code = reply.code
    _complete(error)
    return error


def _complete(error: KiranaError) -> None:
    """Set the attributes of the error's class, as far as the message shows them."""
    quoted = re.findall("'(.*?)'", error.message)
    if isinstance(error, CatalogError):
        error.problems = tuple(Problem(line) for line in error.message.split("\n"))
    elif isinstance(error, Unknown):
        error.kind = error.code.removeprefix("unknown_")
        error.name = quoted[0] if quoted else ""
    elif isinstance(error, NodeError):
        error.flow, error.node = quoted[:2] if len(quoted) >= 2 else ("", "")
    elif isinstance(error, ModelFailed):
        error.model = quoted[0] if quoted else ""
        error.wrong_rows = False
