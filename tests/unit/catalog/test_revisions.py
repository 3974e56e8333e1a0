"""Revisions: each is built once and kept, and becomes live when every part is prepared."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from weakref import ref

import pytest
from msgspec import structs

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.revisions import MAX_KEPT_S, MIN_KEPT_S, LiveRevision, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.errors import Unavailable
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.serving.checks import catalog_checks
from tests.clock import Clock
from tests.support import SHOP, nth, write_shop
from tests.unit.catalog.following import following
from tests.waiting import wait_until

POLL_S = 0.001


class Builder:
    """A builder that records the revisions it built, and the threads in which it ran."""

    def __init__(self) -> None:
        self.built: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, catalog: Catalog) -> int:
        self.threads.add(threading.get_ident())
        self.built.append(catalog.revision.number)
        return catalog.revision.number


class Part:
    """A part that refuses some revisions, and records those it prepared."""

    def __init__(self, refuses: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.refuses = refuses
        self.prepared: list[int] = []

    async def prepare(self, revision: Revision) -> None:
        if revision.number in self.refuses:
            raise Unavailable(f"revision {revision} is not for me")
        self.prepared.append(revision.number)


@pytest.fixture
def catalog(tmp_path: Path) -> DirectoryCatalog:
    return DirectoryCatalog(write_shop(tmp_path), catalog_checks())


def publish_next(catalog: DirectoryCatalog, keep: int) -> Revision:
    """Publish a revision that differs from the others by `keep`, and return it."""
    (catalog.folder / "shop.yaml").write_text(SHOP.replace("keep: 50", f"keep: {keep}"))
    return catalog.publish().revision


async def test_concurrent_calls_build_a_revision_once(
    catalog: DirectoryCatalog,
) -> None:
    publish_next(catalog, 1)
    builder = Builder()
    revisions = Revisions(catalog, builder)
    assert await asyncio.gather(*(revisions.at(nth(catalog, 1)) for _ in range(50))) == [1] * 50
    assert await revisions.at(nth(catalog, 1)) == 1
    assert builder.built == [1]


async def test_a_revision_is_built_in_another_thread(catalog: DirectoryCatalog) -> None:
    publish_next(catalog, 1)
    builder = Builder()
    await Revisions(catalog, builder).at(nth(catalog, 1))
    assert threading.get_ident() not in builder.threads


async def test_old_revisions_are_kept_beside_the_new_one(catalog: DirectoryCatalog) -> None:
    builder = Builder()
    revisions = Revisions(catalog, builder)
    for keep in range(1, 4):
        await revisions.at(publish_next(catalog, keep))
    assert [await revisions.at(nth(catalog, number)) for number in (1, 2, 3, 1)] == [1, 2, 3, 1]
    assert builder.built == [1, 2, 3]


class Value:
    """A value that can be referenced weakly."""

    def __init__(self, catalog: Catalog) -> None:
        self.number = catalog.revision.number


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def values(
    catalog: DirectoryCatalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Revisions[Value]:
    """Return values that are searched for old ones every millisecond."""
    monkeypatch.setattr("kirana.catalog.revisions.SWEEP_S", 0.001)
    return Revisions(catalog, Value, clock=clock)


class TestFreeing:
    async def test_a_replaced_value_is_freed_and_the_newest_is_kept(
        self, catalog: DirectoryCatalog, clock: Clock, values: Revisions[Value]
    ) -> None:
        first = ref(await values.at(publish_next(catalog, 1)))
        second = ref(await values.at(publish_next(catalog, 2)))
        clock.now += MIN_KEPT_S - 1
        await asyncio.sleep(0.01)
        assert first() is not None
        clock.now += 600
        await wait_until(lambda: first() is None, "the replaced value is freed")
        assert second() is not None
        assert (await values.at(nth(catalog, 1))).number == 1

    async def test_a_value_is_kept_until_the_last_deadline_of_its_requests(
        self, catalog: DirectoryCatalog, clock: Clock, values: Revisions[Value]
    ) -> None:
        revision = publish_next(catalog, 1)
        kept = ref(await values.at(revision))
        await values.at(publish_next(catalog, 2))
        for seconds in (60, 30):
            request = RequestContext.begin(revision)
            await values.of(structs.replace(request, deadline=clock.now + seconds))
        clock.now += 59
        await asyncio.sleep(0.01)
        assert kept() is not None
        clock.now += 2
        await wait_until(lambda: kept() is None, "the deadline has passed")

    async def test_a_request_without_a_deadline_keeps_a_value_for_a_limited_time(
        self, catalog: DirectoryCatalog, clock: Clock, values: Revisions[Value]
    ) -> None:
        revision = publish_next(catalog, 1)
        kept = ref(await values.of(RequestContext.begin(revision)))
        await values.at(publish_next(catalog, 2))
        clock.now += MAX_KEPT_S - 1
        await asyncio.sleep(0.01)
        assert kept() is not None
        clock.now += 2
        await wait_until(lambda: kept() is None, "the longest time has passed")

    async def test_an_old_revision_that_is_prepared_again_and_again_is_kept(
        self, catalog: DirectoryCatalog, clock: Clock, values: Revisions[Value]
    ) -> None:
        """A revision stays live if a part refuses the next one, which others have prepared."""
        live = publish_next(catalog, 1)
        kept = ref(await values.at(live))
        await values.at(publish_next(catalog, 2))
        for _ in range(5):
            clock.now += MIN_KEPT_S - 1
            await asyncio.sleep(0.005)
            await values.at(live)
        assert kept() is not None

    async def test_a_function_is_called_after_values_were_dropped(
        self, catalog: DirectoryCatalog, clock: Clock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("kirana.catalog.revisions.SWEEP_S", 0.001)
        calls: list[bool] = []
        values = Revisions(
            catalog, Value, after_drop=lambda: calls.append(first() is None), clock=clock
        )
        first = ref(await values.at(publish_next(catalog, 1)))
        await values.at(publish_next(catalog, 2))
        await asyncio.sleep(0.01)
        assert calls == []
        clock.now += 600
        await wait_until(lambda: calls == [True], "the first value has been dropped")

    async def test_building_an_old_value_again_does_not_replace_the_newest(
        self, catalog: DirectoryCatalog, clock: Clock, values: Revisions[Value]
    ) -> None:
        for keep in (1, 2):
            publish_next(catalog, keep)
        newest = ref(await values.at(nth(catalog, 2)))
        old = ref(await values.at(nth(catalog, 1)))
        clock.now += 600
        await wait_until(lambda: old() is None, "the old value is freed")
        assert newest() is not None


async def test_cancelling_one_call_does_not_cancel_the_others(catalog: DirectoryCatalog) -> None:
    publish_next(catalog, 1)
    builder = Builder()
    revisions = Revisions(catalog, builder)
    cancelled = asyncio.create_task(revisions.at(nth(catalog, 1)))
    waiting = asyncio.create_task(revisions.at(nth(catalog, 1)))
    await asyncio.sleep(0)
    cancelled.cancel()
    assert await waiting == 1
    assert builder.built == [1]


async def test_a_missing_revision_is_unavailable_until_it_is_published(
    catalog: DirectoryCatalog,
) -> None:
    revisions = Revisions(catalog, Builder())
    with pytest.raises(Unavailable, match="revision 1 can't be used here"):
        await revisions.at(nth(catalog, 1))
    publish_next(catalog, 1)
    assert await revisions.at(nth(catalog, 1)) == 1


async def test_starting_without_a_published_revision_fails(catalog: DirectoryCatalog) -> None:
    with pytest.raises(Unavailable, match="publish one with 'kirana apply'"):
        await LiveRevision(catalog, []).start()


async def test_starting_on_a_revision_that_a_part_refuses_fails(catalog: DirectoryCatalog) -> None:
    publish_next(catalog, 1)
    live = LiveRevision(catalog, [Part(), Part(refuses={1})])
    with pytest.raises(Unavailable, match="not for me"):
        await live.start()
    assert live.revision.number == 0


async def test_starting_prepares_every_part_for_the_live_revision(
    catalog: DirectoryCatalog,
) -> None:
    for keep in (1, 2):
        publish_next(catalog, keep)
    parts = [Part(), Part()]
    live = LiveRevision(catalog, parts)
    await live.start()
    assert (live.revision.number, [part.prepared for part in parts]) == (2, [[2], [2]])


async def test_following_switches_to_each_published_revision(catalog: DirectoryCatalog) -> None:
    publish_next(catalog, 1)
    part = Part()
    live = LiveRevision(catalog, [part], poll_s=POLL_S)
    await live.start()
    async with following(live):
        for keep in (2, 3):
            latest = publish_next(catalog, keep)
            await wait_until(lambda latest=latest: live.revision == latest)  # type: ignore[misc]
    assert part.prepared == [1, 2, 3]
    assert live.refused == 0


async def test_requests_stay_on_the_old_revision_until_every_part_is_prepared(
    catalog: DirectoryCatalog,
) -> None:
    class Slow:
        def __init__(self) -> None:
            self.preparing, self.released = asyncio.Event(), asyncio.Event()

        async def prepare(self, revision: Revision) -> None:
            if revision.number > 1:
                self.preparing.set()
                await self.released.wait()

    publish_next(catalog, 1)
    slow = Slow()
    live = LiveRevision(catalog, [Part(), slow], poll_s=POLL_S)
    await live.start()
    publish_next(catalog, 2)
    async with following(live):
        await slow.preparing.wait()
        assert live.revision.number == 1
        slow.released.set()
        await wait_until(lambda: live.revision.number == 2)


async def test_a_refused_revision_is_counted_once_and_the_last_good_one_stays_live(
    catalog: DirectoryCatalog, caplog: pytest.LogCaptureFixture
) -> None:
    publish_next(catalog, 1)
    part = Part(refuses={2})
    live = LiveRevision(catalog, [part], poll_s=POLL_S)
    await live.start()
    with caplog.at_level(logging.ERROR):
        async with following(live):
            publish_next(catalog, 2)
            await wait_until(lambda: live.refused > 0)
            assert live.revision.number == 1
            publish_next(catalog, 3)
            await wait_until(lambda: live.revision.number == 3)
    assert live.refused == 1
    assert "this replica stays on revision 1" in caplog.text


async def test_following_refuses_a_broken_revision_file(
    catalog: DirectoryCatalog,
) -> None:
    publish_next(catalog, 1)
    revisions = Revisions(catalog, Builder())

    class Reader:
        async def prepare(self, revision: Revision) -> None:
            await revisions.at(revision)

    live = LiveRevision(catalog, [Reader()], poll_s=POLL_S)
    await live.start()
    publish_next(catalog, 2)
    (catalog.folder / ".kirana/revisions/2/catalog.json").write_text("{")
    async with following(live):
        await wait_until(lambda: live.refused == 1)
        assert live.revision.number == 1
        publish_next(catalog, 3)
        await wait_until(lambda: live.revision.number == 3)
    assert await revisions.at(nth(catalog, 1)) == 1


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", None], ids=["empty", "not UTF-8", "missing"])
async def test_following_survives_an_unreadable_current_file(
    catalog: DirectoryCatalog, text: bytes | None
) -> None:
    publish_next(catalog, 1)
    # No part may be asked to prepare `NO_REVISION`, whose number is 0.
    live = LiveRevision(catalog, [Part(refuses={0})], poll_s=POLL_S)
    await live.start()
    current = catalog.folder / ".kirana/CURRENT"
    before = current.read_bytes()
    async with following(live):
        if text is None:
            current.unlink()
        else:
            current.write_bytes(text)
        await wait_until(lambda: live.away_since is not None)
        assert (live.revision.number, live.refused) == (1, 0)
        current.write_bytes(before)
        publish_next(catalog, 2)
        await wait_until(lambda: live.revision.number == 2)
        assert live.away_since is None
