"""Consumes a topic: each message is handled, then marked as done, and then committed."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Literal

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    MessageSizeTooLargeError,
    UnknownTopicOrPartitionError,
)
from aiokafka.structs import ConsumerRecord, TopicPartition

from kirana.kafka.clients import consumer, producer, start, stop
from kirana.kafka.errors import FAILURES, message_of
from kirana.kafka.marks import Mark, encode_mark
from kirana.kafka.url import KafkaUrl

logger = logging.getLogger(__name__)

MAX_MESSAGES = 64
"""How many messages are fetched, and then handled, at a time."""

IN_FLIGHT = 16
"""How many messages are handled at the same time."""

POLL_MS = 500
RETRY_S = 1.0
"""The pause before a message that could not be handled is tried again."""

START_S = 30.0
"""How long the members of a group may take to agree on their partitions."""

LAG_EVERY_S = 1.0

MAX_DEAD_BYTES = 64 << 20
"""A dead letter is a little larger than its message. The topic decides what it takes."""

REASON, ORIGIN = "kirana-reason", "kirana-origin"
"""The headers that a dead letter has besides those of its message."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message. `timestamp_ms` is its time in Kafka, in Unix milliseconds."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    value: bytes
    headers: Mapping[str, bytes]

    @property
    def origin(self) -> str:
        """Where the message is, as text: topic, partition and offset."""
        return f"{self.topic}/{self.partition}/{self.offset}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a message.

    `done`: it need not be handled again. `later`: it must be, because a server is away. `refused`:
    it would fail again, for this `reason`, and becomes a dead letter. `revision` is what the
    handler calls the state in which it handled the message.
    """

    state: Literal["done", "later", "refused"]
    reason: str = ""
    revision: int = 0


Handle = Callable[[Message], Awaitable[Outcome]]


@dataclass(slots=True)
class Report:
    """The state of a consumption.

    `problem` says why Kafka can't be used, or why the last message must be handled again.
    `handled` and `refused` count messages. `lag` is how many messages of the assigned partitions
    wait, None before it is known.
    """

    problem: str = ""
    handled: int = 0
    refused: int = 0
    lag: int | None = None
    partitions: list[int] = field(default_factory=list)


class Consumption:
    """Consumes one topic as a member of a group, until it is cancelled.

    While Kafka is away, it tries to connect once a second. A message may be handled more than once.
    Messages of one partition are handled at the same time, but none is committed before those
    ahead of it are done. A message that is refused is sent to the topic `dead`, and is done when
    that topic has it. The topic `marks` gets a mark of messages that are done, before their offset
    is committed, and at least one mark in each period of `period_s` seconds that has another.
    """

    def __init__(
        self, url: KafkaUrl, *, dead: str, marks: str, handle: Handle, period_s: float = 60.0
    ) -> None:
        self._url = url
        self._dead = dead
        self._marks = marks
        self._handle = handle
        self._period_ms = round(period_s * 1_000)
        self._limit = asyncio.Semaphore(IN_FLIGHT)
        self._paused: dict[TopicPartition, float] = {}
        self._open: dict[TopicPartition, int | None] = {}
        """The time of the last mark of each partition, or None if its period has ended."""
        self._asked_s = 0.0
        self.report = Report()

    async def run(self) -> None:
        """Consume until the task is cancelled."""
        while True:
            await self._connected()
            await asyncio.sleep(RETRY_S)

    async def _connected(self) -> None:
        """Consume until Kafka fails."""
        source = consumer(self._url, self._url.group)
        sender = producer(self._url, max_message_bytes=MAX_DEAD_BYTES)
        source.subscribe([self._url.topic])
        self._paused.clear()
        self._open.clear()
        try:
            async with asyncio.timeout(START_S + self._url.timeout_s):
                await start(source, self._url)
            await start(sender, self._url)
            self.report.problem = ""
            while True:
                await self._poll(source, sender)
        except FAILURES as error:
            self._note(message_of(self._url.name, error))
        finally:
            await stop(source, self._url)
            await stop(sender, self._url)

    async def _poll(self, source: AIOKafkaConsumer, sender: AIOKafkaProducer) -> None:
        self._resume(source)
        fetched: Mapping[TopicPartition, list[ConsumerRecord]] = await source.getmany(
            timeout_ms=POLL_MS, max_records=MAX_MESSAGES
        )
        await asyncio.gather(
            *(self._partition(source, sender, *entry) for entry in fetched.items())
        )
        # The client waits without a limit while Kafka is away.
        async with asyncio.timeout(self._url.timeout_s):
            await self._end_periods(source, sender)
        if time.monotonic() - self._asked_s >= LAG_EVERY_S:
            await self._ask_lag(source)

    def _resume(self, source: AIOKafkaConsumer) -> None:
        due = [partition for partition, at in self._paused.items() if at <= time.monotonic()]
        for partition in due:
            del self._paused[partition]
        source.resume(*source.assignment().intersection(due))

    async def _partition(
        self,
        source: AIOKafkaConsumer,
        sender: AIOKafkaProducer,
        partition: TopicPartition,
        records: Sequence[ConsumerRecord],
    ) -> None:
        """Handle messages of one partition. Mark those that are done, and commit their offset."""
        messages = [*map(message_of_record, records)]
        outcomes = await asyncio.gather(*map(self._handled, messages))
        done = 0
        for message, outcome in zip(messages, outcomes, strict=True):
            if outcome.state == "later":
                self._note(f"{message.origin}: {outcome.reason}")
                break
            if outcome.state == "refused":
                await self._bury(sender, message, outcome.reason)
            done += 1
        await self._mark(sender, partition, messages[:done], outcomes)
        # After a rebalance, another member has the partition and handles the messages again.
        with suppress(CommitFailedError, IllegalStateError):
            if done < len(messages):
                self._paused[partition] = time.monotonic() + RETRY_S
                source.pause(partition)
                source.seek(partition, messages[done].offset)
            if done:
                async with asyncio.timeout(self._url.timeout_s):
                    await source.commit({partition: messages[done - 1].offset + 1})
                self.report.handled += done

    async def _handled(self, message: Message) -> Outcome:
        async with self._limit:
            return await self._handle(message)

    async def _mark(
        self,
        sender: AIOKafkaProducer,
        partition: TopicPartition,
        messages: Sequence[Message],
        outcomes: Sequence[Outcome],
    ) -> None:
        """Send a mark of messages that are done, one for each revision in which they were."""
        pairs = zip(messages, outcomes, strict=False)
        for revision, group in groupby(pairs, key=lambda pair: pair[1].revision):
            done = list(group)
            refused = [message.offset for message, outcome in done if outcome.state == "refused"]
            upto = done[-1][0].offset + 1
            await self._send_mark(sender, partition, upto, revision, tuple(refused))

    async def _end_periods(self, source: AIOKafkaConsumer, sender: AIOKafkaProducer) -> None:
        """Send a mark for each partition whose last mark is in a period that has ended."""
        assigned = source.assignment()
        self._open = {key: last_ms for key, last_ms in self._open.items() if key in assigned}
        for partition in assigned:
            last_ms = self._open.get(partition)
            # What the member before this one has marked is not known.
            if partition not in self._open or (
                last_ms is not None and last_ms // self._period_ms < _now_ms() // self._period_ms
            ):
                with suppress(IllegalStateError):
                    upto = await source.committed(partition) or 0
                    await self._send_mark(sender, partition, upto)
                    self._open[partition] = None

    async def _send_mark(
        self,
        sender: AIOKafkaProducer,
        partition: TopicPartition,
        upto: int,
        revision: int = 0,
        refused: tuple[int, ...] = (),
    ) -> None:
        mark = Mark(upto, _now_ms(), revision, refused, self._period_ms)
        number = partition.partition
        await self._send(sender, self._marks, encode_mark(mark), mark.at_ms, partition=number)
        self._open[partition] = mark.at_ms

    async def _bury(self, sender: AIOKafkaProducer, message: Message, reason: str) -> None:
        logger.warning("%s is refused: %s", message.origin, reason)
        headers: list[tuple[str, Any]] = [
            (name, value) for name, value in message.headers.items() if name not in (REASON, ORIGIN)
        ]
        headers += [(REASON, reason.encode()), (ORIGIN, message.origin.encode())]
        try:
            await self._send(sender, self._dead, message.value, message.timestamp_ms, headers)
        except MessageSizeTooLargeError:
            headers[-2] = (REASON, f"{reason} (and it is too large to be kept here)".encode())
            await self._send(sender, self._dead, b"", message.timestamp_ms, headers)
        self.report.refused += 1

    async def _send(
        self,
        sender: AIOKafkaProducer,
        topic: str,
        value: bytes,
        timestamp_ms: int,
        headers: Sequence[tuple[str, bytes]] = (),
        partition: int | None = None,
    ) -> None:
        """Send a message, and return when all replicas have it."""
        async with asyncio.timeout(self._url.timeout_s):
            if partition not in {None, *(await sender.partitions_for(topic))}:
                raise UnknownTopicOrPartitionError(f"partition {partition} of {topic}")
            await sender.send_and_wait(
                topic, value, partition=partition, timestamp_ms=timestamp_ms, headers=list(headers)
            )

    async def _ask_lag(self, source: AIOKafkaConsumer) -> None:
        """Ask Kafka for the ends of the partitions. This also shows whether it answers.

        The client itself only logs that it can't fetch, and tries again.
        """
        assigned = source.assignment()
        self.report.partitions = sorted(partition.partition for partition in assigned)
        try:
            async with asyncio.timeout(self._url.timeout_s):
                ends = await source.end_offsets(assigned)
                positions = {partition: await source.position(partition) for partition in assigned}
        except (*FAILURES, IllegalStateError) as error:
            self.report.lag = None
            self._note(message_of(self._url.name, error))
        else:
            self.report.lag = sum(max(ends[p] - positions[p], 0) for p in assigned)
            if not self._paused:
                self.report.problem = ""
        self._asked_s = time.monotonic()

    def _note(self, problem: str) -> None:
        if problem != self.report.problem:
            logger.warning("%s", problem)
        self.report.problem = problem


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def message_of_record(record: ConsumerRecord) -> Message:
    """Return what a handler gets of a record."""
    return Message(
        record.topic,
        record.partition,
        record.offset,
        record.timestamp,
        record.value or b"",
        dict(record.headers),
    )
