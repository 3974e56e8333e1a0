"""Decide which of two values of a row to keep, for stores that compare rows in this process."""

from __future__ import annotations

from kirana.stores.rows import RowCodec


def replaces(value: bytes, stored: bytes | None, codec: RowCodec) -> bool:
    """Return whether a write of `value` replaces `stored`, which is None if there is no row."""
    return stored is None or codec.write_order(value) >= codec.write_order(stored)


def copy_replaces(value: bytes, stored: bytes | None, codec: RowCodec) -> bool | None:
    """Return whether `value`, a copy from a slower tier, replaces `stored`.

    `stored` is None if there is no row. Return None if both have the same write order but different
    bytes. Neither can be trusted then, and the caller must remove the row.
    """
    if stored is None:
        return True
    copy_order, stored_order = codec.write_order(value), codec.write_order(stored)
    if copy_order == stored_order and value != stored:
        return None
    return copy_order > stored_order
