"""Rows that are copied from one database to another with the tools of the databases."""

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

each_codec = pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
KEYS = row_keys(RowKeys("product.g", ["1", "two", "3:é|\\"]))


def rows_of(codec: Codec) -> dict[bytes, bytes]:
    titles = ["a title", "né, a;\\ b\n", ""]
    return {
        key: row(codec, title, NOW_MS + i)
        for i, (key, title) in enumerate(zip(KEYS, titles, strict=True))
    }


def lmdb_tool(command: str, folder: Path, file: Path) -> None:
    tool = [sys.executable, "-m", "lmdb", command, "-e", str(folder), f"features={file}"]
    if command == "restore":
        tool += ["--map_size", "16"]
    subprocess.run(tool, check=True, capture_output=True)


def cdbmake(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the key and value of each record `+<sizes>:<key>-><value>` of a dump by LMDB."""
    position = 0
    while content[position : position + 1] == b"+":
        start = content.index(b":", position)
        key_size, value_size = (int(size) for size in content[position + 1 : start].split(b","))
        position = start + 1 + key_size
        yield content[start + 1 : position], content[position + 2 : position + 2 + value_size]
        position += 2 + value_size + 1


@each_codec
async def test_a_dump_of_redis_6_is_restored_by_redis_7(
    servers: RedisServers, codec: Codec
) -> None:
    old, new = servers.empty("redis 6.2"), servers.empty("redis 7")
    rows = rows_of(codec)
    async with opened(old) as store:
        await write_rows(store, [*rows], [*rows.values()], codec)
    with redis.Redis.from_url(old) as source, redis.Redis.from_url(new) as target:
        for key in rows:
            dumped, ttl_ms = source.dump(key), source.pttl(key)
            assert isinstance(ttl_ms, int)
            assert ttl_ms > 0
            target.restore(key, ttl_ms, dumped)
    async with opened(new) as store:
        assert list(await read_values(store, KEYS)) == [*rows.values()]
        older = [row(codec, "older", NOW_MS - 1)] * len(rows)
        assert await write_rows(store, KEYS, older, codec) == 0


@each_codec
async def test_rows_dumped_by_lmdb_are_read_from_redis(
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


@each_codec
async def test_rows_of_redis_are_restored_into_lmdb(
    servers: RedisServers, codec: Codec, tmp_path: Path
) -> None:
    rows = rows_of(codec)
    url = servers.empty("redis 7")
    async with opened(url) as store:
        await write_rows(store, [*rows], [*rows.values()], codec)
    file = tmp_path / "features.cdbmake"
    with redis.Redis.from_url(url) as source, file.open("wb") as dump:
        for key in source.scan_iter():
            value = source.get(key)
            assert isinstance(value, bytes)
            dump.write(b"+%d,%d:%b->%b\n" % (len(key), len(value), key, value))
        dump.write(b"\n")
    async with opened(f"lmdb://{tmp_path}/features"):
        # Create the store before the tool fills it.
        pass
    lmdb_tool("restore", tmp_path / "features", file)
    async with opened(f"lmdb://{tmp_path}/features") as store:
        assert await read_values(store, KEYS) == [*rows.values()]
