"""Topics: made with their partitions and retention, and checked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewPartitions, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import (
    TopicAlreadyExistsError,
    UnknownTopicOrPartitionError,
    for_code,
)
from aiokafka.structs import OffsetAndMetadata

from kirana.errors import Conflict, Unavailable
from kirana.kafka.clients import admin, start
from kirana.kafka.errors import answering
from kirana.kafka.url import KafkaUrl

COPIES = 3
"""How many copies a new topic has, if there are enough brokers."""

CLEANUP = "cleanup.policy"
MAX_MESSAGE_BYTES = "max.message.bytes"

MIN_SEGMENT_MS, MAX_SEGMENT_MS = 60_000, 6 * 3_600_000

PAUSE_S = 0.05


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic to be made. A message is kept for `retention_hours`, or a little longer.

    `max_message_bytes` is the size of the largest message, by default that of the broker.
    """

    name: str
    partitions: int
    retention_hours: float
    max_message_bytes: int | None = None

    @property
    def config(self) -> dict[str, str]:
        """The settings of the topic in Kafka."""
        retention_ms = round(self.retention_hours * 3_600_000)
        settings = {
            CLEANUP: "delete",
            "retention.ms": str(retention_ms),
            # Kafka removes whole segments, when their newest message is old enough.
            "segment.ms": str(max(min(retention_ms // 8, MAX_SEGMENT_MS), MIN_SEGMENT_MS)),
        }
        if self.max_message_bytes is not None:
            settings[MAX_MESSAGE_BYTES] = str(self.max_message_bytes)
        return settings


@dataclass(frozen=True, slots=True)
class Layout:
    """What a producer must know of a topic."""

    partitions: int
    max_message_bytes: int


async def layout_of(url: KafkaUrl, topic: str | None = None) -> Layout:
    """Return the layout of a topic, which is by default that of the URL.

    Raise `Unavailable` if the topic does not exist, or if Kafka does not answer.
    """
    async with _connected(url) as client:
        # All topics are asked for: Kafka may make a topic that is asked for by name.
        topics = await _partitions(client)
        topic = topic or url.topic
        if topic not in topics:
            raise UnknownTopicOrPartitionError(topic)
        return Layout(topics[topic], int(await _setting(client, topic, MAX_MESSAGE_BYTES)))


def partitions_of_topic(topic: str, count: int) -> list[TopicPartition]:
    """Return all partitions of a topic that has `count` of them."""
    return [TopicPartition(topic, number) for number in range(count)]


async def committed_offsets(
    url: KafkaUrl, group: str, partitions: Sequence[TopicPartition]
) -> dict[TopicPartition, OffsetAndMetadata]:
    """Return what a consumer group has committed for each partition, with the offset -1 for none.

    Raise `Unavailable` if Kafka does not answer, or does not know it yet because it has just
    started. The clients' own methods would say then that nothing was committed.
    """
    async with _connected(url) as client:
        found: dict[TopicPartition, OffsetAndMetadata] = await client.list_consumer_group_offsets(
            group, partitions=list(partitions)
        )
        if len(found) < len(partitions):
            raise Unavailable(f"{url.name} does not say what '{group}' has committed")
        return found


async def missing_topics(url: KafkaUrl, topics: Sequence[Topic]) -> list[str]:
    """Return the names of topics that do not exist, in order.

    Raise `Conflict` if Kafka compacts one of them, and `Unavailable` if it does not answer.
    """
    async with _connected(url) as client:
        return await _missing(client, topics)


async def create_topics(url: KafkaUrl, topics: Sequence[Topic]) -> list[str]:
    """Make the topics that do not exist, and return their names. Others are not changed.

    Raise `Conflict` if Kafka compacts one of them, and `Unavailable` if it does not answer or
    refuses to make one.
    """
    async with _connected(url) as client:
        missing = await _missing(client, topics)
        if missing:
            await _create(client, url, [topic for topic in topics if topic.name in missing])
            # Brokers learn of a new topic a little later, also of one that another process made.
            deadline = time.monotonic() + url.timeout_s
            while late := await _missing(client, topics):
                if time.monotonic() > deadline:
                    raise Unavailable(
                        f"{url.name} has not made these topics yet: {', '.join(late)}"
                    )
                await asyncio.sleep(PAUSE_S)
        return missing


async def grow_topic(url: KafkaUrl, name: str, partitions: int) -> None:
    """Add partitions to a topic until it has at least so many.

    Raise `Unavailable` if Kafka does not answer, or refuses.
    """
    async with _connected(url) as client:
        if (await _partitions(client))[name] < partitions:
            reply = await client.create_partitions({name: NewPartitions(partitions)})
            for _, code, message in reply.topic_errors:
                if code:
                    raise for_code(code)(message)


async def _create(client: AIOKafkaAdminClient, url: KafkaUrl, topics: Sequence[Topic]) -> None:
    """Make topics, unless another process makes them at the same time."""
    copies = url.replication or min(COPIES, len((await client.describe_cluster())["brokers"]))
    new = [
        NewTopic(topic.name, topic.partitions, copies, topic_configs=topic.config)
        for topic in topics
    ]
    for name, code, message in (await client.create_topics(new)).topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise error(f"topic '{name}' can't be made: {message or error.description}")


async def _missing(client: AIOKafkaAdminClient, topics: Sequence[Topic]) -> list[str]:
    existing = set(await client.list_topics())
    missing = [topic.name for topic in topics if topic.name not in existing]
    for topic in topics:
        if topic.name in existing and "compact" in await _setting(client, topic.name, CLEANUP):
            raise Conflict(
                f"topic '{topic.name}' has cleanup.policy=compact, which would drop rows: a "
                "message holds rows of many keys. Set cleanup.policy=delete"
            )
    return missing


async def _partitions(client: AIOKafkaAdminClient) -> dict[str, int]:
    """Return the number of partitions of each topic, by its name."""
    return {topic["topic"]: len(topic["partitions"]) for topic in await client.describe_topics()}


async def _setting(client: AIOKafkaAdminClient, topic: str, name: str) -> str:
    """Return a setting of a topic, as Kafka has it."""
    resource = ConfigResource(ConfigResourceType.TOPIC, topic, {name: ""})
    (reply,) = await client.describe_configs([resource])
    code, message, _, _, entries = reply.resources[0]
    if code:
        raise for_code(code)(message)
    values: dict[str, Any] = {entry[0]: entry[1] for entry in entries}
    return str(values[name])


@asynccontextmanager
async def _connected(url: KafkaUrl) -> AsyncIterator[AIOKafkaAdminClient]:
    client = admin(url)
    with answering(url.name):
        try:
            await start(client, url)
            yield client
        finally:
            await client.close()
