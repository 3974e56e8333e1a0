"""What a tier of the interaction store does; see `tests/contract/test_interaction_store.py`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from kirana.interactions.source import Event, InteractionQuery, Interactions


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of one event type: the newest `keep` a user, for `ttl_ms` (0 = for ever).

    With `latest_only` a product stands once, at the newest of its times.
    """

    keep: int
    ttl_ms: int = 0
    latest_only: bool = False


class InteractionStore(Protocol):
    async def append(self, events: Sequence[Event], retention: Mapping[str, Retention]) -> None:
        """Store events durably and all together. Idempotent, in any order of time."""

    async def query(
        self, queries: Sequence[InteractionQuery], retention: Mapping[str, Retention]
    ) -> list[Interactions]:
        """Return the newest events that fit, for each query.

        What was stored by another rule is answered by that of `retention`: of the newest `keep`
        of a user, and with `latest_only` each product at its newest time.
        """

    async def forget(self, user_id: str) -> int:
        """Remove everything of one person; return how many events that were."""

    async def close(self) -> None:
        """Let go of the database. No-op if closed."""
