"""The declaration of the streams part."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from kirana.errors import ConfigurationError
from kirana.features.part import FEATURES
from kirana.features.tombstones import TOMBSTONE_S
from kirana.kafka.url import KafkaUrl
from kirana.part import OFF, Part, StoreSetting, Wiring
from kirana.streams.source import Streams
from kirana.urls import folder_of, scheme_of, usable, without_password

CONSUMER = "stream_consumer"
"""The name of the actors that write the messages of the topic. A number follows it."""

ARCHIVER, SPOOL_ARCHIVER = "archiver", "spool_archiver"

MAX_RETENTION_HOURS = TOMBSTONE_S // 3_600 - 24
"""A topic must not keep a write for longer than the store keeps the tombstone that replaces it."""


class StreamSettings(BaseModel):
    """Settings of the streams part.

    `streams` is the URL of a topic of Kafka, into which all writes of features go.
    `streams_acknowledge` says who acknowledges a write over HTTP: the `store`, and then Kafka; or
    `kafka` alone. Each cluster reads the topic with `streams_consumers` consumers. A message whose
    group or schema version is not known waits for `streams_wait_s` seconds, and is refused then.

    `archive` is the URL of a folder, into which an archiver writes all rows of the topic that the
    store has, or without a topic all rows that replicas write. It writes files once in
    `archive_period_s` seconds.
    """

    streams: str = OFF
    streams_acknowledge: Literal["store", "kafka"] = "store"
    streams_consumers: Annotated[int, Field(ge=1, le=64)] = 1
    streams_wait_s: Annotated[float, Field(ge=0, le=3_600)] = 60
    archive: str = OFF
    archive_period_s: Annotated[float, Field(ge=1, le=86_400)] = 60


def parse_stream(url: str) -> KafkaUrl:
    """Return the settings of the topic. Raise `ConfigurationError` if the URL is wrong."""
    with usable(url, setting="streams"):
        if not url.startswith("kafka://"):
            raise ValueError("use kafka://host:port/topic")
        parsed = KafkaUrl.parse(url)
        if parsed.retention_hours > MAX_RETENTION_HOURS:
            raise ValueError(
                f"retention_hours can be at most {MAX_RETENTION_HOURS}: a write that is read again "
                "after the row's tombstone has expired would bring the row back"
            )
        return parsed


def consumer_names(settings: StreamSettings) -> list[str]:
    """Return the names of the actors that read the topic."""
    if settings.streams == OFF:
        return []
    return [f"{CONSUMER}_{number}" for number in range(settings.streams_consumers)]


def archiver_names(settings: StreamSettings) -> list[str]:
    """Return the name of the actor that writes the archive of a topic, if there is one."""
    return [ARCHIVER] if settings.streams != OFF and settings.archive != OFF else []


def spool_archiver_names(settings: StreamSettings) -> list[str]:
    """Return the name of the actor that writes an archive without a topic, if there is one."""
    return [SPOOL_ARCHIVER] if settings.streams == OFF and settings.archive != OFF else []


def local_archive(url: str) -> Path:
    """Return the folder of an archive without a topic.

    Raise `ConfigurationError` if it is not on this machine.
    """
    if scheme_of(url) != "file":
        raise ConfigurationError(
            "archive: without a feature stream, the archive must be a folder of this machine: use "
            "file:///folder, or --streams",
            field="archive",
        )
    return folder_of(url, "file", setting="archive")


def _is_on(settings: StreamSettings) -> bool:
    return settings.streams != OFF or settings.archive != OFF


def _build(wiring: Wiring) -> Streams:
    settings = wiring.settings(StreamSettings)
    return _build_stream(wiring, settings) if settings.streams != OFF else _build_spool(wiring)


def _build_spool(wiring: Wiring) -> Streams:
    from kirana.streams.spool import SpoolWriter
    from kirana.streams.spooled import SpoolService

    settings = wiring.settings(StreamSettings)
    spool = SpoolWriter(local_archive(settings.archive), settings.archive_period_s)
    service = SpoolService(
        wiring[FEATURES],
        wiring.source,
        spool,
        archivers=[wiring.actor(name) for name in spool_archiver_names(settings)],
    )
    wiring.on_close(service.close)
    return service


def _build_stream(wiring: Wiring, settings: StreamSettings) -> Streams:
    from kirana.kafka.sending import Sender
    from kirana.streams.service import StreamService

    sender = Sender(parse_stream(settings.streams))
    wiring.on_close(sender.close)
    return StreamService(
        wiring[FEATURES],
        wiring.source,
        sender,
        consumers=[wiring.actor(name) for name in consumer_names(settings)],
        archivers=[wiring.actor(name) for name in archiver_names(settings)],
        accepts=settings.streams_acknowledge == "kafka",
    )


async def _check(url: str) -> None:
    """Raise `ConfigurationError` if the URL is wrong. Reads are served while Kafka is away."""
    parse_stream(url)


def check_archive(url: str) -> None:
    """Raise `ConfigurationError` if the URL can't be that of an archive."""
    if scheme_of(url) not in ("file", "s3"):
        raise ConfigurationError(
            f"archive: '{without_password(url)}' can't be used: use file:///folder or "
            "s3://bucket/folder",
            field="archive",
        )


async def _check_archive(url: str) -> None:
    """Raise `ConfigurationError` if the URL is wrong. Its storage may be away."""
    check_archive(url)


STREAMS = Part(
    name="streams",
    protocol=Streams,
    build=_build,
    calls=(FEATURES,),
    settings=StreamSettings,
    stores=(
        StoreSetting("streams", "feature stream", _check, optional=True),
        StoreSetting("archive", "archive of the features", _check_archive, optional=True),
    ),
    is_on=_is_on,
)
