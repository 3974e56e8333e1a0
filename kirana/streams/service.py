"""Writes that also go into the topic. `kirana.streams.source` has the interface."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from kirana.catalog.revisions import CatalogSource, Revisions
from kirana.catalog.snapshot import Catalog
from kirana.errors import TooLarge, Unavailable
from kirana.features.event_times import check_event_times
from kirana.features.source import Features, FeatureWrite, WriteResult
from kirana.kafka.sending import Outgoing, Sender
from kirana.loop import INLINE_ROWS, inline_or_thread
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.schema import Array
from kirana.service import Health
from kirana.streams.health import health_of
from kirana.streams.messages import DeleteRows, PutRows


class StreamService:
    """Implements `Streams` over the features part and a topic.

    If it `accepts`, a write is in the topic when it returns, and reaches the store through a
    consumer. Otherwise, the store has it first, and then the topic. `consumers` and `archivers` are
    the actors.
    """

    def __init__(
        self,
        features: Features,
        source: CatalogSource,
        sender: Sender,
        *,
        consumers: Sequence[Any],
        archivers: Sequence[Any] = (),
        accepts: bool,
    ) -> None:
        self._features = features
        self._catalogs: Revisions[Catalog] = Revisions(source, lambda catalog: catalog)
        self._sender = sender
        self._consumers = consumers
        self._archivers = archivers
        self._accepts = accepts

    async def prepare(self, revision: Revision) -> None:
        """Load a revision. Raise `Unavailable` if it can't be read."""
        await self._catalogs.at(revision)

    async def write(self, write: FeatureWrite, context: RequestContext) -> WriteResult:
        """Write rows to the store and the topic.

        The errors are those of the features part. Raise `Unavailable` also if the topic does not
        take the rows.
        """
        rows = PutRows.of(write, await self._catalogs.of(context))
        if self._accepts:
            await self._features.check_write(write, context)
            await self._send(await self._messages(rows), context)
            return WriteResult(0, 0, accepted=len(write.keys))
        messages = await self._messages(rows)
        result = await self._features.write(write, context)
        await self._send_stored(messages, context)
        return result

    async def delete(
        self,
        group: str,
        keys: Sequence[str],
        event_time_ms: Array,
        force: bool,
        context: RequestContext,
    ) -> WriteResult:
        """Delete rows from the store, and send the deletes to the topic.

        The errors are those of the features part. Raise `Unavailable` also if the topic does not
        take the deletes.
        """
        catalog = await self._catalogs.of(context)
        rows = DeleteRows.of(group, keys, event_time_ms, force, catalog)
        check_event_times(event_time_ms, context.now_ms)
        messages = await self._messages(rows)
        # Only the store knows which rows are ahead, and whether it can forget them.
        if self._accepts and not force:
            await self._send(messages, context)
            return WriteResult(0, 0, accepted=len(keys))
        result = await self._features.delete(group, keys, event_time_ms, force, context)
        await self._send_stored(messages, context)
        return result

    async def _messages(self, rows: PutRows | DeleteRows) -> list[Outgoing]:
        layout = await self._sender.layout()
        inline = len(rows.keys) <= INLINE_ROWS
        try:
            return await inline_or_thread(inline, list, rows.messages(layout))
        except TooLarge:
            # The limit of the topic may have been raised meanwhile.
            await self._sender.reset()
            raise

    async def _send(self, messages: Sequence[Outgoing], context: RequestContext) -> None:
        await self._sender.send(messages, timeout_s=context.left_s())

    async def _send_stored(self, messages: Sequence[Outgoing], context: RequestContext) -> None:
        try:
            await self._send(messages, context)
        except Unavailable as error:
            error.message += "; the rows are in the store, and it is safe to send them again"
            raise

    async def health(self, revision: Revision) -> Health:
        """Ask all actors. The part is unavailable if one of them can't go on."""
        return await health_of(self._consumers, self._archivers)
