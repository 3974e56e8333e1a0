"""Sends messages to one topic, with the acknowledgement of all its replicas."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from aiokafka import AIOKafkaProducer

from kirana.errors import Unavailable
from kirana.kafka.clients import producer, start, stop
from kirana.kafka.errors import answering
from kirana.kafka.topics import Layout, layout_of
from kirana.kafka.url import KafkaUrl


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A message to be sent. `rows` counts the rows that it holds."""

    partition: int
    value: bytes
    rows: int
    headers: Mapping[str, bytes] = field(default_factory=dict)


class Sender:
    """A producer of one topic. It connects when it is first used, and again after a failure.

    All methods raise `Unavailable` if Kafka does not answer, refuses the user, or lacks the topic.
    """

    def __init__(self, url: KafkaUrl) -> None:
        self._url = url
        self._producer: AIOKafkaProducer | None = None
        self._layout: Layout | None = None
        self._connecting = asyncio.Lock()

    async def layout(self) -> Layout:
        """Return the number of partitions of the topic, and the largest message that it takes."""
        await self._connected()
        assert self._layout is not None
        return self._layout

    async def send(self, messages: Sequence[Outgoing], *, timeout_s: float) -> None:
        """Send messages, and return when all replicas have all of them.

        After an error, some of them may have been sent, or may still be.
        """
        sender = await self._connected()
        try:
            with answering(self._url.name):
                async with asyncio.timeout(min(timeout_s, self._url.timeout_s)):
                    sent = [
                        await sender.send(
                            self._url.topic,
                            message.value,
                            partition=message.partition,
                            headers=list(message.headers.items()),
                        )
                        for message in messages
                    ]
                    await asyncio.gather(*sent)
        except Unavailable as error:
            if not isinstance(error.__cause__, TimeoutError):
                # After a batch was refused, Kafka refuses all later ones of this producer.
                await self.reset()
            raise

    async def reset(self) -> None:
        """Connect again when this is used next, and learn again what the topic takes."""
        old, self._producer = self._producer, None
        if old is not None:
            await stop(old, self._url)

    async def _connected(self) -> AIOKafkaProducer:
        async with self._connecting:
            if self._producer is None:
                layout = await layout_of(self._url)
                new = producer(self._url, max_message_bytes=layout.max_message_bytes)
                with answering(self._url.name):
                    try:
                        await start(new, self._url)
                    except BaseException:
                        await stop(new, self._url)
                        raise
                self._producer, self._layout = new, layout
            return self._producer

    async def close(self) -> None:
        """Send what is waiting, and disconnect."""
        await self.reset()
