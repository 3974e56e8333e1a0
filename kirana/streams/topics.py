"""The topics of a feature stream, whose names begin with that of its URL.

Each consumer group has its own dead letters and marks, because it has its own store.
"""

from __future__ import annotations

from kirana.errors import Unavailable
from kirana.kafka.consumption import MAX_DEAD_BYTES
from kirana.kafka.topics import Topic, create_topics, grow_topic, layout_of, missing_topics
from kirana.kafka.url import KafkaUrl


def dead_letters(url: KafkaUrl) -> str:
    """Return the name of the topic of messages that were refused."""
    return f"{url.topic}.{url.group}.dead"


def stored_marks(url: KafkaUrl) -> str:
    """Return the name of the topic that says what the durable store has (`kirana.kafka.marks`)."""
    return f"{url.topic}.{url.group}.stored"


def topics_of(url: KafkaUrl) -> list[Topic]:
    """Return all topics of a stream. Each is kept as long as its messages."""
    return [
        Topic(url.topic, url.partitions, url.retention_hours),
        Topic(dead_letters(url), 1, url.retention_hours, MAX_DEAD_BYTES),
        Topic(stored_marks(url), url.partitions, url.retention_hours),
    ]


async def require_topics(url: KafkaUrl) -> None:
    """Raise `Unavailable` if one of the topics does not exist, or if Kafka does not answer."""
    if missing := await missing_topics(url, topics_of(url)):
        names = ", ".join(missing)
        raise Unavailable(f"{url.name} lacks the topics {names}: run 'kirana apply'")


async def make_topics(url: KafkaUrl) -> list[Topic]:
    """Make the topics that do not exist, and return them.

    The topic of marks gets as many partitions as the stream, which may have more than its URL says.

    Raise `Conflict` if Kafka compacts one of the topics, and `Unavailable` if it does not answer or
    refuses to make one.
    """
    topics = {topic.name: topic for topic in topics_of(url)}
    made = await create_topics(url, list(topics.values()))
    partitions = (await layout_of(url)).partitions
    await grow_topic(url, stored_marks(url), partitions)
    return [topics[name] for name in made]
