"""A store for tests of the read path: it counts, it can be paused, and it can fail."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np

from kirana.codecs import CODECS, Column, Status
from kirana.errors import Unavailable
from kirana.features.fetch import Fetched, Fetcher
from kirana.schema import Entity, Feature, FeatureGroup, Key, SchemaVersion
from kirana.stores import RowBlock, RowKeys, StoredRows, Written
from kirana.stores.row_keys import all_row_keys, block_keys, row_keys, shared_out
from kirana.stores.rows import Times, WalkPage

T = TypeVar("T")

NOW = 1_700_000_000
PRODUCT = Entity("product", (Key("product_id"),))
A = Feature("a", "int64", default=-1)
B = Feature("b", "int64", default=-2)
TITLE = Feature("title", "string", default="?")

Read = tuple[str, int]
"""The status of a row, and its feature `a`."""

MISSING = ("missing", -1)
UNAVAILABLE = ("unavailable", -1)


def ok(number: int) -> Read:
    return ("ok", number)


def group_of(
    name: str, *versions: Sequence[Feature], codec: str = "packed", checksum: bool = False
) -> FeatureGroup:
    numbered = tuple(SchemaVersion(name, at, tuple(v)) for at, v in enumerate(versions, start=1))
    return FeatureGroup(name, PRODUCT, 0, codec, numbered, checksum)


ONE = group_of("product.one", [A])
TWO = group_of("product.two", [A])


def encode(group: FeatureGroup, a: int, *, number: int = 0, title: str = "") -> bytes:
    """A row of schema version `number`, 0 for the newest."""
    version = group.versions[number - 1]
    values: dict[str, Any] = {"a": a, "b": 0, "title": title}
    columns = {
        each.name: Column(
            np.array([values[each.name]], dtype=object if each.dtype == "string" else np.int64)
        )
        for each in version.features
    }
    times = np.array([NOW * 1000], dtype=np.uint64)
    (encoded,) = CODECS[group.codec].encode(group, version, columns, times)
    return encoded


def key_of(group: FeatureGroup, key: str) -> bytes:
    return f"f:{group.name}:{key}".encode()


def read_of(fetched: Fetched, group: FeatureGroup) -> list[Read]:
    rows = fetched.decode(group, NOW)
    numbers = rows.column("a").values.tolist()
    return [(Status(s).name.lower(), n) for s, n in zip(rows.status.tolist(), numbers, strict=True)]


async def read(fetcher: Fetcher, keys: Sequence[str], group: FeatureGroup = ONE) -> list[Read]:
    (fetched,) = await fetcher.fetch([group], keys)
    return read_of(fetched, group)


async def soon(task: asyncio.Task[T]) -> T:
    """Wait for a task, but not for ever: where a call is not answered, the test fails."""
    return await asyncio.wait_for(task, 10.0)


async def settle() -> None:
    """Let everything run that can."""
    for _ in range(20):
        await asyncio.sleep(0)


class Clock:
    """Seconds, as `time.monotonic` gives them; stands until it is moved."""

    def __init__(self, now: float = 5_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@dataclass
class Call:
    keys: list[bytes]
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False


class CountedStore:
    """A dict. Paused, it gives what was there when it was asked, and when it is told to."""

    embedded = False

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.calls: list[Call] = []
        self.paused = False
        self.down = False
        self.away: set[bytes] = set()
        """Keys of nodes that do not answer."""

    @property
    def batches(self) -> list[list[bytes]]:
        return [call.keys for call in self.calls]

    @property
    def asked(self) -> list[bytes]:
        return [key for call in self.calls for key in call.keys]

    def set(self, group: FeatureGroup, **rows: int) -> None:
        """Rows by `k<key>`."""
        for name, number in rows.items():
            self.values[key_of(group, name.removeprefix("k"))] = encode(group, number)

    def answer(self, at: int, *, fails: bool = False) -> None:
        """Let one call go; of one that was answered, nothing changes."""
        call = self.calls[at]
        if not call.answered.is_set():
            call.fails = fails
            call.answered.set()

    def resume(self) -> None:
        self.paused = False
        for at in range(len(self.calls)):
            self.answer(at)

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        keys = all_row_keys(wanted)
        call = Call(keys)
        self.calls.append(call)
        found = [self.values.get(key) for key in keys]
        if self.paused:
            await call.answered.wait()
        if call.fails or self.down:
            return [StoredRows.none_of(len(rows.keys), "it is down") for rows in wanted]
        answers = []
        for values, rows in zip(shared_out(found, wanted), wanted, strict=True):
            away = [at for at, key in enumerate(row_keys(rows)) if key in self.away]
            there = [None if at in away else value for at, value in enumerate(values)]
            places = np.array(away, dtype=np.intp) if away else None
            answers.append(StoredRows(there, places, "a node is down" if away else ""))
        return answers

    async def ping(self) -> bool:
        return not self.down

    async def write(self, block: RowBlock) -> Written:
        if self.down:
            raise Unavailable("it is down")
        self.values.update(zip(block_keys(block), block.value_list(), strict=True))
        return Written(len(block))

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        return await self.write(block)

    async def back_fill(self, block: RowBlock, forget_ms: Times) -> int:
        raise NotImplementedError

    async def remove(self, rows: RowKeys) -> int:
        raise NotImplementedError

    async def walk(self, entity: str, cursor: str = "", *, limit: int = 1_000) -> WalkPage:
        raise NotImplementedError

    def health(self) -> dict[str, Any]:
        return {"store": "counted"}

    async def close(self) -> None:
        pass


def write(store: CountedStore, fetcher: Fetcher, group: FeatureGroup, key: str, a: int) -> None:
    """A write that is acknowledged."""
    store.values[key_of(group, key)] = encode(group, a)
    fetcher.written(group.name, [key])
