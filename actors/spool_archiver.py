"""The archiver of a Kirana without Kafka: it writes what replicas have spooled to the archive."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kirana.actors.archive_writer import ArchiveWriter, StoredMessage
from kirana.archive.folder import file_name
from kirana.errors import KiranaError
from kirana.kafka.consumption import Message
from kirana.part import Wiring
from kirana.streams.messages import WRITE
from kirana.streams.part import StreamSettings, local_archive
from kirana.streams.source import ArchiveReport
from kirana.streams.spool import ClosedSpool, closed_spools, waiting_messages

LOOK_EVERY_S = 0.5


class SpoolArchiver:
    """Turns each closed file of the spool into files of the archive, and then removes it.

    If it is killed between the two, it writes the same files again.
    """

    def __init__(self, wiring: Wiring) -> None:
        self._archive: Path = local_archive(wiring.settings(StreamSettings).archive)
        self._writer = ArchiveWriter(wiring)
        self.has_written_all = False
        """Whether nothing waits that can be written now."""

    async def report(self) -> tuple[str, ArchiveReport]:
        """Return why the archiver can't go on, or "", and its state."""
        return self._writer.report()

    async def run(self) -> None:
        """Write the archive until cancelled."""
        follow: asyncio.Task[None] | None = None
        try:
            while True:
                try:
                    await self._writer.open()
                    follow = follow or asyncio.create_task(self._writer.follow())
                    await self._round()
                    self._writer.problem = ""
                except (KiranaError, OSError) as error:
                    self._writer.note(str(error))
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            if follow is not None:
                follow.cancel()

    async def _round(self) -> None:
        for spool in closed_spools(self._archive):
            with spool:
                await self._write(spool)
        self.has_written_all = True
        self._writer.state.lag = await asyncio.to_thread(waiting_messages, self._archive)

    async def _write(self, spool: ClosedSpool) -> None:
        topic = f"writes-{spool.writer}"
        messages = [
            StoredMessage(
                Message(topic, 0, m.number, m.stored_ms, m.value, {WRITE: m.kind}),
                m.stored_ms,
                m.revision,
            )
            for m in spool.messages()
        ]
        if messages:
            first, end = messages[0].message.offset, messages[-1].message.offset + 1

            def name_of(version: int) -> str:
                return file_name(topic, 0, first, end, version)

            await self._writer.write(messages, name_of)
        spool.remove()
