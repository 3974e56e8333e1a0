"""The archiver: it writes what the store has from the feature stream to the archive."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from kirana.archive.batch import Batch, Stored
from kirana.archive.folder import ArchiveFolder, file_name
from kirana.archive.positions import commit, partitions_of, positions_of
from kirana.archive.reader import POLL_MS, PartitionReader
from kirana.archive.tables import ArchivedRows, tables_of
from kirana.catalog.revisions import LiveRevision
from kirana.catalog.snapshot import Catalog
from kirana.doors.stream import decode_message
from kirana.edge.handlers.features import FeatureDelete
from kirana.edge.resources import Resources
from kirana.errors import KiranaError, Unavailable
from kirana.features.source import FeatureWrite
from kirana.kafka.clients import consumer, start, stop
from kirana.kafka.consumption import Message, message_of_record
from kirana.kafka.errors import FAILURES, message_of
from kirana.kafka.topics import layout_of, missing_topics
from kirana.metrics import Counter, Gauge
from kirana.part import Parts, Wiring
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.streams.part import StreamSettings, parse_stream
from kirana.streams.source import ArchiveReport
from kirana.streams.topics import stored_marks, topics_of
from kirana.urls import without_password

logger = logging.getLogger("kirana.archiver")

RETRY_S = 1.0

NO_LIMIT_MS = 1 << 52
"""A time in the far future. The consumer has checked the event times of all rows."""

ROWS = Counter("kirana_archive_rows", "Rows that were written to the archive.", ("group",))
LAG = Gauge("kirana_archive_lag", "Messages of the stream that are not in the archive.", ())


class Archiver:
    """Writes batches of messages to the archive, once the store has their rows.

    While the catalog, Kafka or the storage is away, it tries again. After a crash it goes on after
    the last batch that was complete, and makes the same files again that it had begun.
    """

    def __init__(self, wiring: Wiring) -> None:
        settings = wiring.settings(StreamSettings)
        self._url = parse_stream(settings.streams)
        self._archive = settings.archive
        self._period_ms = round(settings.archive_period_s * 1_000)
        digest = hashlib.sha256(without_password(self._archive).encode()).hexdigest()[:8]
        self._group = f"{self._url.group}.archive.{digest}"
        self._live = LiveRevision(wiring.source, [])
        self._resources = Resources(Parts({}), self._live, wiring.source)
        self._metrics = wiring.metrics
        self._folder: ArchiveFolder | None = None
        self._problem = "it is starting"
        self._state = ArchiveReport()

    async def report(self) -> tuple[str, ArchiveReport]:
        """Return why the archiver can't go on, or "", and its state."""
        return self._problem and f"the archive is not written: {self._problem}", self._state

    async def run(self) -> None:
        """Write the archive until cancelled."""
        while True:
            try:
                await self._connected()
            except (KiranaError, OSError) as error:
                self._note(str(error))
            await asyncio.sleep(RETRY_S)

    def _note(self, problem: str) -> None:
        if problem != self._problem:
            logger.warning("the archive is not written: %s", problem)
        self._problem = problem

    async def _connected(self) -> None:
        """Write the archive until a server fails."""
        await self._live.start()
        self._folder = self._folder or await asyncio.to_thread(ArchiveFolder, self._archive)
        if missing := await missing_topics(self._url, topics_of(self._url)):
            names = ", ".join(missing)
            raise Unavailable(f"{self._url.name} lacks the topics {names}: run 'kirana apply'")
        count = (await layout_of(self._url)).partitions
        source, marks = consumer(self._url, self._group), consumer(self._url, None)
        follow = asyncio.create_task(self._live.follow())
        try:
            await start(source, self._url)
            await start(marks, self._url)
            # The client waits without a limit while Kafka is away.
            async with asyncio.timeout(self._url.timeout_s):
                readers = await self._readers(source, marks, count)
            self._problem = ""
            while True:
                await self._poll(source, marks, readers)
        except FAILURES as error:
            self._note(message_of(self._url.name, error))
        finally:
            follow.cancel()
            await stop(source, self._url)
            await stop(marks, self._url)

    async def _readers(
        self, source: AIOKafkaConsumer, marks: AIOKafkaConsumer, count: int
    ) -> list[PartitionReader]:
        """Return a reader for each partition, from where the archive ends."""
        partitions = partitions_of(self._url.topic, count)
        of_marks = partitions_of(stored_marks(self._url), count)
        source.assign(partitions)
        marks.assign(of_marks)
        positions = await positions_of(self._url, source, marks, self._group)
        for partition, position in zip(of_marks, positions, strict=True):
            marks.seek(partition, position.mark)
        return [
            PartitionReader(source, partition, position, self._period_ms, self._url.timeout_s)
            for partition, position in zip(partitions, positions, strict=True)
        ]

    async def _poll(
        self,
        source: AIOKafkaConsumer,
        marks: AIOKafkaConsumer,
        readers: Sequence[PartitionReader],
    ) -> None:
        """Read the next marks, and write the batches that they complete."""
        fetched = await marks.getmany(timeout_ms=POLL_MS)
        for key, records in fetched.items():
            reader = readers[key.partition]
            async for batch in reader.take(records):
                partition = TopicPartition(self._url.topic, key.partition)
                await self._write(batch, partition)
                async with asyncio.timeout(self._url.timeout_s):
                    await commit(source, partition, batch.next)
        # This also shows whether Kafka answers.
        async with asyncio.timeout(self._url.timeout_s):
            ends = await source.end_offsets(source.assignment())
        lag = sum(max(end - readers[key.partition].next.offset, 0) for key, end in ends.items())
        self._state.lag = lag
        self._metrics.set(LAG, lag)

    async def _write(self, batch: Batch, partition: TopicPartition) -> None:
        """Write the files of a batch."""
        assert self._folder is not None
        rows = [of_message for stored in batch.messages if (of_message := await self._rows(stored))]
        for file in await asyncio.to_thread(lambda: [*tables_of(rows)]):
            name = file_name(self._url.topic, partition.partition, batch, file.version)
            await asyncio.to_thread(self._folder.write, file, name)
            self._state.files += 1
            self._state.rows += len(file.table)
            self._metrics.add(ROWS, len(file.table), file.group)

    async def _rows(self, stored: Stored) -> ArchivedRows | None:
        """Return the rows of a message, or None if it was refused, or can't be read any more."""
        if stored.refused:
            return None
        message = message_of_record(stored.record)
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
            self._state.skipped += 1
            return None

    async def _revision(self, number: int) -> Revision:
        """Return the revision in which a message was written, or the live one if it is gone."""
        revision = Revision(self._live.revision.catalog, number)
        try:
            await self._resources.catalogs.at(revision)
        except Unavailable:
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
