"""Bulk writes to one Redis: commands for many rows are made as blocks of bytes, by numpy.

Rows of one size whose keys are of one length have commands of one length: a table of bytes, of
which only the columns of the key, of the value and of the time differ from row to row. So no
Python object is made a row, and the client keeps up with what the server can take.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from redis.exceptions import ResponseError

from kirana.stores.base import RowBlock
from kirana.stores.redis_script import GUARDED_AT_ONCE

Bytes = npt.NDArray[np.uint8]
Times = npt.NDArray[np.int64]

PLAIN_AT_ONCE = 1_000
UNDER_WAY = 4
"""Commands that are sent before the answer to the first is waited for."""

ANSWER_S = 10.0

_DIGITS = 13
"""Of a time in ms from 2001 to 2286; what is to be forgotten before that is forgotten at once."""

_OK = b"+OK\r\n"


@dataclass(frozen=True, slots=True)
class Request:
    """Bytes to send; `rows` answers to them are `+OK`, or one is a number."""

    data: bytes
    rows: int


async def load_block(
    pool: Any, block: RowBlock, forget_ms: Times, script: bytes | None, codec: bytes
) -> int:
    """Write all rows through one connection; return how many were not older than what was there.

    `script` is the SHA-1 of the guard; without it, rows replace whatever is there. Raises
    `RedisError` if the server refuses one, and leaves the rest unwritten.
    """
    connection = await pool.get_connection()
    waiting: deque[Request] = deque()
    written = 0
    try:
        for request in _requests(block, forget_ms, script, codec):
            await connection.send_packed_command(request.data)
            waiting.append(request)
            if len(waiting) >= UNDER_WAY:
                written += await _answer(connection, waiting.popleft(), script is not None)
        while waiting:
            written += await _answer(connection, waiting.popleft(), script is not None)
    except BaseException:
        # answers may still be on their way, to nobody
        await connection.disconnect()
        raise
    finally:
        await pool.release(connection)
    return written


async def _answer(connection: Any, request: Request, counted: bool) -> int:
    if counted:
        return int(await connection.read_response(timeout=ANSWER_S))
    wanted = _OK * request.rows
    async with asyncio.timeout(ANSWER_S):
        # redis-py would make an object of each
        said: bytes = await connection._reader.readexactly(len(wanted))
    if said != wanted:
        refused = next(line for line in said.split(b"\r\n") if line != b"+OK")
        raise ResponseError(refused[1:].decode(errors="replace"))
    return request.rows


def _requests(
    block: RowBlock, forget_ms: Times, script: bytes | None, codec: bytes
) -> Iterator[Request]:
    lengths = np.diff(block.key_ends, prepend=0)
    at_once = PLAIN_AT_ONCE if script is None else GUARDED_AT_ONCE
    for length in np.unique(lengths).tolist():
        for ending in (True, False):
            alike = np.flatnonzero((lengths == length) & ((forget_ms != 0) == ending))
            for at in range(0, len(alike), at_once):
                rows = alike[at : at + at_once]
                starts = block.key_ends[rows] - length
                keys = block.keys[starts[:, None] + np.arange(length)]
                values = block.values[rows]
                times = _digits(forget_ms[rows]) if ending else None
                if script is None:
                    yield Request(_set_commands(keys, values, times), len(rows))
                else:
                    yield Request(_script_command(keys, values, times, script, codec), len(rows))


def _set_commands(keys: Bytes, values: Bytes, times: Bytes | None) -> bytes:
    words = 3 if times is None else 5
    parts = [b"*%d\r\n$3\r\nSET\r\n" % words, *_bulk(keys), *_bulk(values)]
    if times is not None:
        parts += [b"$4\r\nPXAT\r\n", *_bulk(times)]
    return _side_by_side(parts, len(keys))


def _script_command(
    keys: Bytes, values: Bytes, times: Bytes | None, script: bytes, codec: bytes
) -> bytes:
    count = len(keys)
    number = b"%d" % count
    head = b"*%d\r\n$7\r\nEVALSHA\r\n" % (4 + 3 * count)
    for word in (script, number):
        head += b"$%d\r\n%s\r\n" % (len(word), word)
    arguments = [*_bulk(values), *(_bulk(times) if times is not None else [b"$1\r\n0\r\n"])]
    return b"".join(
        (
            head,
            _side_by_side(_bulk(keys), count),
            b"$%d\r\n%s\r\n" % (len(codec), codec),
            _side_by_side(arguments, count),
        )
    )


def _bulk(column: Bytes) -> list[bytes | Bytes]:
    """A string of Redis' protocol in each row."""
    return [b"$%d\r\n" % column.shape[1], column, b"\r\n"]


def _side_by_side(parts: list[bytes | Bytes], rows: int) -> bytes:
    """Join parts row by row; bytes are the same in each."""
    columns = [
        np.broadcast_to(np.frombuffer(part, dtype=np.uint8), (rows, len(part)))
        if isinstance(part, bytes)
        else part
        for part in parts
    ]
    return np.concatenate(columns, axis=1).tobytes()


def _digits(numbers: Times) -> Bytes:
    clamped = np.maximum(numbers, 10 ** (_DIGITS - 1))
    powers = 10 ** np.arange(_DIGITS - 1, -1, -1, dtype=np.int64)
    found: Bytes = (clamped[:, None] // powers % 10 + ord("0")).astype(np.uint8)
    return found
