"""A batch that is read from the cache has the same rows as the batch that was fetched."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.fetch import Fetcher
from kirana.schema import FeatureGroup
from tests.unit.features.counted_store import (
    ONE,
    TITLE,
    A,
    B,
    CountedStore,
    encode,
    group_of,
    key_of,
    ok,
    read,
)

pytestmark = pytest.mark.usefixtures("inner_loops")

GROUPS = [
    group_of("product.strings", [TITLE, A]),
    group_of("product.grown", [A], [A, B]),
    group_of("product.lost_a_string", [A, TITLE], [A, B]),
    group_of("product.got_a_string", [A, B], [A, TITLE]),
    group_of("product.text", [A], [A, B], codec="text"),
]
KINDS = ("newest", "oldest", "titled", "absent", "empty", "damaged")
ANY_GROUP = pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)


def filled(group: FeatureGroup) -> CountedStore:
    """Return a store with a row for each of `KINDS` except "absent".

    Some rows have the same length although they have different schema versions.
    """
    store = CountedStore()
    newest = encode(group, 1)
    store.values = {
        key_of(group, "newest"): newest,
        key_of(group, "oldest"): encode(group, 2, number=1),
        key_of(group, "titled"): encode(group, 3, title="tea"),
        key_of(group, "empty"): b"",
        key_of(group, "damaged"): newest[:-1] + b"\xff\xff",
    }
    return store


async def check(group: FeatureGroup, keys: Sequence[str], before: Sequence[str] = ()) -> None:
    """Assert that `keys` read the same without a cache, and with one that has the rows of `before`.

    Also assert that only rows that are not cached are read from the store.
    """
    store = filled(group)
    expected = await read(Fetcher(store, None), keys, group)
    fetcher = Fetcher(store, FeatureCache(1 << 20, 10.0))
    await read(fetcher, before, group)
    store.calls.clear()
    assert await read(fetcher, keys, group) == expected
    assert store.keys_read == [key_of(group, key) for key in keys if key not in before]
    store.calls.clear()
    assert await read(fetcher, keys, group) == expected
    assert store.keys_read == []


@ANY_GROUP
@pytest.mark.parametrize("kind", KINDS)
async def test_a_row_of_any_kind_is_cached(group: FeatureGroup, kind: str) -> None:
    await check(group, [kind])


@ANY_GROUP
@pytest.mark.parametrize("keys", [*permutations(KINDS, 2)], ids=" ".join)
async def test_two_rows_keep_their_order(group: FeatureGroup, keys: tuple[str, str]) -> None:
    await check(group, keys)


@ANY_GROUP
@settings(max_examples=30)
@given(st.permutations(KINDS), st.lists(st.sampled_from(KINDS), unique=True))
def test_rows_keep_their_order_whichever_were_cached_before(
    group: FeatureGroup, keys: list[str], before: list[str]
) -> None:
    asyncio.run(check(group, keys, before))


async def test_a_cached_row_is_corrupt_if_another_codec_reads_it() -> None:
    """A change of the group's codec makes its old rows unreadable until they are written again."""
    store = CountedStore()
    store.set(ONE, k1=1)
    fetcher = Fetcher(store, FeatureCache(1 << 20, 10.0))
    as_text = group_of(ONE.name, [A], codec="text")
    assert await read(fetcher, ["1"]) == [ok(1)]
    assert await read(fetcher, ["1"], as_text) == [("corrupt", -1)]
    store.values[key_of(as_text, "1")] = encode(as_text, 7)
    fetcher.invalidate(ONE.name, ["1"])
    for _ in range(2):
        assert await read(fetcher, ["1"], as_text) == [ok(7)]
        assert await read(fetcher, ["1"]) == [("corrupt", -1)]
