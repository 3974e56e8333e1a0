"""Replies to the commands of a bulk load, which are counted in the received bytes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from redis.exceptions import ResponseError

from kirana.stores.redis_bulk import Request, WriteMode, _read_replies


async def written(replies: list[bytes], mode: WriteMode) -> int:
    """Return how many rows the replies report as stored."""
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(reply + b"\r\n" for reply in replies))
    return await _read_replies(SimpleNamespace(_reader=reader), Request(b"", len(replies)), mode)


async def test_stored_rows_are_counted() -> None:
    assert await written([b"+OK"] * 7, WriteMode.PLAIN) == 7
    assert await written([b":1", b":0", b":1", b":0"], WriteMode.GUARDED_EACH) == 2


@pytest.mark.parametrize("successes", range(10))
@pytest.mark.parametrize("mode", [WriteMode.PLAIN, WriteMode.GUARDED_EACH])
async def test_a_refusal_after_any_successes_is_an_error(successes: int, mode: WriteMode) -> None:
    success = b"+OK" if mode is WriteMode.PLAIN else b":1"
    refused = b"-OOM command not allowed when used memory > 'maxmemory'."
    with pytest.raises(ResponseError):
        await written([success] * successes + [refused] * (10 - successes), mode)
