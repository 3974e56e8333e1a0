"""What others ask of the interaction store, wherever it runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from kirana.request import RequestContext
from kirana.service import Service

MAX_TIMESTAMP_MS = (1 << 53) - 1
"""The largest that every JSON reader, and a Redis score, holds exactly."""


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that a person did. The same user, type, product and time is the same event."""

    user_id: str
    event: str
    product_id: str
    timestamp_ms: int
    metadata: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class InteractionQuery:
    """The newest `limit` events of a user and type with `since_ms <= timestamp <= until_ms`."""

    user_id: str
    event: str
    limit: int
    since_ms: int = 0
    until_ms: int = MAX_TIMESTAMP_MS


@dataclass(frozen=True, slots=True)
class Interactions:
    """Newest first; events of one millisecond in descending order of product."""

    product_ids: list[str]
    timestamps_ms: npt.NDArray[np.int64]
    metadata: list[dict[str, Any] | None]

    @classmethod
    def empty(cls) -> Interactions:
        return cls([], np.empty(0, dtype=np.int64), [])

    def __len__(self) -> int:
        return len(self.product_ids)


@dataclass(frozen=True, slots=True)
class Appended:
    """What became of events: `expired` ones were past the TTL of their type as they came."""

    accepted: int
    expired: int = 0


class InteractionSource(Service, Protocol):
    """Every call is judged on the revision and at the time of its request."""

    async def append(self, events: Sequence[Event], context: RequestContext) -> Appended:
        """Store all events durably, or none.

        Raises `Unknown` or `InvalidInput` with a field like `events[3].timestamp`.
        """

    async def query(
        self, queries: Sequence[InteractionQuery], context: RequestContext
    ) -> list[Interactions]:
        """Answer all queries. Raises `Unknown` for an event type, never for a user.

        Fields are like `queries[3].event`.
        """

    async def forget(self, user_id: str, context: RequestContext) -> int:
        """Remove everything of one person; return how many events that were."""
