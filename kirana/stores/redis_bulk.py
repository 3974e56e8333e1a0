"""Bulk writes to a Redis: commands for many rows are made as blocks of bytes, by numpy.

Rows of one size whose keys are of one length have commands of one length: a table of bytes, of
which only the columns of the key, of the value and of the time differ from row to row. So no
Python object is made a row, and the client keeps up with what the server can take.
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

from kirana.ragged import Bytes, table_of_equal
from kirana.stores.redis_script import GUARDED_AT_ONCE, WRITE
from kirana.stores.row_keys import key_prefix
from kirana.stores.rows import RowBlock, Times

PLAIN_AT_ONCE = 1_000
REQUEST_BYTES = 4 << 20
UNDER_WAY = 4
"""Commands that are sent before the answer to the first is waited for."""

ANSWER_S = 10.0

Pieces = list[bytes | Bytes]
"""What stands side by side in a command per row: bytes are the same in each."""

_DIGITS = 13
"""Of a time in ms from 2001 to 2286; what is to be forgotten before that is forgotten at once."""

_OK = b"+OK\r\n"
_ONE = b":1\r\n"
_ZERO = b":0\r\n"


class WriteMode(Enum):
    """How rows are written; the guard leaves alone what is newer than they are."""

    PLAIN = auto()
    GUARDED = auto()
    GUARDED_EACH = auto()
    """A run of the guard for each row: the keys of one run must be of one slot of a cluster."""


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes to send, of so many rows."""

    data: bytes
    rows: int


async def load_block(connection: Any, block: RowBlock, forget_ms: Times, mode: WriteMode) -> int:
    """Write all rows through one connection; return how many were not older than what was there.

    The server must know the guard script. Raises `RedisError` if the server
    refuses one, and leaves the rest unwritten; the connection is closed then.
    """
    waiting: deque[Request] = deque()
    written = 0
    try:
        for request in _requests(block, forget_ms, mode):
            await connection.send_packed_command(request.data)
            waiting.append(request)
            if len(waiting) >= UNDER_WAY:
                written += await _answer(connection, waiting.popleft(), mode)
        while waiting:
            written += await _answer(connection, waiting.popleft(), mode)
    except BaseException:
        # answers may still be on their way, to nobody
        await connection.disconnect()
        raise
    return written


async def _answer(connection: Any, request: Request, mode: WriteMode) -> int:
    """Return how many rows were written. redis-py would make an object of each answer."""
    if mode is WriteMode.GUARDED:
        found = await connection.read_response(timeout=ANSWER_S)
        if found is None:
            # redis-py's way to say so, where a limit is given
            raise TimeoutError(f"no answer in {ANSWER_S:.0f} s")
        return int(found)
    size = len(_OK if mode is WriteMode.PLAIN else _ONE) * request.rows
    async with asyncio.timeout(ANSWER_S):
        said: bytes = await connection._reader.readexactly(size)
    good = said.count(_OK if mode is WriteMode.PLAIN else _ONE)
    known = good if mode is WriteMode.PLAIN else good + said.count(_ZERO)
    if known != request.rows:
        lines = said.split(b"\r\n")
        refused = next(line for line in lines if line not in (b"+OK", b":0", b":1"))
        raise ResponseError(refused[1:].decode(errors="replace"))
    return good


def _requests(block: RowBlock, forget_ms: Times, mode: WriteMode) -> Iterator[Request]:
    prefix, codec = key_prefix(block.group).encode(), block.codec.name.encode()
    key_sizes, value_sizes, endings = block.key_sizes, block.value_sizes, forget_ms != 0
    # rows of one shape stand together; of one key, the later row comes later
    alike = (endings, value_sizes, key_sizes, block.turns)
    order = np.lexsort(alike)
    changes = np.any([np.diff(each[order]) != 0 for each in alike], axis=0)
    equal = len(value_sizes) > 0 and bool((value_sizes == value_sizes[0]).all())
    for group in np.split(order, np.flatnonzero(changes) + 1):
        if not len(group):
            continue
        key_size, value_size = int(key_sizes[group[0]]), int(value_sizes[group[0]])
        at_once = GUARDED_AT_ONCE if mode is WriteMode.GUARDED else PLAIN_AT_ONCE
        at_once = max(min(at_once, REQUEST_BYTES // (key_size + value_size + 1)), 1)
        for at in range(0, len(group), at_once):
            rows = group[at : at + at_once]
            texts = table_of_equal(block.keys, block.key_ends[rows] - key_size, key_size)
            keys: Pieces = [b"$%d\r\n" % (len(prefix) + key_size), prefix, texts, b"\r\n"]
            if equal:
                # of one size: whole rows are copied, and not byte by byte
                values = block.values.reshape(-1, value_size)[rows]
            else:
                starts = block.value_ends[rows] - value_size
                values = table_of_equal(block.values, starts, value_size)
            times = _digits(forget_ms[rows]) if endings[group[0]] else None
            if mode is WriteMode.PLAIN:
                data = _set_commands(keys, values, times)
            elif mode is WriteMode.GUARDED:
                data = _script_command(keys, values, times, codec)
            else:
                data = _script_commands(keys, values, times, codec)
            yield Request(data, len(rows))


def _set_commands(keys: Pieces, values: Bytes, times: Bytes | None) -> bytes:
    words = 3 if times is None else 5
    pieces = [b"*%d\r\n$3\r\nSET\r\n" % words, *keys, *_bulk(values)]
    if times is not None:
        pieces += [b"$4\r\nPXAT\r\n", *_bulk(times)]
    return _side_by_side(pieces, len(values))


def _script_command(keys: Pieces, values: Bytes, times: Bytes | None, codec: bytes) -> bytes:
    count = len(values)
    return b"".join(
        (
            _script_head(count),
            _side_by_side(keys, count),
            _word(codec),
            _side_by_side(_arguments(values, times), count),
        )
    )


def _script_commands(keys: Pieces, values: Bytes, times: Bytes | None, codec: bytes) -> bytes:
    pieces = [_script_head(1), *keys, _word(codec), *_arguments(values, times)]
    return _side_by_side(pieces, len(values))


def _script_head(rows: int) -> bytes:
    head = b"*%d\r\n$7\r\nEVALSHA\r\n" % (4 + 3 * rows)
    return head + _word(WRITE.sha.encode()) + _word(b"%d" % rows)


def _word(text: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(text), text)


def _arguments(values: Bytes, times: Bytes | None) -> Pieces:
    return [*_bulk(values), *(_bulk(times) if times is not None else [_word(b"0")])]


def _bulk(column: Bytes) -> Pieces:
    """A string of Redis' protocol in each row."""
    return [b"$%d\r\n" % column.shape[1], column, b"\r\n"]


def _side_by_side(pieces: Pieces, rows: int) -> bytes:
    """Join pieces row by row."""
    columns = [
        np.broadcast_to(np.frombuffer(piece, dtype=np.uint8), (rows, len(piece)))
        if isinstance(piece, bytes)
        else piece
        for piece in pieces
    ]
    return np.concatenate(columns, axis=1).tobytes()


def _digits(numbers: Times) -> Bytes:
    clamped = np.maximum(numbers, 10 ** (_DIGITS - 1))
    powers = 10 ** np.arange(_DIGITS - 1, -1, -1, dtype=np.int64)
    found: Bytes = (clamped[:, None] // powers % 10 + ord("0")).astype(np.uint8)
    return found
