"""From the headers of a request to the context that travels with it."""

from __future__ import annotations

import re
import time

from kirana.edge.headers import CALLER_HEADER, REQUEST_ID_HEADER, Headers
from kirana.errors import InvalidInput
from kirana.request import Priority, RequestContext, new_id
from kirana.revision import Revision

MAX_NAME = 128
"""Characters of a request id, or of a caller's name."""

_NAME = re.compile(rb"[\x21-\x7e]{1,%d}" % MAX_NAME)
_TRACEPARENT = re.compile(rb"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


def id_of(headers: Headers) -> str:
    """Return the id that the client gave, or a new one where it gave none that can be used."""
    if _NAME.fullmatch(headers.request_id):
        return headers.request_id.decode()
    return new_id()


def context_of(
    headers: Headers, id: str, revision: Revision, deadline: float, priority: Priority
) -> RequestContext:
    """Begin a request now. Raises `InvalidInput` that names a header which can't be used.

    A `traceparent` that is not valid is left out, as its standard says.
    """
    for header, value in (
        (REQUEST_ID_HEADER, headers.request_id),
        (CALLER_HEADER, headers.caller),
    ):
        if value and not _NAME.fullmatch(value):
            raise InvalidInput(
                f"it must have 1 to {MAX_NAME} visible ASCII characters", field=header.decode()
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
