"""What a feature store does; every backend passes `tests/contract/test_feature_store.py`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol


class ValueReader(Protocol):
    """What a store must know of values: a codec. `name` is the codec's in a feature group."""

    @property
    def name(self) -> str: ...

    def order(self, value: bytes) -> tuple[int, bool]:
        """Event time and tombstone: a write replaces what is not greater than itself."""

    def expiry_s(self, value: bytes) -> int:
        """Return the Unix seconds from which on a value is expired; 0 = never."""


class FeatureStore(Protocol):
    """Bytes by key. Values are opaque: what they mean, and whether they expired, is the codec's."""

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return one value a key, in order; None where there is none.

        Raises `Unavailable` if the database does not answer.
        """

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], reader: ValueReader) -> int:
        """Write durably; return how many were not older than what was there.

        A store that forgets what has expired keeps it a tenth of its time longer, at least a
        minute, so that it is seen as expired.
        """

    def health(self) -> dict[str, Any]:
        """Return what people should know of its state: plain values."""

    async def close(self) -> None:
        """Let go of the database. No-op if closed."""
