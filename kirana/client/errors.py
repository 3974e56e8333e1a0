"""Replies that are errors, as the tree of `kirana.errors`."""

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
    Problem,
    StoreFull,
    TooLarge,
    Unavailable,
    Unknown,
)

MAX_SHOWN = 200
HAPROXY_LOST_IT = "Internal Server Error"
"""What Serve's HAProxy says where a replica went under a request, or where there is none."""

_BY_CODE: dict[str, type[KiranaError]] = {
    kind.code: kind
    for kind in (
        CatalogError,
        Conflict,
        DeadlineExceeded,
        InvalidInput,
        ModelFailed,
        NodeError,
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
    """Return the error that a reply with a status of 400 or more stands for.

    Its `code` and `field` are those of the reply; what answers before Kirana does (a proxy) is
    told by its status alone.
    """
    try:
        said = msgspec.json.decode(body, type=_ErrorReply).error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        text = body.decode(errors="replace").strip()[:MAX_SHOWN]
        said = _Error(f"http_{status}", text or f"HTTP {status}")
        if status == 500 and text == HAPROXY_LOST_IT:
            status = 503
    kind = _BY_CODE.get(said.code)
    if kind is None:
        kind = Unknown if said.code.startswith("unknown_") else None
    if kind is None:
        kind = _BY_STATUS.get(status, KiranaError)
    error = kind.__new__(kind)
    KiranaError.__init__(error, said.message, field=said.field)
    error.code = said.code
    _complete(error)
    return error


def _complete(error: KiranaError) -> None:
    """Read out of the message what an error of the tree also carries."""
    named = re.findall("'(.*?)'", error.message)
    if isinstance(error, CatalogError):
        error.problems = tuple(Problem(line) for line in error.message.split("\n"))
    elif isinstance(error, Unknown):
        error.kind = error.code.removeprefix("unknown_")
        error.name = named[0] if named else ""
    elif isinstance(error, NodeError):
        error.flow, error.node = named[:2] if len(named) >= 2 else ("", "")
    elif isinstance(error, ModelFailed):
        error.model = named[0] if named else ""
        error.wrong_rows = False
