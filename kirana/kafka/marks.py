"""Marks: what the handler of a topic has done, in a second topic with the same partitions.

A mark says that messages of its partition up to an offset were done at a time. The first mark that
covers an offset counts for ever, so all readers of both topics see the same.
"""

from __future__ import annotations

import msgspec


class Mark(msgspec.Struct, frozen=True, omit_defaults=True):
    """All messages before the offset `upto` were done at `at_ms`, in Unix milliseconds.

    `revision` is what the handler calls its own state. The messages at the offsets `refused` are
    dead letters. A mark that covers nothing new only says that the time was reached. Readers work
    in periods of `period_ms` milliseconds.
    """

    upto: int
    at_ms: int
    revision: int = 0
    refused: tuple[int, ...] = ()
    period_ms: int = 60_000


def encode_mark(mark: Mark) -> bytes:
    """Return the value of a message."""
    return msgspec.json.encode(mark)


def decode_mark(value: bytes) -> Mark | None:
    """Return the mark of a message, or None if it is none."""
    try:
        return msgspec.json.decode(value, type=Mark)
    except msgspec.MsgspecError:
        return None
