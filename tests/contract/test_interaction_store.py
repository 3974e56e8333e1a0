"""The tests that every interaction store must pass. A new store is added here, with its URL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kirana import byte_limit
from kirana.errors import ConfigurationError, TooLarge
from kirana.interactions import Event, InteractionQuery
from kirana.interactions.open import open_interaction_store
from kirana.interactions.source import MAX_TIMESTAMP_MS
from kirana.interactions.store import InteractionStore, Retention
from kirana.loop import INLINE_BYTES

BACKENDS = ("lmdb",)
EXAMPLES = count()
"""A number for each example of a property test, so that each example has its own users."""

RETENTION = {
    "click": Retention(keep=50),
    "view": Retention(keep=3),
    "wishlist": Retention(keep=3, latest_only=True),
}
Pair = tuple[str, int]
"""A product id and a timestamp in milliseconds."""


@pytest.fixture(params=BACKENDS)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return {"lmdb": f"lmdb://{tmp_path}/interactions"}[request.param]


@pytest.fixture
async def store(url: str) -> AsyncIterator[InteractionStore]:
    opened = open_interaction_store(url)
    yield opened
    await opened.close()


def events(*pairs: Pair, user: str = "7", event: str = "click") -> list[Event]:
    return [Event(user, event, product, time) for product, time in pairs]


async def append(
    store: InteractionStore, *pairs: Pair, user: str = "7", event: str = "click"
) -> None:
    await store.append(events(*pairs, user=user, event=event), RETENTION)


async def query(
    store: InteractionStore,
    user: str = "7",
    event: str = "click",
    limit: int = 100,
    rules: Mapping[str, Retention] = RETENTION,
    **range_: int,
) -> list[Pair]:
    (result,) = await store.query([InteractionQuery(user, event, limit, **range_)], rules)
    assert result.timestamps_ms.dtype == np.int64
    assert (
        len(result) == len(result.product_ids) == len(result.timestamps_ms) == len(result.metadata)
    )
    return list(zip(result.product_ids, result.timestamps_ms.tolist(), strict=True))


async def test_a_user_without_events_has_no_interactions(store: InteractionStore) -> None:
    assert await query(store) == []
    assert await store.query([], RETENTION) == []
    await store.append([], RETENTION)


async def test_events_are_returned_newest_first_in_any_order_of_arrival(
    store: InteractionStore,
) -> None:
    await append(store, ("b", 2), ("d", 4))
    await append(store, ("c", 3), ("a", 1))
    assert await query(store) == [("d", 4), ("c", 3), ("b", 2), ("a", 1)]
    assert await query(store, limit=2) == [("d", 4), ("c", 3)]
    assert await query(store, limit=0) == []


async def test_events_of_one_millisecond_are_in_descending_order_of_product(
    store: InteractionStore,
) -> None:
    await append(store, ("b", 1), ("é", 1), ("a", 1), ("10", 1), ("🛒", 1), ("9", 1))
    assert [product for product, _ in await query(store)] == ["🛒", "é", "b", "a", "9", "10"]


async def test_a_range_includes_both_ends(store: InteractionStore) -> None:
    await append(store, *((str(time), time) for time in range(10, 60, 10)))
    assert await query(store, since_ms=20, until_ms=40) == [("40", 40), ("30", 30), ("20", 20)]
    assert await query(store, since_ms=21, until_ms=39) == [("30", 30)]
    assert await query(store, since_ms=30, until_ms=30) == [("30", 30)]
    assert await query(store, since_ms=31, until_ms=39) == []
    assert await query(store, since_ms=20, until_ms=40, limit=2) == [("40", 40), ("30", 30)]
    assert await query(store, since_ms=51) == []
    assert await query(store, until_ms=9) == []


async def test_timestamps_range_from_0_to_the_maximum(
    store: InteractionStore,
) -> None:
    times = [0, 1, 255, 256, 2**31, 2**32, MAX_TIMESTAMP_MS - 1, MAX_TIMESTAMP_MS]
    await append(store, *(("a", time) for time in times))
    assert await query(store) == [("a", time) for time in reversed(times)]
    assert await query(store, until_ms=0) == [("a", 0)]
    assert await query(store, since_ms=MAX_TIMESTAMP_MS) == [("a", MAX_TIMESTAMP_MS)]


async def test_a_product_may_occur_at_several_times(store: InteractionStore) -> None:
    await append(store, ("a", 1), ("b", 2), ("a", 3))
    assert await query(store) == [("a", 3), ("b", 2), ("a", 1)]


async def test_a_repeated_event_is_stored_once(store: InteractionStore) -> None:
    for _ in range(3):
        await append(store, ("a", 1), ("b", 2), ("a", 1))
    assert await query(store) == [("b", 2), ("a", 1)]


@pytest.mark.parametrize(
    "metadata", [None, {}, {"price": 2.5, "tags": ["é", None], "deep": {"a": True}}]
)
async def test_metadata_is_kept(store: InteractionStore, metadata: dict[str, Any] | None) -> None:
    await store.append(
        [Event("7", "click", "a", 1, metadata), Event("7", "click", "b", 2)], RETENTION
    )
    (result,) = await store.query([InteractionQuery("7", "click", 10)], RETENTION)
    assert result.metadata == [None, metadata]


async def test_only_the_newest_events_are_kept(store: InteractionStore) -> None:
    await append(store, *(("p", time) for time in range(10)), event="view")
    assert await query(store, event="view") == [("p", 9), ("p", 8), ("p", 7)]
    await append(store, ("late", 1), event="view")
    assert await query(store, event="view") == [("p", 9), ("p", 8), ("p", 7)]
    await append(store, ("q", 8), event="view")
    assert await query(store, event="view") == [("p", 9), ("q", 8), ("p", 8)]


async def test_trimming_one_list_leaves_the_others_alone(store: InteractionStore) -> None:
    users = ["6", "7", "71", "7_view", "8"]
    for user in users:
        await append(store, ("a", 1), ("b", 2), ("c", 3), user=user)
        await append(store, *(("p", time) for time in range(3)), user=user, event="view")
    await append(store, *(("x", time) for time in range(90, 99)), user="7", event="view")
    for user in users:
        assert len(await query(store, user)) == 3
        newest = ("x", 98) if user == "7" else ("p", 2)
        assert (await query(store, user, "view"))[0] == newest
        assert len(await query(store, user, "view")) == 3


async def test_latest_only_keeps_a_product_once_at_its_newest_time(
    store: InteractionStore,
) -> None:
    await append(store, ("a", 1), ("b", 2), ("a", 3), event="wishlist")
    assert await query(store, event="wishlist") == [("a", 3), ("b", 2)]
    await append(store, ("a", 2), ("b", 2), event="wishlist")
    assert await query(store, event="wishlist") == [("a", 3), ("b", 2)]
    await append(store, ("b", 5), event="wishlist")
    assert await query(store, event="wishlist") == [("b", 5), ("a", 3)]


async def test_latest_only_counts_a_product_once(store: InteractionStore) -> None:
    await append(store, ("a", 1), ("b", 2), ("c", 3), event="wishlist")
    await append(store, *(("c", time) for time in range(4, 20)), event="wishlist")
    assert await query(store, event="wishlist") == [("c", 19), ("b", 2), ("a", 1)]


async def test_latest_only_accepts_a_trimmed_product_again(store: InteractionStore) -> None:
    await append(store, ("a", 1), ("b", 2), ("c", 3), ("d", 4), event="wishlist")
    assert await query(store, event="wishlist") == [("d", 4), ("c", 3), ("b", 2)]
    await append(store, ("a", 5), event="wishlist")
    assert await query(store, event="wishlist") == [("a", 5), ("d", 4), ("c", 3)]


@pytest.mark.parametrize("before", [[False], [True, False]], ids=["all", "latest, then all"])
async def test_a_type_that_becomes_latest_only_keeps_a_product_once(
    store: InteractionStore, before: list[bool]
) -> None:
    time = 0
    for latest_only in [*before, True]:
        rule = {"click": Retention(10, latest_only=latest_only)}
        for _ in range(2):
            time += 1
            await store.append(events(("a", time)), rule)
    assert await query(store, rules=rule) == [("a", time)]


@pytest.mark.parametrize("until", [MAX_TIMESTAMP_MS, 8, 3])
async def test_a_new_retention_applies_at_once_to_stored_events(
    store: InteractionStore, until: int
) -> None:
    stored = [(product, time) for time, product in enumerate("abcabcabca", start=1)]
    await store.append(events(*stored), {"click": Retention(keep=50)})
    newest_first = list(reversed(stored))
    for keep in (50, 10, 4, 1):
        pairs = await query(store, rules={"click": Retention(keep)}, until_ms=until)
        assert pairs == [pair for pair in newest_first[:keep] if pair[1] <= until]
    latest_only = [("a", 10), ("c", 9), ("b", 8)]
    for keep in (50, 3, 2, 1):
        rule = {"click": Retention(keep, latest_only=True)}
        pairs = await query(store, rules=rule, until_ms=until)
        assert pairs == [pair for pair in latest_only[:keep] if pair[1] <= until]


async def test_events_of_users_and_types_with_a_common_prefix_are_separate(
    store: InteractionStore,
) -> None:
    users = ["7", "71", "7_click", "7 ", "é", "é2", "🛒", "click", "7|click", "7:"]
    for user in users:
        await append(store, (f"of {user}", 5), user=user)
        await append(store, (f"view of {user}", 6), user=user, event="view")
    for user in users:
        assert await query(store, user) == [(f"of {user}", 5)]
        assert await query(store, user, "view") == [(f"view of {user}", 6)]


async def test_results_are_in_the_order_of_the_queries(store: InteractionStore) -> None:
    await append(store, ("a", 1), user="1")
    await append(store, ("b", 2), user="2", event="view")
    queries = [
        InteractionQuery("2", "view", 5),
        InteractionQuery("3", "click", 5),
        InteractionQuery("1", "click", 5),
        InteractionQuery("2", "view", 5),
    ]
    results = await store.query(queries, RETENTION)
    assert [result.product_ids for result in results] == [["b"], [], ["a"], ["b"]]


async def test_a_large_query_returns_the_newest_events(store: InteractionStore) -> None:
    rule = {"click": Retention(keep=5_000)}
    await store.append(events(*((str(time), time) for time in range(4_000))), rule)
    pairs = await query(store, limit=3_500, rules=rule)
    assert pairs == [(str(time), time) for time in range(3_999, 499, -1)]


async def test_forget_removes_all_events_of_one_user(store: InteractionStore) -> None:
    for user in ("7", "71", "7_click", "6"):
        await append(store, ("a", 1), ("b", 2), user=user)
        await append(store, ("a", 1), ("a", 2), user=user, event="wishlist")
    assert await store.forget("7") == 3
    assert await store.forget("7") == 0
    assert await store.forget("nobody") == 0
    assert await query(store, "7") == []
    assert await query(store, "7", "wishlist") == []
    for user in ("71", "7_click", "6"):
        assert await query(store, user) == [("b", 2), ("a", 1)]
        assert await query(store, user, "wishlist") == [("a", 2)]


async def test_a_forgotten_user_starts_without_events(store: InteractionStore) -> None:
    await append(store, ("a", 9), ("b", 8), event="wishlist")
    await store.forget("7")
    await append(store, ("a", 1), event="wishlist")
    assert await query(store, event="wishlist") == [("a", 1)]


async def test_concurrent_writers_lose_no_events(store: InteractionStore) -> None:
    pairs = [(str(time), time) for time in range(50)]
    await asyncio.gather(*(append(store, pair) for pair in pairs))
    assert await query(store) == pairs[::-1]


async def test_an_event_of_an_unknown_type_fails_only_its_own_call(
    store: InteractionStore,
) -> None:
    wrong = [Event("7", "click", "x", 9), Event("7", "nothing", "a", 1)]
    results = await asyncio.gather(
        append(store, ("a", 1)),
        store.append(wrong, RETENTION),
        append(store, ("b", 2)),
        return_exceptions=True,
    )
    assert isinstance(results[1], KeyError)
    assert await query(store) == [("b", 2), ("a", 1)]


async def test_events_are_there_after_closing_and_reopening(url: str) -> None:
    store = open_interaction_store(url)
    await append(store, ("a", 1))
    await store.close()
    await store.close()
    reopened = open_interaction_store(url)
    assert await query(reopened) == [("a", 1)]
    await reopened.close()


@pytest.mark.parametrize("url", ["", "lmdb://", "lmdb://folder", "foo:///a"])
def test_a_url_that_does_not_name_a_store_is_refused(url: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        open_interaction_store(url, setting="interactions")
    assert caught.value.field == "interactions"


# Compare the store with a list.

users = st.sampled_from(["7", "71", "7_click", "é"])
types = st.sampled_from(["view", "wishlist"])
times = st.integers(0, 6)
appended = st.lists(
    st.builds(Event, users, types, st.sampled_from(["a", "ab", "b", "é", "\x01"]), times),
    max_size=5,
)
ranges = st.tuples(st.integers(0, 5), times, times)


class Model:
    """A store that keeps all events in a list. It defines the expected results."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def query(self, query: InteractionQuery) -> list[Pair]:
        rule = RETENTION[query.event]
        pairs = {
            (event.timestamp_ms, event.product_id)
            for event in self.events
            if (event.user_id, event.event) == (query.user_id, query.event)
        }
        if rule.latest_only:
            newest = {product: time for time, product in sorted(pairs)}
            pairs = {(time, product) for product, time in newest.items()}
        kept = sorted(pairs, reverse=True)[: rule.keep]
        within = [pair for pair in kept if query.since_ms <= pair[0] <= query.until_ms]
        return [(product, time) for time, product in within[: query.limit]]

    def forget(self, user: str) -> int:
        removed = sum(
            len(self.query(InteractionQuery(user, event, 100))) for event in ("view", "wishlist")
        )
        self.events = [event for event in self.events if event.user_id != user]
        return removed


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(appended | users, max_size=8), st.lists(ranges, max_size=3))
async def test_the_store_agrees_with_a_list(
    store: InteractionStore, steps: list[list[Event] | str], bounds: list[tuple[int, int, int]]
) -> None:
    prefix = f"{next(EXAMPLES)}:"
    model = Model()
    for step in steps:
        if isinstance(step, str):
            assert await store.forget(prefix + step) == model.forget(prefix + step)
        else:
            batch = [
                Event(prefix + event.user_id, event.event, event.product_id, event.timestamp_ms)
                for event in step
            ]
            model.events += batch
            await store.append(batch, RETENTION)
        for user in ("7", "71", "7_click", "é"):
            for event in ("view", "wishlist"):
                for limit, since, until in [(100, 0, MAX_TIMESTAMP_MS), *bounds]:
                    query = InteractionQuery(prefix + user, event, limit, since, until)
                    (result,) = await store.query([query], RETENTION)
                    pairs = list(
                        zip(result.product_ids, result.timestamps_ms.tolist(), strict=True)
                    )
                    assert pairs == model.query(query)


async def test_a_query_of_large_events_returns_them(store: InteractionStore) -> None:
    """They are more than may be read on the event loop."""
    large = [Event("7", "click", f"{n}", n, {"text": "x" * INLINE_BYTES}) for n in range(1, 4)]
    await store.append(large, RETENTION)
    (found,) = await store.query([InteractionQuery("7", "click", 10)], RETENTION)
    assert found.product_ids == ["3", "2", "1"]
    assert [len(of_event["text"]) for of_event in found.metadata if of_event] == [INLINE_BYTES] * 3


async def test_a_query_whose_events_have_too_many_bytes_is_refused(
    store: InteractionStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(byte_limit, "MAX_READ_BYTES", 10_000)
    metadata = {"note": "x" * 1_000}
    await store.append([Event("7", "click", str(n), n, metadata) for n in range(20)], RETENTION)
    await append(store, ("1", 1), user="8")
    (small,) = await store.query([InteractionQuery("7", "click", 9)], RETENTION)
    assert len(small) == 9
    with pytest.raises(TooLarge, match=r"^the events have more than 10000 bytes: read fewer"):
        await store.query([InteractionQuery("7", "click", 20)], RETENTION)
    twice = [InteractionQuery("7", "click", 6), InteractionQuery("8", "click", 6)]
    assert [len(interactions) for interactions in await store.query(twice, RETENTION)] == [6, 1]
    with pytest.raises(TooLarge):
        await store.query([InteractionQuery("7", "click", 6)] * 2, RETENTION)
