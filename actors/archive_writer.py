"""Writes messages that the store has to the files of an archive."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from kirana.archive.folder import ArchiveFolder
from kirana.archive.tables import ArchivedRows, tables_of
from kirana.catalog.revisions import LiveRevision
from kirana.catalog.snapshot import Catalog
from kirana.doors.stream import decode_message
from kirana.edge.handlers.features import FeatureDelete
from kirana.edge.resources import Resources
from kirana.errors import InvalidInput, KiranaError, Unavailable, Unknown
from kirana.features.source import FeatureWrite
from kirana.kafka.consumption import Message
from kirana.metrics import Counter
from kirana.part import Parts, Wiring
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.streams.part import StreamSettings
from kirana.streams.source import ArchiveReport

logger = logging.getLogger("kirana.archiver")

NO_LIMIT_MS = 1 << 52
"""A time in the far future. The event times of all rows were checked when they were written."""

ROWS = Counter("kirana_archive_rows", "Rows that were written to the archive.", ("group",))


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message whose rows the store had at `at_ms`, in Unix milliseconds.

    `revision` is the number of the catalog's revision in which it was written.
    """

    message: Message
    at_ms: int
    revision: int


class ArchiveWriter:
    """Decodes messages, and writes their rows. `state` counts what was written.

    `problem` says why the archive is not written, "" if it is.
    """

    def __init__(self, wiring: Wiring) -> None:
        self._url = wiring.settings(StreamSettings).archive
        self._live = LiveRevision(wiring.source, [])
        self._resources = Resources(Parts({}), self._live, wiring.source)
        self._metrics = wiring.metrics
        self._folder: ArchiveFolder | None = None
        self.state = ArchiveReport()
        self.problem = "it is starting"

    def report(self) -> tuple[str, ArchiveReport]:
        """Return why the archive is not written, or "", and the state."""
        return self.problem and f"the archive is not written: {self.problem}", self.state

    def note(self, problem: str) -> None:
        """Set the problem, and log a new one."""
        if problem != self.problem:
            logger.warning("the archive is not written: %s", problem)
        self.problem = problem

    async def open(self) -> None:
        """Load the catalog, and open the folder. Raise a `KiranaError` if one is away."""
        await self._live.start()
        self._folder = self._folder or await asyncio.to_thread(ArchiveFolder, self._url)

    async def follow(self) -> None:
        """Follow the catalog until cancelled."""
        await self._live.follow()

    async def write(self, messages: Sequence[StoredMessage], name_of: Callable[[int], str]) -> None:
        """Write the rows of messages, as one file for each group, schema version and day.

        `name_of` returns the name of the file for a schema version. Raise `Unavailable` if the
        storage or the catalog is away.
        """
        assert self._folder is not None
        rows = [found for stored in messages if (found := await self._rows(stored))]
        for file in await asyncio.to_thread(lambda: [*tables_of(rows)]):
            await asyncio.to_thread(self._folder.write, file, name_of(file.version))
            self.state.files += 1
            self.state.rows += len(file.table)
            self._metrics.add(ROWS, len(file.table), file.group)

    async def _rows(self, stored: StoredMessage) -> ArchivedRows | None:
        """Return the rows of a message, or None if it can't be read any more."""
        message = stored.message
        revision = await self._revision(stored.revision)
        context = RequestContext.begin(revision, now_ms=NO_LIMIT_MS, id=message.origin)
        try:
            catalog = await self._resources.catalogs.of(context)
            rows = await decode_message(message, self._resources, context)
            return archived_rows(rows, catalog, message, stored.at_ms)
        except Unavailable:
            raise
        except KiranaError as error:
            logger.warning("%s can't be read any more, and is left out: %s", message.origin, error)
            self.state.skipped += 1
            return None

    async def _revision(self, number: int) -> Revision:
        """Return the revision in which a message was written, or the live one if it is gone."""
        revision = Revision(self._live.revision.catalog, number)
        try:
            await self._resources.catalogs.at(revision)
        except Unavailable as error:
            if not isinstance(error.__cause__, Unknown):
                raise
            return self._live.revision
        return revision


def archived_rows(
    rows: FeatureWrite | FeatureDelete, catalog: Catalog, message: Message, stored_ms: int
) -> ArchivedRows:
    """Return the rows of a message for the archive."""
    group = catalog.group(rows.group)
    version, columns = group.current, None
    if isinstance(rows, FeatureWrite):
        version, columns = group.version(rows.schema_version), rows.columns
        if missing := version.index.keys() - columns.keys():
            raise InvalidInput(f"'{min(missing)}' is missing", field="columns")
    return ArchivedRows(
        group,
        version,
        rows.keys,
        columns,
        rows.event_time_ms,
        stored_ms,
        message.topic,
        message.partition,
        message.offset,
    )
