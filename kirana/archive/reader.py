"""Reads one partition of a stream, batch by batch, as its marks say."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kirana.archive.batch import Batch, Batches, Position
from kirana.errors import Unavailable
from kirana.kafka.marks import decode_mark

POLL_MS = 500


class PartitionReader:
    """Reads the messages of a partition from a position. `source` is a consumer of all partitions.

    Calls of Kafka raise `TimeoutError` after `timeout_s` seconds.
    """

    def __init__(
        self,
        source: AIOKafkaConsumer,
        partition: TopicPartition,
        position: Position,
        timeout_s: float,
    ) -> None:
        self._source = source
        self._partition = partition
        self._batches = Batches(position)
        self._ahead: deque[ConsumerRecord] = deque()
        self._seen = position.offset
        self._timeout_s = timeout_s
        source.seek(partition, position.offset)

    @property
    def next(self) -> Position:
        """Where the batch begins that is read now."""
        return self._batches.next

    async def take(self, marks: Sequence[ConsumerRecord]) -> AsyncIterator[Batch]:
        """Yield the batches that are complete by these marks, in order."""
        for record in marks:
            mark = decode_mark(record.value or b"")
            if mark is None:
                continue
            if batch := self._batches.ended_by(mark, record.offset):
                yield batch
            covered = await self._until(mark.upto)
            for batch in self._batches.add(covered, mark, record.offset):
                yield batch

    async def _until(self, end: int) -> list[ConsumerRecord]:
        """Return the messages before the offset `end` that were not returned yet."""
        while self._seen < end:
            fetched = await self._source.getmany(self._partition, timeout_ms=POLL_MS)
            self._ahead.extend(fetched.get(self._partition, ()))
            self._seen = await self._source.position(self._partition)
            if not fetched and self._seen < end:
                # While Kafka is away, the client itself only tries again.
                async with asyncio.timeout(self._timeout_s):
                    (last,) = (await self._source.end_offsets([self._partition])).values()
                if last < end:
                    raise Unavailable(
                        f"{self._partition.topic} ends at {last} in partition "
                        f"{self._partition.partition}, and its marks at {end}: was it made again?"
                    )
        found = []
        while self._ahead and self._ahead[0].offset < end:
            found.append(self._ahead.popleft())
        return found
