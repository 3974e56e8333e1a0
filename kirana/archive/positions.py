"""How far an archive is written, kept in Kafka as the offsets of a consumer group."""

from __future__ import annotations

import msgspec
from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.structs import OffsetAndMetadata

from kirana.archive.batch import Position
from kirana.kafka.topics import committed_offsets
from kirana.kafka.url import KafkaUrl


class _Note(msgspec.Struct):
    """What a committed offset says besides the offset: the other fields of a `Position`."""

    mark: int
    last_ms: int


async def positions_of(
    url: KafkaUrl, source: AIOKafkaConsumer, marks: AIOKafkaConsumer, group: str
) -> list[Position]:
    """Return where the next batch of each partition begins.

    Without a committed offset, it is the first message that the topic still has. `source` and
    `marks` are consumers to which all partitions of the topic and of the marks are assigned. Raise
    `Unavailable` if Kafka does not know yet what was committed.
    """
    committed = await committed_offsets(url, group, list(source.assignment()))
    first = _by_number(await source.beginning_offsets(source.assignment()))
    first_marks = _by_number(await marks.beginning_offsets(marks.assignment()))
    positions = []
    for number in sorted(first):
        entry = committed[TopicPartition(url.topic, number)]
        if entry.offset < 0:
            positions.append(Position(first[number], first_marks[number]))
        else:
            note = msgspec.json.decode(entry.metadata, type=_Note)
            positions.append(Position(entry.offset, note.mark, note.last_ms))
    return positions


async def commit(source: AIOKafkaConsumer, partition: TopicPartition, position: Position) -> None:
    """Record that all batches before a position are in the archive."""
    note = msgspec.json.encode(_Note(position.mark, position.last_ms)).decode()
    await source.commit({partition: OffsetAndMetadata(position.offset, note)})


def _by_number(offsets: dict[TopicPartition, int]) -> dict[int, int]:
    return {partition.partition: offset for partition, offset in offsets.items()}
