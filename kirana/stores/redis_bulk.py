"""Bulk writes to Redis: numpy builds the commands for many rows as one block of bytes.

The shape of a row is the size of its key, the size of its value, and whether it expires. Rows of
one shape need commands of one size. These commands form a table of bytes in which only the columns
of the key, the value and the time differ between rows. No Python object is created per row.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import numpy as np
from redis.exceptions import ResponseError

from kirana.ragged import Bytes, gather_table
from kirana.stores.redis_script import GUARDED_AT_ONCE, WRITE
from kirana.stores.row_keys import key_prefix
from kirana.stores.rows import RowBlock, Times

SINGLES_AT_ONCE = 1_000
"""Maximum number of rows per request in the modes that send one command per row."""

REQUEST_BYTES = 4 << 20
"""Maximum size of the keys and values in a request, in bytes. A single row may be larger."""

MAX_IN_FLIGHT = 4
"""Maximum number of requests that wait for their replies."""

REPLY_TIMEOUT_S = 10.0
"""Maximum time in seconds to wait for the replies to one request."""

Pieces = list[bytes | Bytes]
"""The pieces of a command, in order, for many rows.

A piece is either `bytes`, the same for all rows, or an array `uint8[rows, bytes]`.
"""

_DIGITS = 13
"""Number of digits of a Unix time in milliseconds between 2001 and 2286.

The year 2001 replaces any earlier time. This makes no difference: Redis drops a row at once if its
time has passed.
"""

_OK = b"+OK\r\n"
_ONE = b":1\r\n"
_ZERO = b":0\r\n"


class WriteMode(Enum):
    """The ways to write rows."""

    PLAIN = auto()
    """One `SET` per row. It replaces the stored row even if the stored row is newer."""

    GUARDED = auto()
    """Runs of the script `WRITE`, each over many rows. The script does not replace newer rows."""

    GUARDED_EACH = auto()
    """One run of the script `WRITE` per row, because in a cluster a run may use only one slot."""


@dataclass(frozen=True, slots=True)
class Request:
    """The commands that write `rows` rows, as bytes to send."""

    data: bytes
    rows: int


async def load_block(connection: Any, block: RowBlock, drop_at_ms: Times, mode: WriteMode) -> int:
    """Write all rows over a connection of redis-py. Return how many were stored.

    In the guarded modes, the server must have the script `WRITE`, and rows that are not stored are
    stale. In the mode `PLAIN`, all rows are stored.

    Raise `RedisError` if the server refuses a row, `TimeoutError` if it does not reply in time, and
    `RedisError`, `OSError` or `EOFError` if the connection is lost. After any error, the connection
    is closed, and some of the rows may have been written.
    """
    waiting: deque[Request] = deque()
    written = 0
    try:
        for request in _requests(block, drop_at_ms, mode):
            await connection.send_packed_command(request.data)
            waiting.append(request)
            if len(waiting) >= MAX_IN_FLIGHT:
                written += await _read_replies(connection, waiting.popleft(), mode)
        while waiting:
            written += await _read_replies(connection, waiting.popleft(), mode)
    except BaseException:
        # Replies to earlier requests may still arrive, so the connection can't be used again.
        await connection.disconnect()
        raise
    return written


async def _read_replies(connection: Any, request: Request, mode: WriteMode) -> int:
    """Read the replies to a request. Return how many of its rows were stored.

    In the modes with one reply per row, count the replies in the received bytes, because redis-py
    would create an object per reply. Raise the errors of `load_block`.
    """
    if mode is WriteMode.GUARDED:
        stored = await connection.read_response(timeout=REPLY_TIMEOUT_S)
        if stored is None:
            # redis-py returns None, and raises nothing, if a timeout given as argument has passed.
            raise TimeoutError(f"no answer in {REPLY_TIMEOUT_S:.0f} s")
        return int(stored)
    size = len(_OK if mode is WriteMode.PLAIN else _ONE) * request.rows
    async with asyncio.timeout(REPLY_TIMEOUT_S):
        replies: bytes = await connection._reader.readexactly(size)
    stored = replies.count(_OK if mode is WriteMode.PLAIN else _ONE)
    accepted = stored if mode is WriteMode.PLAIN else stored + replies.count(_ZERO)
    if accepted != request.rows:
        lines = replies.split(b"\r\n")
        refused = next(line for line in lines if line not in (b"+OK", b":0", b":1"))
        raise ResponseError(refused[1:].decode(errors="replace"))
    return stored


def _requests(block: RowBlock, drop_at_ms: Times, mode: WriteMode) -> Iterator[Request]:
    """Yield the requests that write all rows of a block.

    The rows of a request have one round (see `RowBlock.rounds`) and one shape.
    """
    prefix, codec = key_prefix(block.group).encode(), block.codec.name.encode()
    key_sizes, value_sizes, expires = block.key_sizes, block.value_sizes, drop_at_ms != 0
    # Sort the rows by round, and within a round by shape: `lexsort` sorts by the last array first.
    # Rows with the same key keep their order. They are in different rounds, or they have the same
    # shape, and `lexsort` is stable.
    criteria = (expires, value_sizes, key_sizes, block.rounds)
    order = np.lexsort(criteria)
    changes = np.any([np.diff(criterion[order]) != 0 for criterion in criteria], axis=0)
    one_size = len(value_sizes) > 0 and bool((value_sizes == value_sizes[0]).all())
    for same_shape in np.split(order, np.flatnonzero(changes) + 1):
        if not len(same_shape):
            continue
        key_size, value_size = int(key_sizes[same_shape[0]]), int(value_sizes[same_shape[0]])
        at_once = GUARDED_AT_ONCE if mode is WriteMode.GUARDED else SINGLES_AT_ONCE
        at_once = max(min(at_once, REQUEST_BYTES // (key_size + value_size + 1)), 1)
        for start in range(0, len(same_shape), at_once):
            rows = same_shape[start : start + at_once]
            texts = gather_table(block.keys, block.key_ends[rows] - key_size, key_size)
            keys: Pieces = [b"$%d\r\n" % (len(prefix) + key_size), prefix, texts, b"\r\n"]
            if one_size:
                # This copies value by value. `gather_table` copies byte by byte, which is slower.
                values = block.values.reshape(-1, value_size)[rows]
            else:
                starts = block.value_ends[rows] - value_size
                values = gather_table(block.values, starts, value_size)
            times = _digits(drop_at_ms[rows]) if expires[same_shape[0]] else None
            if mode is WriteMode.PLAIN:
                data = _set_commands(keys, values, times)
            elif mode is WriteMode.GUARDED:
                data = _script_command(keys, values, times, codec)
            else:
                data = _script_commands(keys, values, times, codec)
            yield Request(data, len(rows))


def _set_commands(keys: Pieces, values: Bytes, times: Bytes | None) -> bytes:
    """Return one `SET` command per row."""
    length = 3 if times is None else 5
    pieces = [b"*%d\r\n$3\r\nSET\r\n" % length, *keys, *_bulk_strings(values)]
    if times is not None:
        pieces += [b"$4\r\nPXAT\r\n", *_bulk_strings(times)]
    return _join_rows(pieces, len(values))


def _script_command(keys: Pieces, values: Bytes, times: Bytes | None, codec: bytes) -> bytes:
    """Return one `EVALSHA` command over all rows."""
    count = len(values)
    return b"".join(
        (
            _script_head(count),
            _join_rows(keys, count),
            _bulk_string(codec),
            _join_rows(_arguments(values, times), count),
        )
    )


def _script_commands(keys: Pieces, values: Bytes, times: Bytes | None, codec: bytes) -> bytes:
    """Return one `EVALSHA` command per row."""
    pieces = [_script_head(1), *keys, _bulk_string(codec), *_arguments(values, times)]
    return _join_rows(pieces, len(values))


def _script_head(rows: int) -> bytes:
    """Return the beginning of an `EVALSHA` command for this number of rows, up to its keys."""
    head = b"*%d\r\n$7\r\nEVALSHA\r\n" % (4 + 3 * rows)
    return head + _bulk_string(WRITE.sha.encode()) + _bulk_string(b"%d" % rows)


def _bulk_string(text: bytes) -> bytes:
    """Return `text` as a bulk string of the Redis protocol."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


def _arguments(values: Bytes, times: Bytes | None) -> Pieces:
    """Return the arguments of the script per row: the value, and when Redis may drop the row."""
    return [
        *_bulk_strings(values),
        *(_bulk_strings(times) if times is not None else [_bulk_string(b"0")]),
    ]


def _bulk_strings(column: Bytes) -> Pieces:
    """Return the pieces of one bulk string per row, `column[row]`."""
    return [b"$%d\r\n" % column.shape[1], column, b"\r\n"]


def _join_rows(pieces: Pieces, rows: int) -> bytes:
    """Return the pieces of the first row, then those of the second row, and so on."""
    columns = [
        np.broadcast_to(np.frombuffer(piece, dtype=np.uint8), (rows, len(piece)))
        if isinstance(piece, bytes)
        else piece
        for piece in pieces
    ]
    return np.concatenate(columns, axis=1).tobytes()


def _digits(numbers: Times) -> Bytes:
    """Return times as ASCII digits, `uint8[rows, _DIGITS]`."""
    clamped = np.maximum(numbers, 10 ** (_DIGITS - 1))
    powers = 10 ** np.arange(_DIGITS - 1, -1, -1, dtype=np.int64)
    digits: Bytes = (clamped[:, None] // powers % 10 + ord("0")).astype(np.uint8)
    return digits
