"""Consumers of a real Kafka: offsets, retries, dead letters, rebalances, and a killed server."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from itertools import count
from pathlib import Path

import pytest
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient

from kirana.kafka.clients import admin, consumer, producer
from kirana.kafka.consumption import ORIGIN, REASON, Consumption, Message, Outcome
from kirana.kafka.topics import Topic, create_topics
from kirana.kafka.url import KafkaUrl
from tests.kafka_server import KafkaServer
from tests.waiting import wait_until

PARTITIONS = 4
_numbers = count()


class Handler:
    """Handles messages as their values say: `later` and `refuse`; all others are done."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.is_away = False

    async def __call__(self, message: Message) -> Outcome:
        value = message.value.decode()
        self.seen[value] += 1
        if self.is_away or (value == "later" and self.seen[value] < 3):
            return Outcome("later", "the store is away")
        if value == "refuse":
            return Outcome("refused", "no such group")
        return Outcome("done", revision=7)


@pytest.fixture
async def url(kafka: KafkaServer) -> KafkaUrl:
    """Return the URL of a new topic, for which there is a topic of dead letters."""
    url = KafkaUrl.parse(f"kafka://{kafka.address}/rows{next(_numbers)}?timeout=5")
    await create_topics(url, topics(url))
    return url


def topics(url: KafkaUrl) -> list[Topic]:
    return [
        Topic(url.topic, PARTITIONS, 1.0),
        Topic(dead(url), 1, 1.0),
        Topic(marks(url), PARTITIONS, 1.0),
    ]


def dead(url: KafkaUrl) -> str:
    return f"{url.topic}.dead"


def marks(url: KafkaUrl) -> str:
    return f"{url.topic}.marks"


async def send(url: KafkaUrl, *values: str, partition: int = 0) -> None:
    sender = producer(url, max_message_bytes=1_000_000)
    await sender.start()
    for value in values:
        await sender.send_and_wait(url.topic, value.encode(), partition=partition)
    await sender.stop()


@asynccontextmanager
async def consuming(url: KafkaUrl, handler: Handler) -> AsyncIterator[Consumption]:
    consumption = Consumption(url, dead=dead(url), marks=marks(url), handle=handler)
    task = asyncio.create_task(consumption.run())
    yield consumption
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def committed(url: KafkaUrl, partition: int = 0) -> int:
    client: AIOKafkaAdminClient = admin(url)
    await client.start()
    offsets = await client.list_consumer_group_offsets(url.group)
    await client.close()
    entry = offsets.get(TopicPartition(url.topic, partition))
    return -1 if entry is None else entry.offset


async def test_messages_are_handled_once_and_committed(url: KafkaUrl) -> None:
    await send(url, "a", "b")
    await send(url, "c", partition=1)
    handler = Handler()
    async with consuming(url, handler) as consumption:
        await wait_until(lambda: handler.seen == Counter("abc"), "the messages are handled")
        await wait_until(lambda: consumption.report.lag == 0, "nothing waits")
        assert consumption.report.partitions == [*range(PARTITIONS)]
        await wait_until(lambda: is_committed(url, 2), "the offset is committed")
    again = Handler()
    async with consuming(url, again):
        await send(url, "d")
        await wait_until(lambda: again.seen["d"], "the next message is handled")
    assert again.seen == Counter("d")


async def is_committed(url: KafkaUrl, offset: int) -> bool:
    return await committed(url) == offset


async def test_no_offset_is_committed_past_a_message_that_is_not_done(url: KafkaUrl) -> None:
    handler = Handler()
    await send(url, "a", "b")
    handler.is_away = True
    async with consuming(url, handler) as consumption:
        await wait_until(lambda: handler.seen["b"] >= 2, "the messages are tried again")
        assert "the store is away" in consumption.report.problem
        assert await committed(url) == -1
        handler.is_away = False
        await wait_until(lambda: is_committed(url, 2), "both are done")
        await wait_until(lambda: not consumption.report.problem, "the problem is gone")


async def test_one_message_that_must_wait_holds_up_only_its_partition(url: KafkaUrl) -> None:
    handler = Handler()
    await send(url, "a", "later", "b")
    await send(url, "c", partition=1)
    async with consuming(url, handler):
        await wait_until(lambda: is_committed(url, 3), "all are done")
    assert handler.seen["later"] == 3
    assert handler.seen["a"] == handler.seen["c"] == 1


async def test_a_refused_message_becomes_a_dead_letter(url: KafkaUrl) -> None:
    await send(url, "a", "refuse", "b")
    handler = Handler()
    async with consuming(url, handler) as consumption:
        await wait_until(lambda: is_committed(url, 3), "all are done")
        assert consumption.report.refused == 1
    letters = consumer(url, None)
    letters.subscribe([dead(url)])
    await letters.start()
    letter = await letters.getone()
    await letters.stop()
    assert letter.value == b"refuse"
    assert dict(letter.headers) == {REASON: b"no such group", ORIGIN: f"{url.topic}/0/1".encode()}


async def test_two_consumers_share_partitions_and_one_takes_over(url: KafkaUrl) -> None:
    first, second = Handler(), Handler()
    async with consuming(url, first) as stays:
        await wait_until(lambda: len(stays.report.partitions) == PARTITIONS, "it has all")
        async with consuming(url, second) as leaves:
            await wait_until(
                lambda: len(stays.report.partitions) == len(leaves.report.partitions) == 2,
                "each has half",
            )
            for partition in range(PARTITIONS):
                await send(url, f"a{partition}", partition=partition)
            await wait_until(lambda: len(first.seen + second.seen) == PARTITIONS, "all are handled")
            assert first.seen
            assert second.seen
        await wait_until(lambda: len(stays.report.partitions) == PARTITIONS, "it has all again")
        for partition in range(PARTITIONS):
            await send(url, f"b{partition}", partition=partition)
        await wait_until(lambda: all(first.seen[f"b{n}"] for n in range(PARTITIONS)), "all go on")


@pytest.fixture
def own(tmp_path: Path) -> Iterator[KafkaServer]:
    with KafkaServer(tmp_path) as server:
        yield server


@pytest.mark.kafka
async def test_consumers_go_on_after_kafka_was_killed(own: KafkaServer) -> None:
    url = KafkaUrl.parse(f"kafka://{own.address}/rows?timeout=2")
    own.kill()
    handler = Handler()
    async with consuming(url, handler) as consumption:
        await wait_until(lambda: "does not answer" in consumption.report.problem, "it says so")
        await asyncio.to_thread(own.start)
        await create_topics(url, topics(url))
        await send(url, "a")
        await wait_until(lambda: handler.seen["a"], "the message is handled")
        await wait_until(lambda: is_committed(url, 1), "it is committed")
        own.kill()
        await wait_until(lambda: consumption.report.problem, "it says so")
        await asyncio.to_thread(own.start)
        await send(url, "b")
        await wait_until(lambda: handler.seen["b"], "the next message is handled")
    assert handler.seen["a"] == 1
