"""What is made of each revision, kept while requests may be pinned to it."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, Protocol, TypeVar

from kirana.catalog.snapshot import Catalog
from kirana.errors import KiranaError, Unavailable
from kirana.loop import look_at_error
from kirana.revision import NO_REVISION, Revision

T = TypeVar("T")

logger = logging.getLogger(__name__)

KEPT_REVISIONS = 32
MAX_RETRY_S = 30.0


class CatalogSource(Protocol):
    """Where revisions are published. Both calls may block: a few stats, or reading a file."""

    def current(self) -> Revision:
        """Return the live revision, `NO_REVISION` if nothing was published yet."""

    def load(self, revision: Revision) -> Catalog:
        """Read one revision. Raises `Unknown` if it isn't there, `CatalogError` if broken."""

    def away_since(self) -> float | None:
        """Return since when (Unix seconds) the catalog can't be read; None if it can."""


class Revisions(Generic[T]):
    """Builds a value once a revision, when it is first asked for; the oldest are let go."""

    def __init__(self, source: CatalogSource, build: Callable[[Catalog], T]) -> None:
        self._source = source
        self._build = build
        self._built: dict[Revision, T] = {}
        self._building: dict[Revision, asyncio.Task[T]] = {}

    async def at(self, revision: Revision) -> T:
        """Return the value at `revision`, built in a thread if this is the first that it is asked.

        Raises `Unavailable` if the revision can't be read here.
        """
        found = self._built.get(revision)
        if found is not None:
            return found
        task = self._building.get(revision)
        if task is None:
            task = self._building[revision] = asyncio.create_task(self._make(revision))
            task.add_done_callback(look_at_error)
        return await asyncio.shield(task)

    async def _make(self, revision: Revision) -> T:
        try:
            made = await asyncio.to_thread(lambda: self._build(self._source.load(revision)))
        except (KiranaError, OSError) as error:
            raise Unavailable(f"revision {revision} can't be used here: {error}") from error
        finally:
            self._building.pop(revision, None)
        self._built[revision] = made
        while len(self._built) > KEPT_REVISIONS:
            # the one that was built first: numbers of another catalog say nothing of age
            del self._built[next(iter(self._built))]
        return made


class Prepares(Protocol):
    """Makes itself ready for a revision before requests run on it."""

    async def prepare(self, revision: Revision) -> None: ...


class LiveRevision:
    """The revision that new requests are pinned to; switches only when every part is prepared.

    What is published broken is logged and counted in `refused`, and the last good one stays. So
    it does while the catalog is away, and `away_since` (Unix seconds) says since when.
    """

    def __init__(
        self, source: CatalogSource, parts: Sequence[Prepares], *, poll_s: float = 0.25
    ) -> None:
        self._source = source
        self._parts = parts
        self._poll_s = poll_s
        self.revision = NO_REVISION
        self.refused = 0
        self.away_since: float | None = None

    async def start(self) -> None:
        """Prepare the current revision. Raises `Unavailable` if there is none, or it is broken."""
        current = await asyncio.to_thread(self._source.current)
        if current == NO_REVISION:
            raise Unavailable("the catalog has no revision yet: publish one with 'kirana apply'")
        await self._prepare(current)

    async def follow(self) -> None:
        """Switch to each new revision, until cancelled."""
        refused: Revision | None = None
        again_in_s, waited_s = self._poll_s, 0.0
        while True:
            await asyncio.sleep(self._poll_s)
            waited_s += self._poll_s
            latest = refused
            try:
                latest = await asyncio.to_thread(self._look)
                if latest in (self.revision, None) or (latest == refused and waited_s < again_in_s):
                    continue
                await self._prepare(latest)
            except Exception:
                # it may be broken, or a part may be away: look again, less and less often
                again_in_s = min(again_in_s * 2, MAX_RETRY_S) if latest == refused else self._poll_s
                waited_s = 0.0
                if latest != refused:
                    refused = latest
                    self.refused += 1
                    logger.exception("revision %s stays live", self.revision)

    def _look(self) -> Revision | None:
        """Return the current revision, None while the catalog is away."""
        try:
            current, away_since = self._source.current(), self._source.away_since()
        except (KiranaError, OSError):
            current, away_since = NO_REVISION, self.away_since or time.time()
        if away_since is not None and self.away_since is None:
            logger.warning("the catalog is away: revision %s stays live", self.revision)
        if away_since is None and self.away_since is not None:
            away_s = time.time() - self.away_since
            logger.warning("the catalog is there again after %.0f s", away_s)
        self.away_since = away_since
        return current if away_since is None else None

    async def _prepare(self, revision: Revision) -> None:
        pending: list[Awaitable[None]] = [part.prepare(revision) for part in self._parts]
        await asyncio.gather(*pending)
        before, self.revision = self.revision, revision
        if before.catalog not in ("", revision.catalog):
            logger.warning("the catalog began anew: revision %s replaces %s", revision, before)
        elif before != NO_REVISION:
            logger.info("revision %s is live", revision)
