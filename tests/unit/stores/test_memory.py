"""What only the store in memory does; the rest is `tests/contract/test_feature_store.py`."""

from __future__ import annotations

import pytest

from kirana.errors import Unavailable
from kirana.stores import open_feature_store
from tests.store_calls import read_values, write_rows
from tests.support import ByOrder


def order(stored: bytes) -> tuple[int, bool]:
    return len(stored), False


async def test_another_store_shares_nothing() -> None:
    one, other = open_feature_store("memory://"), open_feature_store("memory://")
    assert await write_rows(one, [b"a"], [b"1"], ByOrder(order)) == 1
    assert await read_values(other, [b"a"]) == [None]


async def test_within_a_call_an_empty_value_is_a_value_too() -> None:
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
