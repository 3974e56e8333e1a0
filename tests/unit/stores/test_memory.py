"""Tests of the memory store that are not in the suite of all stores.

`tests/contract/test_feature_store.py` tests what all stores have in common.
"""

from __future__ import annotations

import pytest

from kirana.errors import Unavailable
from kirana.stores import open_feature_store
from tests.store_calls import read_values, write_rows
from tests.support import ByOrder


def order(stored: bytes) -> tuple[int, bool]:
    return len(stored), False


async def test_two_memory_stores_share_nothing() -> None:
    first, second = open_feature_store("memory://"), open_feature_store("memory://")
    assert await write_rows(first, [b"a"], [b"1"], ByOrder(order)) == 1
    assert await read_values(second, [b"a"]) == [None]


async def test_an_empty_value_counts_as_a_row_within_a_write() -> None:
    def shortest(stored: bytes) -> tuple[int, bool]:
        return 10 - len(stored), False

    store = open_feature_store("memory://")
    await write_rows(store, [b"a"], [b"long"], ByOrder(shortest))
    assert await write_rows(store, [b"a", b"a"], [b"", b"1"], ByOrder(shortest)) == 1
    assert await read_values(store, [b"a"]) == [b""]


async def test_a_closed_store_neither_reads_nor_writes() -> None:
    store = open_feature_store("memory://")
    await write_rows(store, [b"a"], [b"1"], ByOrder(order))
    await store.close()
    with pytest.raises(Unavailable, match="closed"):
        await read_values(store, [b"a"])
    with pytest.raises(Unavailable, match="closed"):
        await write_rows(store, [b"a"], [b"2"], ByOrder(order))
