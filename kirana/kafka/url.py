"""The settings of clients of Kafka, from a URL.

    kafka://host:port,host:port/topic?option=value

The hosts are brokers through which the client finds the others. User and password may stand before
the hosts, as in `kafka://user:password@host/features`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from kirana.url_options import (
    TLS_PARSERS,
    Parser,
    Tls,
    count,
    one_of,
    parse_options,
    positive,
    take_tls,
    text,
)
from kirana.urls import addresses_of, credentials_of, without_password

DEFAULT_PORT = 9092
DEFAULT_TIMEOUT_S = 10.0
DEFAULT_PARTITIONS = 8
DEFAULT_RETENTION_HOURS = 7 * 24.0

MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")

MAX_TOPIC = 200
"""Kafka allows 249 characters. Names of other topics are made from this one."""

_GROUP = re.compile(r"[a-zA-Z0-9_-]{1,40}")

_TOPIC = re.compile(rf"[a-zA-Z0-9._-]{{1,{MAX_TOPIC}}}")


@dataclass(frozen=True, slots=True)
class KafkaUrl:
    """The settings of one client.

    `name` is the URL without its password. `timeout_s` limits the wait for one reply. `mechanism`
    is that of SASL, if there is a user. `compression` is that of messages that are sent. `group` is
    the consumer group of those who read the topic. `partitions`, `replication` and
    `retention_hours` are those of a topic that `kirana apply` makes. Without `replication`, it has
    three copies, or as many as there are brokers.
    """

    name: str
    brokers: tuple[str, ...]
    topic: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    mechanism: str = "PLAIN"
    tls: Tls | None = None
    timeout_s: float = DEFAULT_TIMEOUT_S
    compression: str = "lz4"
    group: str = "kirana"
    partitions: int = DEFAULT_PARTITIONS
    replication: int | None = None
    retention_hours: float = DEFAULT_RETENTION_HOURS

    @classmethod
    def parse(cls, url: str) -> KafkaUrl:
        """Return the settings that a URL holds. Raise `ValueError` if it is not valid."""
        parts = urlsplit(url)
        topic = parts.path.strip("/")
        if not _TOPIC.fullmatch(topic) or topic in (".", ".."):
            raise ValueError(
                f"it must end with the name of a topic, of at most {MAX_TOPIC} letters, digits, "
                f"'.', '_' and '-', as in kafka://host:{DEFAULT_PORT}/features"
            )
        options = parse_options(parts.query, _OPTIONS)
        tls = take_tls(options)
        options |= credentials_of(parts.netloc)
        if ("username" in options) != ("password" in options):
            raise ValueError("a user and a password must be given together")
        if "mechanism" in options and "username" not in options:
            raise ValueError("sasl needs a user and a password")
        brokers = [f"{host}:{port}" for host, port in addresses_of(parts.netloc, DEFAULT_PORT)]
        return cls(without_password(url), tuple(brokers), topic, tls=tls, **options)


def _group(option: str, value: str) -> str:
    if not _GROUP.fullmatch(value):
        raise ValueError(f"{option} must be at most 40 letters, digits, '_' and '-', not '{value}'")
    return value


_OPTIONS: dict[str, tuple[str, Parser]] = {
    "partitions": ("partitions", count),
    "replication": ("replication", count),
    "retention_hours": ("retention_hours", positive),
    "group": ("group", _group),
    "compression": ("compression", one_of(COMPRESSIONS)),
    "timeout": ("timeout_s", positive),
    "username": ("username", text),
    "password": ("password", text),
    "sasl": ("mechanism", one_of(MECHANISMS, upper=True)),
    **TLS_PARSERS,
}
"""For each option of the URL, the field that it sets, and the parser of its text."""
