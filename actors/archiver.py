"""The archiver of the feature stream: it writes what the store has to the archive."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition

from kirana.actors.archive_writer import ArchiveWriter, StoredMessage
from kirana.archive.batch import Batch
from kirana.archive.folder import file_name
from kirana.archive.positions import commit, positions_of
from kirana.archive.reader import POLL_MS, PartitionReader
from kirana.errors import KiranaError
from kirana.kafka.clients import consumer, start, stop
from kirana.kafka.consumption import message_of_record
from kirana.kafka.errors import FAILURES, message_of
from kirana.kafka.topics import layout_of, partitions_of_topic
from kirana.metrics import Gauge
from kirana.part import Wiring
from kirana.storage.s3 import place_of
from kirana.streams.part import StreamSettings, parse_stream
from kirana.streams.source import ArchiveReport
from kirana.streams.topics import require_topics, stored_marks

RETRY_S = 1.0

LOOK_EVERY_S = 30.0
"""How often the archiver looks for new partitions."""

LAG = Gauge("kirana_archive_lag", "Messages of the stream that are not in the archive.", ())


class Archiver:
    """Writes batches of messages to the archive, once the store has their rows.

    While the catalog, Kafka or the storage is away, it tries again. After a crash it goes on after
    the last batch that was complete, and makes the same files again that it had begun.
    """

    def __init__(self, wiring: Wiring) -> None:
        settings = wiring.settings(StreamSettings)
        self._url = parse_stream(settings.streams)
        digest = hashlib.sha256(place_of(settings.archive).encode()).hexdigest()[:8]
        self._group = f"{self._url.group}.archive.{digest}"
        self._writer = ArchiveWriter(wiring)
        self._metrics = wiring.metrics
        self._first_ends: dict[int, int] = {}
        self.has_written_all = False
        """Whether all messages are in the archive that the topic had at the start."""

    async def report(self) -> tuple[str, ArchiveReport]:
        """Return why the archiver can't go on, or "", and its state."""
        return self._writer.report()

    async def run(self) -> None:
        """Write the archive until cancelled."""
        while True:
            try:
                await self._connected()
            except (KiranaError, OSError) as error:
                self._writer.note(str(error))
            await asyncio.sleep(RETRY_S)

    async def _connected(self) -> None:
        """Write the archive until a server fails."""
        await self._writer.open()
        await require_topics(self._url)
        count = (await layout_of(self._url)).partitions
        source, marks = consumer(self._url, self._group), consumer(self._url, None)
        follow = asyncio.create_task(self._writer.follow())
        try:
            await start(source, self._url)
            await start(marks, self._url)
            # The client waits without a limit while Kafka is away.
            async with asyncio.timeout(self._url.timeout_s):
                readers = await self._readers(source, marks, count)
            self._writer.problem = ""
            looked_s = time.monotonic()
            while True:
                await self._poll(source, marks, readers)
                if time.monotonic() - looked_s > LOOK_EVERY_S:
                    looked_s = time.monotonic()
                    if (await layout_of(self._url)).partitions != count:
                        break  # The topic has grown: connect again, with all partitions.
        except FAILURES as error:
            self._writer.note(message_of(self._url.name, error))
        finally:
            follow.cancel()
            await stop(source, self._url)
            await stop(marks, self._url)

    async def _readers(
        self, source: AIOKafkaConsumer, marks: AIOKafkaConsumer, count: int
    ) -> list[PartitionReader]:
        """Return a reader for each partition, from where the archive ends."""
        partitions = partitions_of_topic(self._url.topic, count)
        of_marks = partitions_of_topic(stored_marks(self._url), count)
        source.assign(partitions)
        marks.assign(of_marks)
        positions = await positions_of(self._url, source, marks, self._group)
        for partition, position in zip(of_marks, positions, strict=True):
            marks.seek(partition, position.mark)
        return [
            PartitionReader(source, partition, position, self._url.timeout_s)
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
        self._first_ends = self._first_ends or {key.partition: end for key, end in ends.items()}
        lag = sum(max(end - readers[key.partition].next.offset, 0) for key, end in ends.items())
        self._writer.state.lag = lag
        self.has_written_all = all(
            readers[number].next.offset >= end for number, end in self._first_ends.items()
        )
        self._metrics.set(LAG, lag)

    async def _write(self, batch: Batch, partition: TopicPartition) -> None:
        """Write the files of a batch. Messages that were refused have no rows."""
        messages = [
            StoredMessage(message_of_record(stored.record), stored.at_ms, stored.revision)
            for stored in batch.messages
            if not stored.refused
        ]
        first, end = batch.start.offset, batch.end

        def name_of(version: int) -> str:
            return file_name(self._url.topic, partition.partition, first, end, version)

        await self._writer.write(messages, name_of)
