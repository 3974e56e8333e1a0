"""Decide which of two values of a row to keep, for stores that compare rows in this process."""

from __future__ import annotations

from kirana.stores.rows import RowCodec


def replaces(value: bytes, stored: bytes | None, codec: RowCodec) -> bool:
    """Return whether a write of `value` replaces `stored`, which is None if there is no row."""
    return stored is None or codec.write_order(value) >= codec.write_order(stored)
