"""What parts make of revisions: built once, kept while pinned, switched to only when prepared."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.revisions import KEPT_REVISIONS, LiveRevision, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.errors import Unavailable
from kirana.revision import Revision
from kirana.serving.checks import checks_of
from tests.support import SHOP, nth, write_shop
from tests.unit.catalog.following import following
from tests.waiting import wait_until

POLL_S = 0.001


class Builder:
    """Counts what it builds; each build says which thread ran it."""

    def __init__(self) -> None:
        self.built: list[int] = []
        self.threads: set[int] = set()

    def __call__(self, catalog: Catalog) -> int:
        self.threads.add(threading.get_ident())
        self.built.append(catalog.revision.number)
        return catalog.revision.number


class Part:
    """A service that refuses some revisions."""

    def __init__(self, refuses: set[int] = frozenset()) -> None:  # type: ignore[assignment]
        self.refuses = refuses
        self.prepared: list[int] = []

    async def prepare(self, revision: Revision) -> None:
        if revision.number in self.refuses:
            raise Unavailable(f"revision {revision} is not for me")
        self.prepared.append(revision.number)


@pytest.fixture
def catalog(tmp_path: Path) -> DirectoryCatalog:
    return DirectoryCatalog(write_shop(tmp_path), checks_of())


def publish_next(catalog: DirectoryCatalog, keep: int) -> Revision:
    """Publish a revision that differs from the others by `keep`."""
    (catalog.folder / "shop.yaml").write_text(SHOP.replace("keep: 50", f"keep: {keep}"))
    return catalog.publish().revision


async def test_a_revision_is_built_once_for_all_who_ask_together(
    catalog: DirectoryCatalog,
) -> None:
    publish_next(catalog, 1)
    builder = Builder()
    revisions = Revisions(catalog, builder)
    assert await asyncio.gather(*(revisions.at(nth(catalog, 1)) for _ in range(50))) == [1] * 50
    assert await revisions.at(nth(catalog, 1)) == 1
    assert builder.built == [1]


async def test_a_revision_is_built_in_a_thread(catalog: DirectoryCatalog) -> None:
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


async def test_the_oldest_revisions_are_let_go(catalog: DirectoryCatalog) -> None:
    builder = Builder()
    revisions = Revisions(catalog, builder)
    for keep in range(1, KEPT_REVISIONS + 2):
        await revisions.at(publish_next(catalog, keep))
    await revisions.at(nth(catalog, 2))
    assert len(builder.built) == KEPT_REVISIONS + 1
    await revisions.at(nth(catalog, 1))
    assert builder.built[-1] == 1


async def test_one_who_stops_waiting_does_not_stop_the_others(catalog: DirectoryCatalog) -> None:
    publish_next(catalog, 1)
    builder = Builder()
    revisions = Revisions(catalog, builder)
    impatient = asyncio.create_task(revisions.at(nth(catalog, 1)))
    patient = asyncio.create_task(revisions.at(nth(catalog, 1)))
    await asyncio.sleep(0)
    impatient.cancel()
    assert await patient == 1
    assert builder.built == [1]


async def test_a_revision_that_is_not_there_is_unavailable_and_asked_for_again(
    catalog: DirectoryCatalog,
) -> None:
    revisions = Revisions(catalog, Builder())
    with pytest.raises(Unavailable, match="revision 1 can't be used here"):
        await revisions.at(nth(catalog, 1))
    publish_next(catalog, 1)
    assert await revisions.at(nth(catalog, 1)) == 1


async def test_nothing_starts_without_a_revision(catalog: DirectoryCatalog) -> None:
    with pytest.raises(Unavailable, match="publish one with 'kirana apply'"):
        await LiveRevision(catalog, []).start()


async def test_nothing_starts_on_a_revision_that_a_part_refuses(catalog: DirectoryCatalog) -> None:
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


async def test_following_switches_to_what_is_published(catalog: DirectoryCatalog) -> None:
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
            self.asked, self.released = asyncio.Event(), asyncio.Event()

        async def prepare(self, revision: Revision) -> None:
            if revision.number > 1:
                self.asked.set()
                await self.released.wait()

    publish_next(catalog, 1)
    slow = Slow()
    live = LiveRevision(catalog, [Part(), slow], poll_s=POLL_S)
    await live.start()
    publish_next(catalog, 2)
    async with following(live):
        await slow.asked.wait()
        assert live.revision.number == 1
        slow.released.set()
        await wait_until(lambda: live.revision.number == 2)


async def test_a_broken_revision_is_counted_once_and_the_last_good_one_stays(
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
    assert "revision 1 stays live" in caplog.text


async def test_a_revision_file_that_is_broken_is_refused_by_following(
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


@pytest.mark.parametrize("text", [b"", b"\xff\xfe", None], ids=["empty", "not UTF-8", "gone"])
async def test_following_survives_an_unreadable_current(
    catalog: DirectoryCatalog, text: bytes | None
) -> None:
    publish_next(catalog, 1)
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
