"""Dead letters: messages that were refused, with the reason. They can be sent again."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.structs import ConsumerRecord

from kirana.kafka.clients import consumer, producer, start, stop
from kirana.kafka.consumption import MAX_DEAD_BYTES, ORIGIN, REASON
from kirana.kafka.errors import answering
from kirana.kafka.topics import committed_offsets, layout_of, partitions_of_topic
from kirana.kafka.url import KafkaUrl

_ORIGIN = re.compile(r".*/(\d+)/\d+")


@dataclass(frozen=True, slots=True)
class Letter:
    """A message that was refused for this `reason`. `origin` says where it was."""

    record: ConsumerRecord
    origin: str
    reason: str


class DeadLetters:
    """The dead letters of a topic that were not sent again yet.

    The methods raise `Unavailable` if Kafka does not answer, or does not take a message.
    """

    def __init__(
        self, url: KafkaUrl, source: AIOKafkaConsumer, sender: AIOKafkaProducer, partitions: int
    ) -> None:
        self._url = url
        self._source = source
        self._sender = sender
        self._partitions = partitions

    async def waiting(self) -> AsyncIterator[Letter]:
        """Yield the letters, those of each partition in their order, up to those that exist now."""
        with answering(self._url.name):
            ends = await self._source.end_offsets(self._source.assignment())
            for partition, end in ends.items():
                while await self._source.position(partition) < end:
                    fetched = await self._source.getmany(partition, timeout_ms=500)
                    if not fetched:
                        # While Kafka is away, the client itself only tries again.
                        async with asyncio.timeout(self._url.timeout_s):
                            await self._source.end_offsets([partition])
                    for record in fetched.get(partition, []):
                        if record.offset < end:
                            yield _letter(record)

    async def send_again(self, letter: Letter) -> None:
        """Send a letter to the partition where it was, with the time that it had.

        It does not wait any more from then on. If it is refused again, it becomes a new letter.
        """
        record = letter.record
        place = _ORIGIN.fullmatch(letter.origin)
        partition = int(place[1]) % self._partitions if place else None
        headers = [(name, value) for name, value in record.headers if name not in (REASON, ORIGIN)]
        with answering(self._url.name):
            async with asyncio.timeout(self._url.timeout_s):
                await self._sender.send_and_wait(
                    self._url.topic,
                    record.value,
                    partition=partition,
                    timestamp_ms=record.timestamp,
                    headers=headers,
                )
                key = TopicPartition(record.topic, record.partition)
                await self._source.commit({key: record.offset + 1})


@asynccontextmanager
async def dead_letters_of(url: KafkaUrl, topic: str) -> AsyncIterator[DeadLetters]:
    """Open the dead letters in `topic`. Raise `Unavailable` if Kafka does not answer."""
    partitions = (await layout_of(url)).partitions
    of_letters = (await layout_of(url, topic)).partitions
    group = f"{url.group}.resend"
    source = consumer(url, group)
    sender = producer(url, max_message_bytes=MAX_DEAD_BYTES)
    try:
        with answering(url.name):
            await start(source, url)
            await start(sender, url)
            partitions_of_letters = partitions_of_topic(topic, of_letters)
            source.assign(partitions_of_letters)
            committed = await committed_offsets(url, group, partitions_of_letters)
            for partition, entry in committed.items():
                if entry.offset >= 0:
                    source.seek(partition, entry.offset)
        yield DeadLetters(url, source, sender, partitions)
    finally:
        await stop(source, url)
        await stop(sender, url)


def _letter(record: ConsumerRecord) -> Letter:
    headers = dict(record.headers)
    return Letter(
        record,
        headers.get(ORIGIN, b"").decode(errors="replace"),
        headers.get(REASON, b"").decode(errors="replace"),
    )
