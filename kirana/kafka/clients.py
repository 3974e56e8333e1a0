"""Producers, consumers and administrators of one Kafka cluster, all with the same options."""

from __future__ import annotations

import asyncio
import logging
from typing import Any, Protocol

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.conn import create_conn
from aiokafka.errors import KafkaConnectionError

from kirana.kafka.url import KafkaUrl
from kirana.loop import retrieve_error

LINGER_MS = 5
"""How long a producer waits for more messages of a partition before it sends them together."""

CLIENT_ID = "kirana"

# While a broker is away, the client logs several errors a second. Kirana reports it itself.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


def producer(url: KafkaUrl, *, max_message_bytes: int) -> AIOKafkaProducer:
    """Return a producer, to be started. A message is acknowledged when all replicas have it.

    Each message is stored once, even if it is sent again after a lost reply.
    """
    return AIOKafkaProducer(
        **_connection(url),
        acks="all",
        enable_idempotence=True,
        compression_type=None if url.compression == "none" else url.compression,
        linger_ms=LINGER_MS,
        max_request_size=max_message_bytes,
    )


def consumer(url: KafkaUrl, group: str | None, **options: Any) -> AIOKafkaConsumer:
    """Return a consumer, to be started. It commits nothing by itself.

    With a `group`, the members of the group share the partitions, and each begins at the offset
    that was committed, or at the first one. Messages of transactions that were not committed are
    left out. `options` are those of the client.
    """
    return AIOKafkaConsumer(
        **_connection(url),
        group_id=group,
        enable_auto_commit=False,
        auto_offset_reset="earliest",
        isolation_level="read_committed",
        **options,
    )


def admin(url: KafkaUrl) -> AIOKafkaAdminClient:
    """Return a client that makes and describes topics, to be started."""
    return AIOKafkaAdminClient(**_connection(url))


async def start(client: Startable, url: KafkaUrl) -> None:
    """Start a client. Raise an error in `kirana.kafka.errors.FAILURES` that says why it failed."""
    try:
        await client.start()
    except KafkaConnectionError:
        # The client hides the reason, such as a wrong password. A single connection shows it.
        host, _, port = url.brokers[0].rpartition(":")
        options = _connection(url)
        del options["bootstrap_servers"]
        connection = await create_conn(host.strip("[]"), int(port), **options)
        connection.close()
        raise


async def stop(client: Client, url: KafkaUrl) -> None:
    """Stop a client. Its errors are ignored.

    While Kafka is away, a client may wait without a limit. It then goes on in the background.
    """
    task = asyncio.create_task(client.stop())
    _stopping.add(task)
    task.add_done_callback(_stopping.discard)
    task.add_done_callback(retrieve_error)
    await asyncio.wait([task], timeout=url.timeout_s)


_stopping: set[asyncio.Task[None]] = set()


class Startable(Protocol):
    """A producer, a consumer or an administrator."""

    async def start(self) -> None:
        """Connect."""


class Client(Protocol):
    """A producer or a consumer."""

    async def stop(self) -> None:
        """Disconnect."""


def _connection(url: KafkaUrl) -> dict[str, Any]:
    options: dict[str, Any] = {
        "bootstrap_servers": list(url.brokers),
        "client_id": CLIENT_ID,
        "request_timeout_ms": round(url.timeout_s * 1_000),
    }
    secure = {(False, False): "PLAINTEXT", (True, False): "SSL"}
    secure |= {(False, True): "SASL_PLAINTEXT", (True, True): "SASL_SSL"}
    options["security_protocol"] = secure[url.tls is not None, url.username is not None]
    if url.tls is not None:
        options["ssl_context"] = url.tls.context()
    if url.username is not None:
        options["sasl_mechanism"] = url.mechanism
        options["sasl_plain_username"] = url.username
        options["sasl_plain_password"] = url.password
    return options
