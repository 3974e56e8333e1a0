"""The door for Kafka: a message is a write, with the same checks as over HTTP."""

from __future__ import annotations

import asyncio
import logging
import time

from msgspec import structs

from kirana.edge.exchange import Request
from kirana.edge.handlers.features import FeatureDelete, decode_delete, decode_put
from kirana.edge.headers import read_headers
from kirana.edge.resources import Resources
from kirana.errors import DeadlineExceeded, InvalidInput, KiranaError, Unavailable, Unknown
from kirana.features.part import FEATURES
from kirana.features.source import FeatureWrite
from kirana.kafka.consumption import Message, Outcome
from kirana.request import RequestContext
from kirana.streams.messages import DELETE, PUT, WRITE

logger = logging.getLogger(__name__)

CONTENT_TYPE = "content-type"
JSON = b"application/json"

_NO_HEADERS = read_headers([])


class StreamDoor:
    """Writes messages.

    A message is the body of `POST /v1/features/put` or `/v1/features/delete`: Protobuf, or JSON if
    its content type says so or it begins with a brace. Its time in Kafka is the event time of rows
    that have none. A message whose group or schema version is not in the live revision yet is tried
    again until it is `wait_s` seconds old. A write ends after `timeout_s` seconds.
    """

    def __init__(self, resources: Resources, *, wait_s: float, timeout_s: float) -> None:
        self._resources = resources
        self._wait_s = wait_s
        self._timeout_s = timeout_s
        self._began_ms = time.time_ns() // 1_000_000

    async def handle(self, message: Message) -> Outcome:
        """Write the rows of a message, or delete them."""
        # A clock that is ahead must not let event times through that are ahead.
        now_ms = min(message.timestamp_ms, time.time_ns() // 1_000_000)
        revision = self._resources.live.revision
        context = RequestContext.begin(
            revision, timeout_s=self._timeout_s, now_ms=now_ms, id=message.origin, caller="kafka"
        )
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._write(message, context)
        except Exception as error:
            return self._failed(message, error, context)
        return Outcome("done", revision=revision.number)

    async def _write(self, message: Message, context: RequestContext) -> None:
        rows = await decode_message(message, self._resources, context)
        if isinstance(rows, FeatureWrite):
            await self._resources.parts[FEATURES].write(rows, context)
        else:
            if rows.force:
                # Rows that were ahead when this was sent may not be so any more.
                context = structs.replace(context, now_ms=time.time_ns() // 1_000_000)
            await self._resources.parts[FEATURES].delete(*rows, context)

    def _failed(self, message: Message, error: Exception, context: RequestContext) -> Outcome:
        if isinstance(error, Unavailable | DeadlineExceeded | TimeoutError):
            return Outcome("later", str(error) or f"no answer in {self._timeout_s} s")
        # The clock here may be behind that of the replica which has accepted the rows.
        is_early = context.now_ms < message.timestamp_ms and _is_of(error, "event_time")
        if is_early or _is_not_known_yet(error):
            # After a start, the catalog may still have to be published.
            since_ms = max(message.timestamp_ms, self._began_ms)
            age_ms, wait_ms = time.time_ns() // 1_000_000 - since_ms, self._wait_s * 1_000
            # A clock that is further ahead is wrong.
            if -wait_ms <= age_ms < wait_ms:
                return Outcome("later", str(error))
        reason = str(error)
        if not isinstance(error, KiranaError):
            logger.error("%s failed", message.origin, exc_info=error)
            reason = f"internal error: {type(error).__name__}"
        return Outcome("refused", reason, context.revision.number)


async def decode_message(
    message: Message, resources: Resources, context: RequestContext
) -> FeatureWrite | FeatureDelete:
    """Return the rows that a message writes or deletes. Raise the errors of a wrong request."""
    kind = message.headers.get(WRITE, PUT)
    if kind not in (PUT, DELETE):
        name = kind.decode(errors="replace")
        raise InvalidInput(f"must be put or delete, not '{name}'", field=WRITE)
    is_json = message.headers.get(CONTENT_TYPE) == JSON or message.value.startswith(b"{")
    request = Request((), b"", _NO_HEADERS, message.value, context, binary=not is_json)
    decode = decode_put if kind == PUT else decode_delete
    return await decode(request, resources, message.timestamp_ms)


def _is_not_known_yet(error: Exception) -> bool:
    """Return whether a newer revision of the catalog may know what a message names."""
    return isinstance(error, Unknown) or _is_of(error, "schema_version")


def _is_of(error: Exception, field: str) -> bool:
    return isinstance(error, InvalidInput) and error.path[:1] == (field,)
