"""Answers to a block of commands, counted by their bytes."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest
from redis.exceptions import ResponseError

from kirana.stores.redis_bulk import Request, WriteMode, _answer


async def written(said: list[bytes], mode: WriteMode) -> int:
    reader = asyncio.StreamReader()
    reader.feed_data(b"".join(each + b"\r\n" for each in said))
    return await _answer(SimpleNamespace(_reader=reader), Request(b"", len(said)), mode)


async def test_rows_that_were_written_are_counted() -> None:
    assert await written([b"+OK"] * 7, WriteMode.PLAIN) == 7
    assert await written([b":1", b":0", b":1", b":0"], WriteMode.GUARDED_EACH) == 2


@pytest.mark.parametrize("good", range(10))
@pytest.mark.parametrize("mode", [WriteMode.PLAIN, WriteMode.GUARDED_EACH])
async def test_one_refusal_among_any_answers_is_an_error(good: int, mode: WriteMode) -> None:
    fine = b"+OK" if mode is WriteMode.PLAIN else b":1"
    refused = b"-OOM command not allowed when used memory > 'maxmemory'."
    with pytest.raises(ResponseError):
        await written([fine] * good + [refused] * (10 - good), mode)
