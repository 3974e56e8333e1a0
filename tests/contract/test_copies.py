"""A row goes from database to database by their own tools, and is read as it was."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from kirana.codecs import CODECS, Codec
from kirana.stores import RowKeys
from kirana.stores.row_keys import row_keys
from tests.contract.redis_rows import NOW_MS, opened, row
from tests.redis_servers import RedisServers
from tests.store_calls import read_values, write_rows

CODECS_BY_NAME = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
KEYS = row_keys(RowKeys("product.g", ["1", "two", "3:é|\\"]))


def rows_of(codec: Codec) -> dict[bytes, bytes]:
    titles = ["a title", "né, a;\\ b\n", ""]
    return {
        key: row(codec, title, NOW_MS + at)
        for at, (key, title) in enumerate(zip(KEYS, titles, strict=True))
    }


def lmdb_tool(command: str, folder: Path, file: Path) -> None:
    tool = [sys.executable, "-m", "lmdb", command, "-e", str(folder), f"features={file}"]
    if command == "restore":
        tool += ["--map_size", "16"]
    subprocess.run(tool, check=True, capture_output=True)


def cdbmake(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Read the text form that LMDB's tool shares with cdb: `+<sizes>:<key>-><value>` a line."""
    at = 0
    while content[at : at + 1] == b"+":
        start = content.index(b":", at)
        key, value = (int(size) for size in content[at + 1 : start].split(b","))
        at = start + 1 + key
        yield content[start + 1 : at], content[at + 2 : at + 2 + value]
        at += 2 + value + 1


@CODECS_BY_NAME
async def test_redis_dumps_what_a_newer_one_restores(servers: RedisServers, codec: Codec) -> None:
    old, new = servers.empty("redis 6.2"), servers.empty("redis 7")
    rows = rows_of(codec)
    async with opened(old) as store:
        await write_rows(store, [*rows], [*rows.values()], codec)
    with redis.Redis.from_url(old) as source, redis.Redis.from_url(new) as target:
        for key in rows:
            dumped, left_ms = source.dump(key), source.pttl(key)
            assert isinstance(left_ms, int)
            assert left_ms > 0
            target.restore(key, left_ms, dumped)
    async with opened(new) as store:
        assert list(await read_values(store, KEYS)) == [*rows.values()]
        older = [row(codec, "older", NOW_MS - 1)] * len(rows)
        assert await write_rows(store, KEYS, older, codec) == 0


@CODECS_BY_NAME
async def test_what_lmdb_dumps_is_what_redis_is_given(
    servers: RedisServers, codec: Codec, tmp_path: Path
) -> None:
    rows = rows_of(codec)
    async with opened(f"lmdb://{tmp_path}/features") as store:
        await write_rows(store, [*rows], [*rows.values()], codec)
    file = tmp_path / "features.cdbmake"
    lmdb_tool("dump", tmp_path / "features", file)
    assert dict(cdbmake(file.read_bytes())) == rows
    url = servers.empty("redis 7")
    with redis.Redis.from_url(url) as target:
        for key, value in cdbmake(file.read_bytes()):
            target.set(key, value)
    async with opened(url) as store:
        assert list(await read_values(store, KEYS)) == [*rows.values()]


@CODECS_BY_NAME
async def test_what_redis_gives_lmdb_restores(
    servers: RedisServers, codec: Codec, tmp_path: Path
) -> None:
    rows = rows_of(codec)
    url = servers.empty("redis 7")
    async with opened(url) as store:
        await write_rows(store, [*rows], [*rows.values()], codec)
    file = tmp_path / "features.cdbmake"
    with redis.Redis.from_url(url) as source, file.open("wb") as to:
        for key in source.scan_iter():
            value = source.get(key)
            assert isinstance(value, bytes)
            to.write(b"+%d,%d:%b->%b\n" % (len(key), len(value), key, value))
        to.write(b"\n")
    async with opened(f"lmdb://{tmp_path}/features"):
        # the folder is Kirana's before the tool fills it
        pass
    lmdb_tool("restore", tmp_path / "features", file)
    async with opened(f"lmdb://{tmp_path}/features") as store:
        assert await read_values(store, KEYS) == [*rows.values()]
