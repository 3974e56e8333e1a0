"""Values built from revisions, and the switch of new requests to the next revision."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from kirana.catalog.snapshot import Catalog
from kirana.errors import KiranaError, Unavailable
from kirana.loop import retrieve_error
from kirana.request import RequestContext
from kirana.revision import NO_REVISION, Revision

T = TypeVar("T")

logger = logging.getLogger(__name__)

MIN_KEPT_S = 5.0
"""How many seconds a replaced value is kept at least.

A request that is pinned to its revision may still be on its way to this process.
"""

MAX_KEPT_S = 600.0
"""How many seconds one request keeps a replaced value at most: the longest timeout over HTTP."""

SWEEP_S = 1.0
"""Seconds between two searches for values that are not needed any more."""

MAX_RETRY_S = 30.0
"""The longest pause between attempts to prepare a revision that was refused."""


class CatalogSource(Protocol):
    """The reading side of a catalog backend. `current` and `load` block while they read."""

    def current(self) -> Revision:
        """Return the live revision, or `NO_REVISION` if nothing is published.

        Raise `Unavailable` if the catalog can't be read and no revision is known.
        """

    def load(self, revision: Revision) -> Catalog:
        """Read a revision.

        Raise `Unknown` if it does not exist, `CatalogError` if it is damaged or not valid, and
        `Unavailable` if the catalog can't be read.
        """

    def away_since(self) -> float | None:
        """Return since when (Unix seconds) the catalog can't be read, or None if it can."""


@dataclass(slots=True)
class _Kept(Generic[T]):
    """A value that is kept. No request needs it after `needed_until`, unless it is the newest."""

    value: T
    needed_until: float


class Revisions(Generic[T]):
    """Values built from revisions. `build` is called when the value of a revision is first needed.

    The value of the newest revision is kept. An older one is kept while requests may be pinned to
    its revision: `MIN_KEPT_S` seconds from its replacement and from its last use, and until the
    last deadline of the requests that used it. If it is needed again, it is built again. Times are
    in seconds of `clock`. `after_drop` is called in a thread after values were dropped.
    """

    def __init__(
        self,
        source: CatalogSource,
        build: Callable[[Catalog], T],
        *,
        after_drop: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._source = source
        self._build = build
        self._after_drop = after_drop
        self._clock = clock
        self._kept: dict[Revision, _Kept[T]] = {}
        self._building: dict[Revision, asyncio.Task[_Kept[T]]] = {}
        self._newest = NO_REVISION
        self._sweep_is_due = False

    async def of(self, context: RequestContext) -> T:
        """Return the value of a request's revision, and keep it until the request's deadline.

        Raise `Unavailable` if the revision can't be read or its value can't be built.
        """
        kept = self._kept.get(context.revision)
        if kept is None:
            kept = await self._made(context.revision)
        deadline = context.deadline
        if deadline > kept.needed_until:
            kept.needed_until = min(deadline, self._clock() + MAX_KEPT_S)
        return kept.value

    async def at(self, revision: Revision) -> T:
        """Return the value of `revision`, and keep it for at least `MIN_KEPT_S` seconds.

        If it is not kept yet, build it in a thread. Concurrent calls share one build. Raise
        `Unavailable` if the revision can't be read or its value can't be built.
        """
        kept = self._kept.get(revision)
        if kept is None:
            kept = await self._made(revision)
        kept.needed_until = max(kept.needed_until, self._clock() + MIN_KEPT_S)
        return kept.value

    async def _made(self, revision: Revision) -> _Kept[T]:
        """Return the value of `revision` once it has been built."""
        task = self._building.get(revision)
        if task is None:
            task = self._building[revision] = asyncio.create_task(self._make(revision))
            task.add_done_callback(retrieve_error)
        return await asyncio.shield(task)

    async def _make(self, revision: Revision) -> _Kept[T]:
        try:
            value = await asyncio.to_thread(lambda: self._build(self._source.load(revision)))
        except (KiranaError, OSError) as error:
            raise Unavailable(f"revision {revision} can't be used here: {error}") from error
        finally:
            self._building.pop(revision, None)
        now = self._clock()
        kept = self._kept[revision] = _Kept(value, now + MIN_KEPT_S)
        newest = self._newest
        # The numbers of a catalog that was lost begin at 1 again, in a catalog with another id.
        if revision.catalog != newest.catalog or revision.number > newest.number:
            replaced = self._kept.get(newest)
            if replaced is not None:
                replaced.needed_until = max(replaced.needed_until, now + MIN_KEPT_S)
            self._newest = revision
        self._schedule_sweep()
        return kept

    def _schedule_sweep(self) -> None:
        """Drop values later, if there are others than the newest."""
        if len(self._kept) > 1 and not self._sweep_is_due:
            self._sweep_is_due = True
            asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def _sweep(self) -> None:
        """Drop the values that no request needs any more."""
        self._sweep_is_due = False
        now = self._clock()
        kept = {
            revision: value
            for revision, value in self._kept.items()
            if revision == self._newest or value.needed_until >= now
        }
        dropped = len(self._kept) - len(kept)
        self._kept = kept
        if dropped and self._after_drop is not None:
            asyncio.get_running_loop().run_in_executor(None, self._after_drop)
        self._schedule_sweep()


class Preparable(Protocol):
    """An object that has to be ready for a revision before requests run on it."""

    async def prepare(self, revision: Revision) -> None:
        """Load what requests on this revision need. Raise `Unavailable` if that fails."""


class LiveRevision:
    """The revision that new requests are pinned to. It changes when all parts are prepared.

    If a part can't prepare a new revision, the last good one stays live. The new one is logged, and
    counted once in `refused`. The last good one also stays live while the catalog can't be read.
    `away_since` is the time (Unix seconds) when this began, or None if the catalog can be read.
    """

    def __init__(
        self, source: CatalogSource, parts: Sequence[Preparable], *, poll_s: float = 0.25
    ) -> None:
        self._source = source
        self._parts = parts
        self._poll_s = poll_s
        self.revision = NO_REVISION
        self.refused = 0
        self.away_since: float | None = None

    async def start(self) -> None:
        """Prepare the current revision.

        Raise `Unavailable` if there is none, or if a part can't prepare it.
        """
        current = await asyncio.to_thread(self._source.current)
        if current == NO_REVISION:
            raise Unavailable("the catalog has no revision yet: publish one with 'kirana apply'")
        await self._prepare(current)

    async def follow(self) -> None:
        """Poll the catalog, and switch to each new revision, until cancelled."""
        refused: Revision | None = None
        pause_s, waited_s = self._poll_s, 0.0
        while True:
            await asyncio.sleep(self._poll_s)
            waited_s += self._poll_s
            latest = refused
            try:
                latest = await asyncio.to_thread(self._poll)
                if latest in (self.revision, None) or (latest == refused and waited_s < pause_s):
                    continue
                await self._prepare(latest)
            except Exception:
                # The revision may be broken, or a part may not answer. Retry with growing pauses.
                pause_s = min(pause_s * 2, MAX_RETRY_S) if latest == refused else self._poll_s
                waited_s = 0.0
                if latest != refused:
                    refused = latest
                    self.refused += 1
                    logger.exception(
                        "revision %s can't be used: this replica stays on revision %s",
                        latest,
                        self.revision,
                    )

    def _poll(self) -> Revision | None:
        """Return the current revision, or None while the catalog can't be read.

        Update `away_since`, and log when the catalog can't be read any more, or can be read again.
        """
        try:
            current, away_since = self._source.current(), self._source.away_since()
        except (KiranaError, OSError):
            current, away_since = NO_REVISION, self.away_since or time.time()
        if away_since is not None and self.away_since is None:
            logger.warning(
                "the catalog can't be read: this replica stays on revision %s", self.revision
            )
        if away_since is None and self.away_since is not None:
            away_s = time.time() - self.away_since
            logger.warning("the catalog can be read again; it could not be read for %.0f s", away_s)
        self.away_since = away_since
        return current if away_since is None else None

    async def _prepare(self, revision: Revision) -> None:
        """Prepare all parts for a revision, then make it the live one."""
        pending: list[Awaitable[None]] = [part.prepare(revision) for part in self._parts]
        await asyncio.gather(*pending)
        previous, self.revision = self.revision, revision
        if previous.catalog not in ("", revision.catalog):
            logger.warning(
                "the catalog has a new history: revision %s of it replaces revision %s",
                revision,
                previous,
            )
        elif previous != NO_REVISION:
            logger.info("revision %s is live", revision)
