"""The limit on the bytes that one call of a store may read."""

from __future__ import annotations

from kirana.errors import FieldPath, TooLarge

MAX_READ_BYTES = 64 << 20
"""The most bytes of rows or events that one call may read, and of strings in one reply."""


def check_bytes(total: int, what: str, advice: str, *, field: FieldPath = ()) -> None:
    """Raise `TooLarge` if `total` is more than `MAX_READ_BYTES`.

    The message says that `what` have too many bytes, and ends with `advice`.
    """
    if total > MAX_READ_BYTES:
        message = f"{what} have more than {MAX_READ_BYTES} bytes: {advice}"
        raise TooLarge(message, field=field)


class ReadBytes:
    """The bytes that a call has read so far. `what` and `advice` are those of `check_bytes`.

    `limit` is a smaller limit than `MAX_READ_BYTES`, for a call that can go on in another way.
    """

    def __init__(self, what: str, advice: str, limit: int | None = None) -> None:
        self._what = what
        self._advice = advice
        self._limit = limit
        self._total = 0

    def add(self, count: int) -> None:
        """Count more bytes. Raise `TooLarge` if the call has read more than the limit."""
        self._total += count
        if self._limit is not None and self._total > self._limit:
            raise TooLarge(f"{self._what} have more than {self._limit} bytes: {self._advice}")
        check_bytes(self._total, self._what, self._advice)
