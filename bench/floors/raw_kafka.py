"""The floors of the streams: a bare producer, and a bare consumer with the store's bulk write."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from kirana.kafka.sending import Outgoing
from kirana.stores import FeatureStore, RowBlock

IN_FLIGHT = 64


async def send_all(broker: str, topic: str, messages: Sequence[Outgoing]) -> None:
    """Send messages that were made before, with the acknowledgements that Kirana asks for."""
    producer = AIOKafkaProducer(
        bootstrap_servers=broker,
        acks="all",
        enable_idempotence=True,
        compression_type="lz4",
        linger_ms=5,
        max_request_size=1 << 20,
    )
    await producer.start()
    for start in range(0, len(messages), IN_FLIGHT):
        sent = [
            await producer.send(topic, message.value, partition=message.partition)
            for message in messages[start : start + IN_FLIGHT]
        ]
        await asyncio.gather(*sent)
    await producer.stop()


async def consume_all(
    broker: str,
    topic: str,
    partitions: int,
    store: FeatureStore,
    blocks: Mapping[tuple[int, int], RowBlock],
) -> None:
    """Read all messages, and write the rows of each in bulk.

    `blocks` has the encoded rows of each message, by partition and offset, so nothing is decoded.
    Offsets are committed after each batch.
    """
    consumer = AIOKafkaConsumer(
        bootstrap_servers=broker,
        group_id=f"{topic}.raw",
        enable_auto_commit=False,
        auto_offset_reset="earliest",
    )
    await consumer.start()
    consumer.assign([TopicPartition(topic, number) for number in range(partitions)])
    await consumer.seek_to_beginning()
    done = 0
    while done < len(blocks):
        fetched = await consumer.getmany(timeout_ms=500, max_records=IN_FLIGHT)
        found = [record for records in fetched.values() for record in records]
        writes = (store.load(blocks[record.partition, record.offset]) for record in found)
        await asyncio.gather(*writes)
        if found:
            await consumer.commit()
        done += len(found)
    await consumer.stop()
