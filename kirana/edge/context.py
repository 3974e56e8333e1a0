"""The context of a request, made from its headers."""

from __future__ import annotations

import re
import time

from kirana.edge.headers import CALLER_HEADER, REQUEST_ID_HEADER, Headers
from kirana.errors import InvalidInput
from kirana.request import Priority, RequestContext, new_id
from kirana.revision import Revision

MAX_NAME = 128
"""The maximum number of characters in a request id, and in the name of a caller."""

_NAME = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_NAME)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def id_of(headers: Headers) -> str:
    """Return the id that the client sent, or a new one if it sent none or an invalid one."""
    if _NAME.fullmatch(headers.request_id):
        return headers.request_id.decode()
    return new_id()


def context_of(
    headers: Headers, id: str, revision: Revision, deadline: float, priority: Priority
) -> RequestContext:
    """Return the context of a request that starts now.

    `deadline` is in seconds of `time.monotonic`. An invalid `traceparent` is ignored, as the W3C
    Trace Context standard requires. Raise `InvalidInput` if the request id or the caller is
    invalid. The error's field is the name of the header.
    """
    for header, value in (
        (REQUEST_ID_HEADER, headers.request_id),
        (CALLER_HEADER, headers.caller),
    ):
        if value and not _NAME.fullmatch(value):
            raise InvalidInput(
                f"must have 1 to {MAX_NAME} visible ASCII characters", field=header.decode()
            )
    trace = headers.traceparent
    return RequestContext(
        revision,
        deadline,
        time.time_ns() // 1_000_000,
        id,
        priority,
        trace.decode() if _TRACEPARENT.fullmatch(trace) else "",
        headers.caller.decode(),
    )
