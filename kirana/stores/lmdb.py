"""Features in LMDB, the embedded default: many processes read it at once, no server."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kirana.lmdb import Environment, open_by_url
from kirana.stores.base import RowBlock, RowCodec, ping_by_read

INLINE_KEYS = 5_000
"""Up to so many keys are read on the caller's event loop: about 1 ms."""


class LmdbFeatureStore:
    """See `kirana.stores.base.FeatureStore`."""

    embedded = True

    def __init__(self, environment: Environment) -> None:
        self._environment: Environment | None = environment
        self._database = environment.database(b"features")

    @classmethod
    def open(cls, url: str, *, setting: str) -> LmdbFeatureStore:
        return cls(open_by_url(url, setting=setting))

    @property
    def environment(self) -> Environment:
        if self._environment is None:
            raise RuntimeError("the store is closed")
        return self._environment

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        def read(txn: Any) -> list[bytes | None]:
            return list(map(txn.get, keys))

        inline = len(keys) <= INLINE_KEYS
        return await self.environment.read_async(inline, read, self._database)

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], codec: RowCodec) -> int:
        def write(txn: Any) -> int:
            database, order, written = self._database, codec.order, 0
            for key, value in zip(keys, values, strict=True):
                old = txn.get(key, None, database)
                if old is None or order(value) >= order(old):
                    txn.put(key, value, db=database)
                    written += 1
            return written

        return await self.environment.write(write)

    async def load(self, block: RowBlock, codec: RowCodec, *, guarded: bool = True) -> int:
        return await self.put(block.key_list(), block.value_list(), codec)

    async def ping(self) -> bool:
        return await ping_by_read(self)

    def health(self) -> dict[str, Any]:
        return {"store": "lmdb"}

    async def close(self) -> None:
        environment, self._environment = self._environment, None
        if environment is not None:
            await asyncio.to_thread(environment.close)
