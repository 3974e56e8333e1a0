"""What a feature store does; every backend passes `tests/contract/test_feature_store.py`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

Order = Callable[[bytes], tuple[int, bool]]
"""Event time and tombstone of a value: a write replaces what is not greater than itself."""


class FeatureStore(Protocol):
    """Bytes by key. Values are opaque: what they mean, and whether they expired, is the codec's."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one value a key, in order; None where there is none.

        Raises `Unavailable` if the database does not answer.
        """

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], order: Order) -> int:
        """Write durably and all together; return how many were not older than what was there."""

    async def close(self) -> None:
        """Let go of the database. No-op if closed."""
