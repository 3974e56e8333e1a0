"""Limits on the size of requests: fixed ones, and those that each cluster sets for itself.

A body, a list or a number of cells that is too large gets a 413. A field that asks for more than
`MAX_INTERACTIONS` events or `MAX_HISTORY` revisions gets a 400.
"""

from __future__ import annotations

from dataclasses import dataclass

MAX_KEYS = 10_000
"""Keys per request, and pairs of a user and an event type per query."""
MAX_EVENTS = 10_000
"""Events per write."""
MAX_INTERACTIONS = 10_000
"""Events per user and event type in a reply."""
MAX_CELLS = 2_000_000
"""Cells per request: keys times values per key, or lists of events times events per list."""
MAX_HISTORY = 1_000
"""Revisions in a list of the catalog's history."""
HARD_LIMIT = 4
"""A replica never keeps more requests than `HARD_LIMIT` times the setting `max_ongoing`.

This is also Serve's `max_ongoing_requests`. It is far above `max_ongoing`, so that requests wait in
Kirana's queue, which knows their deadlines, and never in Serve's.
"""


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits that a cluster sets for itself."""

    max_body_bytes: int = 8 << 20
    max_ongoing: int = 2_048
    """Requests that wait or run in one replica, over all its doors. Further ones get a 503."""
    timeout_ms: int = 5_000
    """Time to read the body and to answer, for requests without `x-kirana-timeout-ms`."""
