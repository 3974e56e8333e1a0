"""The interface of the interactions part: its protocol and data types."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kirana.request import RequestContext
from kirana.service import Service

MAX_TIMESTAMP_MS = (1 << 53) - 1
"""The latest timestamp. JSON parsers that use doubles keep all integers up to this one exact."""


@dataclass(frozen=True, slots=True)
class Event:
    """One action of a user. `event` is its type, and `timestamp_ms` is in Unix milliseconds.

    Events with the same user, type, product and time are the same event.
    """

    user_id: str
    event: str
    product_id: str
    timestamp_ms: int
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class InteractionQuery:
    """A query for the newest events of one user and event type.

    Its result has at most `limit` events with `since_ms <= timestamp_ms <= until_ms`.
    """

    user_id: str
    event: str
    limit: int
    since_ms: int = 0
    until_ms: int = MAX_TIMESTAMP_MS


@dataclass(frozen=True, slots=True)
class Interactions:
    """Events of one user and type as columns, newest first.

    Events of the same millisecond are in descending order of product id.
    """

    product_ids: list[str]
    timestamps_ms: npt.NDArray[np.int64]
    metadata: list[dict[str, Any] | None]

    @classmethod
    def empty(cls) -> Interactions:
        """Return interactions without an event."""
        return cls([], np.empty(0, dtype=np.int64), [])

    def __len__(self) -> int:
        return len(self.product_ids)


@dataclass(frozen=True, slots=True)
class Appended:
    """How many events an append accepted, and how many had expired.

    `accepted` is the number of events within the TTL of their type. `expired` is the number of
    events that were past it when they arrived. Queries do not return expired events.
    """

    accepted: int
    expired: int = 0


class InteractionSource(Service, Protocol):
    """Stores and queries events of users.

    Each call uses the revision and the time of its `RequestContext`.
    """

    async def append(self, events: Sequence[Event], context: RequestContext) -> Appended:
        """Store all events durably, or none of them.

        Events that their type does not keep may be dropped, for example older repeats.
        Raise `Unknown` for an unknown event type, and `InvalidInput` for an invalid event. The
        field of the error is like `events[3].timestamp`. Raise `Unavailable` if the events can't be
        stored.
        """

    async def query(
        self, queries: Sequence[InteractionQuery], context: RequestContext
    ) -> list[Interactions]:
        """Return one answer per query, in order.

        Raise `Unknown` for an unknown event type, and `InvalidInput` for an invalid user id. The
        field of the error is like `queries[3].event`. Raise `TooLarge` if the events have more than
        `MAX_READ_BYTES`, and `Unavailable` if the store can't be read. A user without events is
        not an error.
        """

    async def forget(self, user_id: str, context: RequestContext) -> int:
        """Remove all events of a user; return how many there were.

        Raise `InvalidInput` for an invalid user id, and `Unavailable` if the events can't be
        removed.
        """
