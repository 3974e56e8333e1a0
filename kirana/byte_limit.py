"""The limit on the bytes that one call of a store may read."""

from __future__ import annotations

from kirana.errors import FieldPath, TooLarge

MAX_READ_BYTES = 64 << 20
"""The most bytes of rows or events that one call may read, and of strings in one reply."""


def check_bytes(
    total: int, what: str, advice: str, *, limit: int | None = None, field: FieldPath = ()
) -> None:
    """Raise `TooLarge` if `total` is more than `MAX_READ_BYTES`, or than a smaller `limit`.

    The message says that `what` have too many bytes, and ends with `advice`.
    """
    most = MAX_READ_BYTES if limit is None else min(limit, MAX_READ_BYTES)
    if total > most:
        raise TooLarge(f"{what} have more than {most} bytes: {advice}", field=field)


class ReadBytes:
    """The bytes that a call has read so far. The arguments are those of `check_bytes`.

    A call that can go on in another way gives a smaller `limit`.
    """

    def __init__(self, what: str, advice: str, limit: int | None = None) -> None:
        self._what = what
        self._advice = advice
        self._limit = limit
        self._total = 0

    def add(self, count: int) -> None:
        """Count more bytes. Raise `TooLarge` if the call has read more than the limit."""
        self._total += count
        check_bytes(self._total, self._what, self._advice, limit=self._limit)
