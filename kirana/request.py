"""The context of a request, which is passed to every part that works on the request."""

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
"""Who waits for the response: a shopper, a pipeline that writes, or an operator."""

current_id: ContextVar[str] = ContextVar("request_id", default="-")
"""The id of the current request, for log lines. It is "-" outside of requests."""

_PREFIX = os.urandom(6).hex()
_NUMBERS = itertools.count(1)


def new_id() -> str:
    """Return a new request id: a random prefix of this process, and a number."""
    return f"{_PREFIX}-{next(_NUMBERS):x}"


@dataclass(slots=True)
class Ledger:
    """How many retries and hedged calls a request has used, over all parts."""

    retries: int = 0
    hedges: int = 0


class RequestContext(msgspec.Struct, frozen=True):
    """The context of one request.

    `deadline` is in seconds of `time.monotonic` in this process. A pickled context holds the
    remaining time instead, and the process that unpickles it computes a deadline on its own clock.
    All parts use `now_ms` (Unix milliseconds) as the current time for expiry, ages and time
    windows. `traceparent` is the W3C header, or "" if there is none. `caller` is the name that the
    client gives itself, or "". `ledger` counts the retries and hedged calls.
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
        """Return the context of a request that starts now.

        The deadline is `timeout_s` seconds from now. `now_ms` is the current time by default.
        Without an `id`, the context gets a new one.
        """
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
        """Return the seconds until the deadline. They are negative if it has passed."""
        return self.deadline - time.monotonic()

    def within(self, seconds: float) -> RequestContext:
        """Return a context whose deadline is at most `seconds` from now. It shares the ledger.

        If the deadline of this context is not later than that, return this context itself.
        """
        deadline = time.monotonic() + seconds
        if self.deadline <= deadline:
            return self
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
        """Raise `DeadlineExceeded`, whose message names `part`, if the deadline has passed."""
        left_s = self.left_s()
        if left_s <= 0:
            raise DeadlineExceeded(f"{part}: the deadline passed {-left_s * 1000:.0f} ms ago")

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
    """Return the unpickled context, with a deadline on the clock of this process."""
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
