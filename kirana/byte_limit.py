"""The limit on the bytes that one request may read."""

from __future__ import annotations

from kirana.errors import TooLarge

MAX_READ_BYTES = 64 << 20
"""The most bytes of rows or events that one call may read, and of strings in one reply."""


def too_many_bytes(what: str, advice: str) -> TooLarge:
    """Return the error for a read of more than `MAX_READ_BYTES`, which the caller raises."""
    return TooLarge(f"{what} have more than {MAX_READ_BYTES} bytes: {advice}")


class ReadBytes:
    """The bytes that a call has read so far. `what` and `advice` are parts of the error."""

    def __init__(self, what: str, advice: str) -> None:
        self._what = what
        self._advice = advice
        self._total = 0

    def add(self, count: int) -> None:
        """Count more bytes. Raise `TooLarge` if the call has read more than `MAX_READ_BYTES`."""
        self._total += count
        if self._total > MAX_READ_BYTES:
            raise too_many_bytes(self._what, self._advice)
