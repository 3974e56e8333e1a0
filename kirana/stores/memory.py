"""Features in this process's memory: for tests, and for data that one replica may lose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.errors import Unavailable
from kirana.stores.base import RowBlock, RowCodec, ping_by_read


class MemoryFeatureStore:
    """See `kirana.stores.base.FeatureStore`. Another store of this process shares nothing."""

    embedded = True

    def __init__(self) -> None:
        self._values: dict[bytes, bytes] | None = {}

    async def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return list(map(self._open().get, keys))

    async def put(self, keys: Sequence[bytes], values: Sequence[bytes], codec: RowCodec) -> int:
        stored, order = self._open(), codec.order
        # all together or, where a value has no order, none
        newest: dict[bytes, bytes] = {}
        written = 0
        for key, value in zip(keys, values, strict=True):
            old = newest.get(key, stored.get(key))
            if old is None or order(value) >= order(old):
                newest[key] = value
                written += 1
        stored.update(newest)
        return written

    async def load(self, block: RowBlock, codec: RowCodec, *, guarded: bool = True) -> int:
        return await self.put(block.key_list(), block.value_list(), codec)

    async def ping(self) -> bool:
        return await ping_by_read(self)

    def health(self) -> dict[str, Any]:
        return {"store": "memory"}

    async def close(self) -> None:
        self._values = None

    def _open(self) -> dict[bytes, bytes]:
        if self._values is None:
            raise Unavailable("the memory store is closed")
        return self._values
