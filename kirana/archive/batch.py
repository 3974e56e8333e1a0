"""Which messages are in a batch of the archive. This depends only on the two topics.

So whoever reads them makes the same files: after a crash, and also if two archivers run at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from aiokafka.structs import ConsumerRecord

from kirana.kafka.marks import Mark

MAX_BYTES = 32 << 20
"""A batch ends when its messages have so many bytes."""


@dataclass(frozen=True, slots=True)
class Stored:
    """A message whose rows the store had at `at_ms`, in Unix milliseconds.

    `revision` is the number of the catalog's revision in which it was written. A message that was
    `refused` has no rows in the store.
    """

    record: ConsumerRecord
    at_ms: int
    revision: int
    refused: bool


@dataclass(frozen=True, slots=True)
class Position:
    """Where a batch of one partition begins.

    `offset` is that of its first message. `mark` is the offset of the first mark that counts for
    it. `last_ms` is the time of the marks before, which later ones can't precede.
    """

    offset: int
    mark: int
    last_ms: int = 0


NOWHERE = Position(0, 0)


@dataclass(slots=True)
class Batch:
    """Messages that are written together: those of one period, or `MAX_BYTES` of them."""

    start: Position
    messages: list[Stored] = field(default_factory=list)
    end: int = 0
    """The offset after the last message."""
    next: Position = NOWHERE
    """Where the next batch begins, once this one has ended."""
    period_ms: int = 0
    period: int = -1
    bytes: int = 0


class Batches:
    """Forms the batches of one partition, from a `start`. The marks say how long a period is."""

    def __init__(self, start: Position) -> None:
        self._last_ms = start.last_ms
        self._batch = Batch(start, end=start.offset)

    @property
    def next(self) -> Position:
        """Where the batch begins that is formed now."""
        return self._batch.start

    def ended_by(self, mark: Mark, offset: int) -> Batch | None:
        """Return the batch that a mark ends, if there is one. `offset` is that of the mark."""
        at_ms = max(mark.at_ms, self._last_ms)
        batch = self._batch
        if not batch.messages or at_ms // batch.period_ms == batch.period:
            return None
        self._begin(offset)
        return batch

    def add(self, messages: Sequence[ConsumerRecord], mark: Mark, offset: int) -> list[Batch]:
        """Take the messages that a mark covers, and return the batches that they fill."""
        at_ms = max(mark.at_ms, self._last_ms)
        refused = frozenset(mark.refused)
        filled = []
        for record in messages:
            batch = self._batch
            batch.period_ms = batch.period_ms or mark.period_ms
            batch.messages.append(Stored(record, at_ms, mark.revision, record.offset in refused))
            batch.end = record.offset + 1
            batch.bytes += len(record.value or b"")
            batch.period = at_ms // batch.period_ms
            if batch.bytes >= MAX_BYTES:
                filled.append(batch)
                self._begin(offset)
        # Offsets without a message are those of transactions.
        self._batch.end = max(self._batch.end, mark.upto)
        self._last_ms = at_ms
        return filled

    def _begin(self, mark: int) -> None:
        start = self._batch.next = Position(self._batch.end, mark, self._last_ms)
        self._batch = Batch(start, end=start.offset)
