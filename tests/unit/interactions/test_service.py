"""Events in and out over a real store: what expires, and rules that newer revisions change."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.interactions import Event, InteractionQuery
from kirana.interactions.lmdb import LmdbInteractionStore
from kirana.interactions.service import InteractionService
from kirana.interactions.source import MAX_TIMESTAMP_MS, Appended
from kirana.serving.checks import checks_of
from tests.support import SHOP, publish, request_at, write_shop

NOW_MS = 1_700_000_000_000
DAY_MS = 86_400_000


@pytest.fixture
def catalog(tmp_path: Path) -> DirectoryCatalog:
    folder = write_shop(tmp_path / "shop")
    publish(folder)
    return DirectoryCatalog(folder, checks_of())


@pytest.fixture
async def service(tmp_path: Path, catalog: DirectoryCatalog) -> AsyncIterator[InteractionService]:
    store = LmdbInteractionStore.open(f"lmdb://{tmp_path}/interactions", setting="interactions")
    opened = InteractionService(store, catalog)
    yield opened
    await opened.close()


def change(catalog: DirectoryCatalog, was: str, now: str) -> None:
    """Publish the shop again with one line changed."""
    publish(write_shop(catalog.folder, SHOP.replace(was, now)), models=False)


async def append(
    service: InteractionService,
    catalog: DirectoryCatalog,
    *pairs: tuple[str, int],
    event: str = "click",
) -> Appended:
    """Append events of products so many milliseconds ago."""
    events = [Event("7", event, product, NOW_MS - ago_ms) for product, ago_ms in pairs]
    return await service.append(events, request_at(catalog, 1, NOW_MS))


async def products(
    service: InteractionService,
    catalog: DirectoryCatalog,
    revision: int = 1,
    *,
    event: str = "click",
    limit: int = 100,
    until_ms: int = MAX_TIMESTAMP_MS,
) -> list[str]:
    query = InteractionQuery("7", event, limit, until_ms=until_ms)
    (found,) = await service.query([query], request_at(catalog, revision, NOW_MS))
    return list(found.product_ids)


# events that have expired as they come


@pytest.mark.parametrize(
    ("ago_ms", "done", "found"),
    [
        (DAY_MS - 1, Appended(1, 0), ["a"]),
        (DAY_MS, Appended(0, 1), []),
        (DAY_MS + 1, Appended(0, 1), []),
        (NOW_MS, Appended(0, 1), []),
    ],
)
async def test_an_event_past_the_ttl_of_its_type_is_not_accepted(
    service: InteractionService,
    catalog: DirectoryCatalog,
    ago_ms: int,
    done: Appended,
    found: list[str],
) -> None:
    assert await append(service, catalog, ("a", ago_ms), event="wishlist") == done
    assert await products(service, catalog, event="wishlist") == found


async def test_an_event_of_a_type_without_a_ttl_never_expires(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    assert await append(service, catalog, ("a", NOW_MS), ("b", NOW_MS - 1)) == Appended(2, 0)
    assert await products(service, catalog) == ["b", "a"]


async def test_events_of_one_call_may_be_accepted_and_expired(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    events = [
        Event("7", "wishlist", "a", NOW_MS - DAY_MS),
        Event("7", "click", "a", NOW_MS - 9 * DAY_MS),
        Event("7", "wishlist", "b", NOW_MS),
        Event("8", "wishlist", "c", 0),
    ]
    assert await service.append(events, request_at(catalog, 1, NOW_MS)) == Appended(2, 2)
    assert await products(service, catalog, event="wishlist") == ["b"]
    assert await products(service, catalog) == ["a"]


async def test_events_that_have_expired_push_out_none_that_live(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    live = [(product, at) for at, product in enumerate("abc")]
    assert await append(service, catalog, *live, event="wishlist") == Appended(3, 0)
    gone = [(product, DAY_MS + at) for at, product in enumerate("defa")]
    assert await append(service, catalog, *gone, event="wishlist") == Appended(0, 4)
    assert await products(service, catalog, event="wishlist") == ["a", "b", "c"]


async def test_more_events_than_fit_the_event_loop_are_counted_alike(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    pairs = [(str(at), DAY_MS if at % 3 else 0) for at in range(6_000)]
    assert await append(service, catalog, *pairs, event="wishlist") == Appended(2_000, 4_000)


# rules that a newer revision changes


async def test_a_lower_keep_holds_at_once_for_what_was_stored_before(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    await append(service, catalog, *((str(at), at) for at in range(10)))
    change(catalog, "keep: 50", "keep: 4")
    assert await products(service, catalog, 2) == ["0", "1", "2", "3"]
    assert await products(service, catalog, 2, limit=2) == ["0", "1"]
    # it is of the newest of the person, not of the newest of the range
    assert await products(service, catalog, 2, until_ms=NOW_MS - 2) == ["2", "3"]
    assert await products(service, catalog, 2, until_ms=NOW_MS - 4) == []


async def test_a_request_of_the_older_revision_is_answered_by_its_rule(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    await append(service, catalog, *((str(at), at) for at in range(10)))
    change(catalog, "keep: 50", "keep: 4")
    assert len(await products(service, catalog, 2)) == 4
    assert len(await products(service, catalog, 1)) == 10


async def test_a_higher_keep_brings_nothing_back(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    await append(service, catalog, *(("abcde"[at], at) for at in range(5)), event="wishlist")
    change(catalog, "keep: 3", "keep: 9")
    assert await products(service, catalog, 2, event="wishlist") == ["a", "b", "c"]


async def test_repeats_that_become_latest_hold_at_once_for_what_was_stored_before(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    await append(service, catalog, *(("abc"[at % 3], at) for at in range(9)))
    change(catalog, "keep: 50\n", "keep: 50\nrepeats: latest\n")
    assert await products(service, catalog, 1) == [*"abcabcabc"]
    assert await products(service, catalog, 2) == ["a", "b", "c"]
    assert await products(service, catalog, 2, limit=2) == ["a", "b"]
    # the newest time of 'a' is after the range
    assert await products(service, catalog, 2, until_ms=NOW_MS - 1) == ["b", "c"]


async def test_keep_counts_each_product_once_where_repeats_are_latest(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    await append(service, catalog, *(("aaabbc"[at], at) for at in range(6)))
    change(catalog, "keep: 50\n", "keep: 2\nrepeats: latest\n")
    assert await products(service, catalog, 2) == ["a", "b"]


async def test_repeats_that_become_all_are_kept_from_then_on(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    await append(service, catalog, ("a", 9), ("a", 8), event="wishlist")
    change(catalog, "repeats: latest", "repeats: all")
    assert await products(service, catalog, 2, event="wishlist") == ["a"]
    await service.append([Event("7", "wishlist", "a", NOW_MS)], request_at(catalog, 2, NOW_MS))
    assert await products(service, catalog, 2, event="wishlist") == ["a", "a"]
    assert await products(service, catalog, 1, event="wishlist") == ["a"]


async def test_a_ttl_holds_at_once_for_what_was_stored_before(
    service: InteractionService, catalog: DirectoryCatalog
) -> None:
    await append(service, catalog, ("a", DAY_MS), ("b", DAY_MS - 1))
    change(catalog, "keep: 50\n", "keep: 50\nttl: 1d\n")
    assert await products(service, catalog, 1) == ["b", "a"]
    assert await products(service, catalog, 2) == ["b"]
