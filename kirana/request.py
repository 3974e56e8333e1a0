"""What travels with a request, from its door to the last part that it reaches."""

from __future__ import annotations

import itertools
import math
import os
import time
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Literal

import msgspec

from kirana.errors import DeadlineExceeded
from kirana.revision import Revision

Priority = Literal["shopper", "writer", "operator"]
"""Who waits for the answer: a shopper's screen, a pipeline that writes, a person who operates."""

current_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the request that is under way, for lines of the log."""

_PREFIX = os.urandom(6).hex()
_NUMBERS = itertools.count(1)


def new_id() -> str:
    """Return an id that no other request has, in this process or another one."""
    return f"{_PREFIX}-{next(_NUMBERS):x}"


@dataclass(slots=True)
class Ledger:
    """What a request has spent, by all parts that it reached."""

    retries: int = 0
    hedges: int = 0


class RequestContext(msgspec.Struct, frozen=True):
    """One request as all parts see it.

    `deadline` is in seconds of `time.monotonic` in this process. When the context is pickled the
    time that is left travels, and the far end counts it down on its own clock. `now_ms` is the
    one reading of the clock (Unix, ms) by which expiry, ages and windows of time are judged.
    `traceparent` is the W3C header, "" without one. `caller` is how the client calls itself.
    """

    revision: Revision
    deadline: float
    now_ms: int
    id: str
    priority: Priority = "shopper"
    traceparent: str = ""
    caller: str = ""
    ledger: Ledger = msgspec.field(default_factory=Ledger)

    @classmethod
    def begin(
        cls,
        revision: Revision,
        *,
        timeout_s: float = math.inf,
        now_ms: int | None = None,
        id: str = "",
        priority: Priority = "shopper",
        traceparent: str = "",
        caller: str = "",
    ) -> RequestContext:
        """Begin a request now, with a new id if none is given."""
        return cls(
            revision,
            time.monotonic() + timeout_s,
            time.time_ns() // 1_000_000 if now_ms is None else now_ms,
            id or new_id(),
            priority,
            traceparent,
            caller,
        )

    def left_s(self) -> float:
        """Return how many seconds are left; less than 0 after the deadline."""
        return self.deadline - time.monotonic()

    def within(self, seconds: float) -> RequestContext:
        """Return this request with a deadline in so many seconds, unless its own is sooner."""
        deadline = time.monotonic() + seconds
        if self.deadline <= deadline:
            return self
        # once a node of a flow: field by field it takes a fifth of the time
        return RequestContext(
            self.revision,
            deadline,
            self.now_ms,
            self.id,
            self.priority,
            self.traceparent,
            self.caller,
            self.ledger,
        )

    def require_time(self, part: str) -> None:
        """Raise `DeadlineExceeded` that names `part` if the deadline has passed."""
        left = self.left_s()
        if left <= 0:
            raise DeadlineExceeded(f"{part}: the deadline passed {-left * 1000:.0f} ms ago")

    def __reduce__(self) -> tuple[object, ...]:
        return _arrived, (
            *self.revision,
            self.left_s(),
            self.now_ms,
            self.id,
            self.priority,
            self.traceparent,
            self.caller,
            self.ledger.retries,
            self.ledger.hedges,
        )


def _arrived(
    catalog: str,
    number: int,
    left_s: float,
    now_ms: int,
    id: str,
    priority: Priority,
    traceparent: str,
    caller: str,
    retries: int,
    hedges: int,
) -> RequestContext:
    return RequestContext(
        Revision(catalog, number),
        time.monotonic() + left_s,
        now_ms,
        id,
        priority,
        traceparent,
        caller,
        Ledger(retries, hedges),
    )
