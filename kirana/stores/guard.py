"""The law of event time, for stores that compare rows in this process."""

from __future__ import annotations

from kirana.stores.rows import RowCodec


def wins(value: bytes, stored: bytes | None, codec: RowCodec) -> bool:
    """Whether a write replaces what is stored."""
    return stored is None or codec.order(value) >= codec.order(stored)


def copy_wins(value: bytes, stored: bytes | None, codec: RowCodec) -> bool | None:
    """Whether a copy from a slower tier replaces what is stored.

    None if neither is known to be the truth: both have one event time, and other bytes.
    """
    if stored is None:
        return True
    mine, theirs = codec.order(value), codec.order(stored)
    if mine == theirs and value != stored:
        return None
    return mine > theirs
