"""Writes that are also spooled for an archive without Kafka. The interface is in `source.py`."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.errors import Unavailable
from kirana.features.source import Features, FeatureWrite, WriteResult
from kirana.kafka.topics import Layout
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.schema import Array
from kirana.service import Health
from kirana.streams.health import health_of
from kirana.streams.messages import DELETE, PUT, DeleteRows, PutRows
from kirana.streams.spool import SpoolWriter

WHOLE = Layout(partitions=1, max_message_bytes=1 << 30)

LOOK_EVERY_S = 0.2


class SpoolService:
    """Implements `Streams`: the store has a write first, and then the spool."""

    def __init__(
        self,
        features: Features,
        source: CatalogSource,
        spool: SpoolWriter,
        *,
        archivers: Sequence[Any],
    ) -> None:
        self._features = features
        self._catalogs: Revisions[Catalog] = Revisions(source, lambda catalog: catalog)
        self._spool = spool
        self._archivers = archivers
        self._periods: asyncio.Task[None] | None = None

    async def prepare(self, revision: Revision) -> None:
        """Load a revision. Raise `Unavailable` if it can't be read."""
        await self._catalogs.at(revision)
        self._periods = self._periods or asyncio.create_task(self._end_periods())

    async def _end_periods(self) -> None:
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            self._spool.end_period()

    async def write(self, write: FeatureWrite, context: RequestContext) -> WriteResult:
        """Write rows to the store, and spool them. The errors are those of the features part."""
        rows = PutRows.of(write, await self._catalogs.of(context))
        result = await self._features.write(write, context)
        spool_rows(self._spool, rows, context.revision.number)
        return result

    async def delete(
        self,
        group: str,
        keys: Sequence[str],
        event_time_ms: Array,
        force: bool,
        context: RequestContext,
    ) -> WriteResult:
        """Delete rows from the store, and spool that. The errors are those of the features part."""
        catalog = await self._catalogs.of(context)
        rows = DeleteRows.of(group, keys, event_time_ms, force, catalog)
        result = await self._features.delete(group, keys, event_time_ms, force, context)
        spool_rows(self._spool, rows, context.revision.number)
        return result

    async def health(self, revision: Revision) -> Health:
        """Ask the archiver. The part is unavailable if it can't go on."""
        return await health_of([], self._archivers)

    async def close(self) -> None:
        """Close the spool."""
        if self._periods is not None:
            self._periods.cancel()
        self._spool.close()


def spool_rows(spool: SpoolWriter, rows: PutRows | DeleteRows, revision: int) -> None:
    """Append rows that the store has to a spool. Raise `Unavailable` if that fails."""
    kind = PUT if isinstance(rows, PutRows) else DELETE
    try:
        for message in rows.messages(WHOLE):
            spool.append(kind, message.value, revision)
    except OSError as error:
        raise Unavailable(
            f"the archive's spool can't be written: {error}; the rows are in the store, and it is "
            "safe to send them again"
        ) from error
