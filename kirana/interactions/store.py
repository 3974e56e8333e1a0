"""The interface of interaction stores.

Each store must pass `tests/contract/test_interaction_store.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kirana.interactions.source import Event, InteractionQuery, Interactions


@dataclass(frozen=True, slots=True)
class Retention:
    """The rule for which events of one type are kept for a user.

    Only the newest `keep` events count. With `latest_only`, only the newest event of each product
    counts. An event expires `ttl_ms` milliseconds after its timestamp, or never if `ttl_ms` is 0.
    Stores may ignore `ttl_ms`, because `InteractionService` never asks them for expired events.
    """

    keep: int
    ttl_ms: int = 0
    latest_only: bool = False


class InteractionStore(Protocol):
    """A store of events.

    In all methods, `retention` has the rule of each event type by name. Raise `Unavailable` if the
    database fails.
    """

    async def append(self, events: Sequence[Event], retention: Mapping[str, Retention]) -> None:
        """Store all events durably, or none of them.

        Events that do not count by their rule may be dropped. Storing the same events again changes
        nothing. Events can arrive in any order of time.
        """

    async def query(
        self, queries: Sequence[InteractionQuery], retention: Mapping[str, Retention]
    ) -> list[Interactions]:
        """Return one answer per query, in order.

        The rules in `retention` also apply to events that were stored under other rules: only the
        newest `keep` events are considered, and with `latest_only` only the newest event of each
        product. Raise `TooLarge` as soon as the events that were read have more bytes than
        `kirana.byte_limit.MAX_READ_BYTES`.
        """

    async def forget(self, user_id: str) -> int:
        """Remove all events of a user; return how many there were."""

    async def close(self) -> None:
        """Close the database. No-op if the store is closed already."""
