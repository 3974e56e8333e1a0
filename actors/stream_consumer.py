"""Consumers of the feature stream: they write its rows to the store."""

from __future__ import annotations

import asyncio
import logging

from kirana.catalog.revisions import LiveRevision
from kirana.doors.stream import StreamDoor
from kirana.edge.resources import Resources
from kirana.errors import KiranaError
from kirana.features.part import FEATURES
from kirana.kafka.consumption import Consumption
from kirana.metrics import Counter, Gauge
from kirana.part import Parts, Wiring
from kirana.streams.part import StreamSettings, parse_stream
from kirana.streams.source import ConsumerReport
from kirana.streams.topics import dead_letters, require_topics, stored_marks

logger = logging.getLogger(__name__)

WRITE_TIMEOUT_S = 30.0
RETRY_S = 1.0

MESSAGES = Counter("kirana_stream_messages", "Messages of the stream.", ("outcome",))
LAG = Gauge("kirana_stream_lag", "Messages of the stream that wait to be written.", ())


class StreamConsumer:
    """One consumer. While the catalog, Kafka or the store is away, it tries again."""

    def __init__(self, wiring: Wiring) -> None:
        settings = wiring.settings(StreamSettings)
        self._url = parse_stream(settings.streams)
        features = wiring[FEATURES]
        self._live = LiveRevision(wiring.source, [features])
        resources = Resources(Parts({FEATURES: features}), self._live, wiring.source)
        door = StreamDoor(resources, wait_s=settings.streams_wait_s, timeout_s=WRITE_TIMEOUT_S)
        self._consumption = Consumption(
            self._url,
            dead=dead_letters(self._url),
            marks=stored_marks(self._url),
            handle=door.handle,
            period_s=settings.archive_period_s,
        )
        self._metrics = wiring.metrics
        self._problem = "it is starting"

    async def run(self) -> None:
        """Write the messages of the topic."""
        await self._until_ready()
        follow = asyncio.create_task(self._live.follow())
        count = asyncio.create_task(self._count())
        try:
            await self._consumption.run()
        finally:
            follow.cancel()
            count.cancel()

    async def _until_ready(self) -> None:
        """Wait until the catalog can be read and the topics exist."""
        while True:
            try:
                await self._live.start()
                await require_topics(self._url)
            except (KiranaError, OSError) as error:
                if str(error) != self._problem:
                    logger.warning("the stream is not read: %s", error)
                self._problem = str(error)
            else:
                self._problem = ""
                return
            await asyncio.sleep(RETRY_S)

    async def _count(self) -> None:
        """Count in the metrics what the consumer reports, once a second."""
        done = refused = 0
        while True:
            await asyncio.sleep(1)
            report = self._consumption.report
            self._metrics.add(MESSAGES, report.handled - report.refused - done, "done")
            self._metrics.add(MESSAGES, report.refused - refused, "refused")
            done, refused = report.handled - report.refused, report.refused
            if report.lag is not None:
                self._metrics.set(LAG, report.lag)

    async def report(self) -> tuple[str, ConsumerReport]:
        """Return why the consumer can't go on, or "", and its state."""
        report = self._consumption.report
        done = report.handled - report.refused
        state = ConsumerReport(report.partitions, report.lag, done, report.refused)
        return self._problem or report.problem, state
