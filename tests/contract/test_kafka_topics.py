"""Topics in a real Kafka, with and without TLS and a password."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from aiokafka.admin import NewTopic

from kirana.errors import Conflict, Unavailable
from kirana.kafka.clients import admin, consumer, producer
from kirana.kafka.topics import Topic, create_topics, missing_topics
from kirana.kafka.url import KafkaUrl
from tests.certificates import keystore
from tests.kafka_server import KEYSTORE_PASSWORD, PASSWORD, USER, KafkaServer
from tests.waiting import wait_until

TOPICS = [Topic("rows", 3, 2.0), Topic("rows.dead", 1, 48.0)]
NAMES = ["rows", "rows.dead"]


@pytest.fixture
def url(kafka: KafkaServer) -> KafkaUrl:
    return KafkaUrl.parse(f"kafka://{kafka.address}/rows")


async def test_topics_are_made_once(url: KafkaUrl) -> None:
    assert await missing_topics(url, TOPICS) == NAMES
    assert await create_topics(url, TOPICS) == NAMES
    assert await create_topics(url, TOPICS) == await missing_topics(url, TOPICS) == []
    client = admin(url)
    await client.start()
    (rows, dead) = await client.describe_topics(NAMES)
    await client.close()
    assert (len(rows["partitions"]), len(dead["partitions"])) == (3, 1)


async def exists(url: KafkaUrl, topic: str) -> bool:
    client = admin(url)
    await client.start()
    names = await client.list_topics()
    await client.close()
    return topic in names


async def test_a_topic_that_is_compacted_is_refused(url: KafkaUrl) -> None:
    client = admin(url)
    await client.start()
    settings = {"cleanup.policy": "compact,delete"}
    await client.create_topics([NewTopic("compacted", 1, 1, topic_configs=settings)])
    await client.close()
    await wait_until(lambda: exists(url, "compacted"), "the topic is known")
    with pytest.raises(Conflict, match=r"topic 'compacted' has cleanup\.policy=compact"):
        await create_topics(url, [Topic("compacted", 1, 1.0), Topic("never", 1, 1.0)])
    assert await missing_topics(url, [Topic("never", 1, 1.0)]) == ["never"]


async def test_a_topic_that_kafka_refuses_is_named(url: KafkaUrl) -> None:
    wide = KafkaUrl.parse(f"{url.name}?replication=5")
    with pytest.raises(Unavailable, match=r"topic 'wide' can't be made: .*[Rr]eplication"):
        await create_topics(wide, [Topic("wide", 1, 1.0)])


async def test_a_server_that_is_away_is_named() -> None:
    url = KafkaUrl.parse("kafka://127.0.0.1:1/rows?timeout=1")
    with pytest.raises(Unavailable, match=r"kafka://127\.0\.0\.1:1/rows.* does not answer"):
        await missing_topics(url, TOPICS)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Yield a URL without user and password."""
    folder = tmp_path_factory.mktemp("secure_kafka")
    store, certificate = keystore(folder, KEYSTORE_PASSWORD)
    with KafkaServer(folder, store, certificate) as server:
        yield f"kafka://{server.address}/rows?timeout=5&tls=true&ssl_ca_certs={certificate}"


def with_user(url: str, user: str, password: str) -> KafkaUrl:
    return KafkaUrl.parse(url.replace("kafka://", f"kafka://{user}:{password}@"))


@pytest.mark.kafka
async def test_a_client_with_tls_and_a_password_is_accepted(secure: str) -> None:
    url = with_user(secure, USER, PASSWORD)
    assert await create_topics(url, TOPICS) == NAMES
    sender = producer(url, max_message_bytes=1_000)
    await sender.start()
    await sender.send_and_wait("rows", b"a row")
    await sender.stop()
    receiver = consumer(url, "readers")
    receiver.subscribe(["rows"])
    await receiver.start()
    assert (await receiver.getone()).value == b"a row"
    await receiver.stop()


@pytest.mark.kafka
async def test_a_client_with_a_wrong_password_is_refused(secure: str) -> None:
    with pytest.raises(Unavailable, match="refused the user or the password") as caught:
        await missing_topics(with_user(secure, USER, "wrong-password"), TOPICS)
    assert "wrong-password" not in caught.value.message


@pytest.mark.kafka
async def test_a_client_without_tls_is_refused(secure: str) -> None:
    plain = KafkaUrl.parse(secure.partition("?")[0] + "?timeout=2")
    with pytest.raises(Unavailable, match="does not answer"):
        await missing_topics(plain, TOPICS)
