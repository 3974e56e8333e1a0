"""The interface of the streams part."""

from __future__ import annotations

from typing import Protocol

import msgspec

from kirana.features.source import FeatureSink
from kirana.service import Service


class ConsumerReport(msgspec.Struct):
    """The state of one consumer.

    `partitions` are those that it reads. `lag` is how many of their messages wait, None before it
    is known. `done` and `refused` count messages since the consumer was started.
    """

    partitions: list[int]
    lag: int | None
    done: int
    refused: int


class ArchiveReport(msgspec.Struct):
    """The state of an archiver.

    `lag` is how many messages are not in the archive yet, None before it is known. `rows` and
    `files` count what was written since the archiver was started, `skipped` the messages that could
    not be read any more.
    """

    lag: int | None = None
    rows: int = 0
    files: int = 0
    skipped: int = 0


class Streams(FeatureSink, Service, Protocol):
    """The streams part: writes that also go into the topic."""
