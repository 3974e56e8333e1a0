"""The door for Kafka: a message is a write, with the same checks as over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable

from kirana.edge.exchange import Request, Response
from kirana.edge.handlers import features
from kirana.edge.headers import read_headers
from kirana.edge.resources import Resources
from kirana.errors import DeadlineExceeded, InvalidInput, KiranaError, Unavailable, Unknown
from kirana.kafka.consumption import DONE, Message, Outcome
from kirana.request import RequestContext

logger = logging.getLogger(__name__)

WRITE = "kirana-write"
"""The header that says what a message does: `put`, as without it, or `delete`."""

CONTENT_TYPE = "content-type"
JSON = b"application/json"

_HANDLERS: dict[bytes, Callable[[Request, Resources], Awaitable[Response]]] = {
    b"put": features.put,
    b"delete": features.delete,
}

_NO_HEADERS = read_headers([])


class StreamDoor:
    """Writes messages.

    A message is the body of `POST /v1/features/put` or `/v1/features/delete`: Protobuf, or JSON if
    its content type says so or it begins with a brace. Its time in Kafka is the event time of rows
    that have none. A message whose group or schema version is not in the live revision yet is tried
    again for `wait_s` seconds, from when it was first seen. A write ends after `timeout_s` seconds.
    """

    def __init__(self, resources: Resources, *, wait_s: float, timeout_s: float) -> None:
        self._resources = resources
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._unknown_since: dict[str, float] = {}

    async def handle(self, message: Message) -> Outcome:
        """Write the rows of a message, or delete them."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._write(message)
        except Exception as error:
            return self._failed(message, error)
        self._unknown_since.pop(message.origin, None)
        return DONE

    async def _write(self, message: Message) -> None:
        kind = message.headers.get(WRITE, b"put")
        if kind not in _HANDLERS:
            name = kind.decode(errors="replace")
            raise InvalidInput(f"must be put or delete, not '{name}'", field=WRITE)
        is_json = message.headers.get(CONTENT_TYPE) == JSON or message.value.startswith(b"{")
        context = RequestContext.begin(
            self._resources.live.revision,
            timeout_s=self._timeout_s,
            # A clock that is ahead must not let event times through that are ahead.
            now_ms=min(message.timestamp_ms, time.time_ns() // 1_000_000),
            id=message.origin,
            caller="kafka",
        )
        request = Request(
            (), b"", _NO_HEADERS, message.value, context, binary=not is_json, binary_reply=False
        )
        await _HANDLERS[kind](request, self._resources)

    def _failed(self, message: Message, error: Exception) -> Outcome:
        if isinstance(error, Unavailable | DeadlineExceeded | TimeoutError):
            return Outcome("later", str(error) or f"no answer in {self._timeout_s} s")
        if _is_not_known_yet(error):
            since = self._unknown_since.setdefault(message.origin, time.monotonic())
            if time.monotonic() - since < self._wait_s:
                return Outcome("later", str(error))
        self._unknown_since.pop(message.origin, None)
        if isinstance(error, KiranaError):
            return Outcome("refused", str(error))
        logger.error("%s failed", message.origin, exc_info=error)
        return Outcome("refused", f"internal error: {type(error).__name__}")


def _is_not_known_yet(error: Exception) -> bool:
    """Return whether a newer revision of the catalog may know what a message names."""
    return isinstance(error, Unknown) or (
        isinstance(error, InvalidInput) and error.path == ("schema_version",)
    )
