"""How much one request may ask for; what is more gets a 413 that names the field."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    max_body_bytes: int = 8 << 20
    max_keys: int = 10_000
    max_cells: int = 2_000_000
    max_events: int = 10_000
    max_interactions: int = 10_000
    max_ongoing: int = 512
    """Requests under way in one replica, through all its doors; what is more gets a 503."""
    timeout_ms: int = 5_000
    """Of a request that names none in `x-kirana-timeout-ms`; body and answer together."""
