"""How much one request may ask for; what is more gets a 413 that names the field."""

from __future__ import annotations

from dataclasses import dataclass

MAX_KEYS = 10_000
"""Keys of one entity, or pairs of user and event type."""
MAX_EVENTS = 10_000
MAX_INTERACTIONS = 10_000
"""Events of one user and type."""
MAX_CELLS = 2_000_000
"""Keys times values, or users times types times the events of each."""
MAX_HISTORY = 1_000


@dataclass(frozen=True, slots=True)
class Limits:
    """What a cluster sets for itself."""

    max_body_bytes: int = 8 << 20
    max_ongoing: int = 512
    """Requests under way in one replica, through all its doors; what is more gets a 503."""
    timeout_ms: int = 5_000
    """Of a request that names none in `x-kirana-timeout-ms`; body and answer together."""
