"""A feature store for tests of the read path: it records its calls, and can be paused or fail."""

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
from kirana.stores.row_keys import all_row_keys, block_keys, row_keys, split_by_group
from kirana.stores.rows import WalkPage

T = TypeVar("T")

NOW = 1_700_000_000
PRODUCT = Entity("product", (Key("product_id"),))
A = Feature("a", "int64", default=-1)
B = Feature("b", "int64", default=-2)
TITLE = Feature("title", "string", default="?")

Read = tuple[str, int]
"""The status of a row, and the value of its feature `a`."""

MISSING = ("missing", -1)
UNAVAILABLE = ("unavailable", -1)


def ok(number: int) -> Read:
    return ("ok", number)


def group_of(
    name: str, *versions: Sequence[Feature], codec: str = "packed", checksum: bool = False
) -> FeatureGroup:
    """Return a group without a TTL; its schema versions are numbered from 1."""
    numbered = tuple(
        SchemaVersion(name, number, tuple(features))
        for number, features in enumerate(versions, start=1)
    )
    return FeatureGroup(name, PRODUCT, 0, codec, numbered, checksum)


ONE = group_of("product.one", [A])
TWO = group_of("product.two", [A])


def encode(group: FeatureGroup, a: int, *, number: int = 0, title: str = "") -> bytes:
    """Encode a row by schema version `number`, or by the newest version if `number` is 0."""
    version = group.versions[number - 1]
    values: dict[str, Any] = {"a": a, "b": 0, "title": title}
    columns = {
        feature.name: Column(
            np.array(
                [values[feature.name]], dtype=object if feature.dtype == "string" else np.int64
            )
        )
        for feature in version.features
    }
    times = np.array([NOW * 1000], dtype=np.uint64)
    (encoded,) = CODECS[group.codec].encode(group, version, columns, times)
    return encoded


def key_of(group: FeatureGroup, key: str) -> bytes:
    return f"f:{group.name}:{key}".encode()


def read_of(fetched: Fetched, group: FeatureGroup) -> list[Read]:
    rows = fetched.decode(group, NOW)
    numbers = rows.column("a").values.tolist()
    return [
        (Status(status).name.lower(), number)
        for status, number in zip(rows.status.tolist(), numbers, strict=True)
    ]


async def read(fetcher: Fetcher, keys: Sequence[str], group: FeatureGroup = ONE) -> list[Read]:
    (fetched,) = await fetcher.fetch([group], keys)
    return read_of(fetched, group)


async def soon(task: asyncio.Task[T]) -> T:
    """Return the result of a task; raise `TimeoutError` if it takes more than 10 seconds."""
    return await asyncio.wait_for(task, 10.0)


async def settle() -> None:
    """Yield to the event loop 20 times, so that all tasks run until they wait."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass
class Call:
    """A read of the store: the keys, whether it may return, and whether it fails."""

    keys: list[bytes]
    answered: asyncio.Event = field(default_factory=asyncio.Event)
    fails: bool = False


class CountedStore:
    """A store in a dict that records its reads.

    While it is paused, a read returns only after `answer` or `resume`, with the values that were
    stored when the read began.
    """

    embedded = False

    def __init__(self) -> None:
        self.values: dict[bytes, bytes] = {}
        self.calls: list[Call] = []
        self.paused = False
        self.down = False
        self.unreachable: set[bytes] = set()
        """Row keys whose node does not answer."""

    @property
    def batches(self) -> list[list[bytes]]:
        """The keys of each read so far."""
        return [call.keys for call in self.calls]

    @property
    def keys_read(self) -> list[bytes]:
        """The keys of all reads so far, in order."""
        return [key for call in self.calls for key in call.keys]

    def set(self, group: FeatureGroup, **rows: int) -> None:
        """Store a row for each argument: `k7=3` stores 3 for the key "7"."""
        for name, number in rows.items():
            self.values[key_of(group, name.removeprefix("k"))] = encode(group, number)

    def answer(self, position: int, *, fails: bool = False) -> None:
        """Let the call at this position of `calls` return, unless it was answered before."""
        call = self.calls[position]
        if not call.answered.is_set():
            call.fails = fails
            call.answered.set()

    def resume(self) -> None:
        """Let all waiting calls return, and do not pause later ones."""
        self.paused = False
        for position in range(len(self.calls)):
            self.answer(position)

    async def read(self, wanted: Sequence[RowKeys]) -> list[StoredRows]:
        keys = all_row_keys(wanted)
        call = Call(keys)
        self.calls.append(call)
        stored = [self.values.get(key) for key in keys]
        if self.paused:
            await call.answered.wait()
        if call.fails or self.down:
            return [
                StoredRows.all_unavailable(len(rows.keys), "the store is down") for rows in wanted
            ]
        answers = []
        for values, rows in zip(split_by_group(stored, wanted), wanted, strict=True):
            down_positions = [i for i, key in enumerate(row_keys(rows)) if key in self.unreachable]
            available = [None if i in down_positions else value for i, value in enumerate(values)]
            unavailable = np.array(down_positions, dtype=np.intp) if down_positions else None
            answers.append(
                StoredRows(available, unavailable, "a node is down" if down_positions else "")
            )
        return answers

    async def ping(self) -> bool:
        return not self.down

    async def write(self, block: RowBlock) -> Written:
        if self.down:
            raise Unavailable("the store is down")
        self.values.update(zip(block_keys(block), block.value_list(), strict=True))
        return Written(len(block))

    async def load(self, block: RowBlock, *, guarded: bool = True) -> Written:
        return await self.write(block)

    async def remove(self, rows: RowKeys) -> int:
        raise NotImplementedError

    async def walk(self, entity: str, cursor: str = "", *, limit: int = 1_000) -> WalkPage:
        raise NotImplementedError

    def health(self) -> dict[str, Any]:
        return {"store": "counted"}

    async def close(self) -> None:
        pass


def write(store: CountedStore, fetcher: Fetcher, group: FeatureGroup, key: str, a: int) -> None:
    """Write a row, and invalidate it in the fetcher, as a service does."""
    store.values[key_of(group, key)] = encode(group, a)
    fetcher.invalidate(group.name, [key])
