"""Writes over HTTP that go into a topic of a real Kafka, and through a consumer into the store."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import count
from typing import Any

import httpx
import numpy as np
import pytest

from kirana.catalog.revisions import LiveRevision
from kirana.client.replies import Deleted, Written
from kirana.client.wire import delete_reply, features_delete, features_put, put_reply
from kirana.doors.stream import StreamDoor
from kirana.edge import Edge
from kirana.edge.resources import Resources
from kirana.features import FeatureQuery
from kirana.features.part import FEATURES
from kirana.kafka.consumption import Consumption
from kirana.kafka.sending import Sender
from kirana.kafka.url import KafkaUrl
from kirana.part import Parts
from kirana.streams.part import STREAMS
from kirana.streams.service import StreamService
from kirana.streams.topics import dead_letters, make_topics, stored_marks
from tests.kafka_server import KafkaServer
from tests.support import Shop
from tests.unit.edge.conftest import client_of
from tests.waiting import wait_until

PUT, DELETE = "/v1/features/put", "/v1/features/delete"
PROTOBUF = {"content-type": "application/x-protobuf", "accept": "application/x-protobuf"}
JSON = {"content-type": "application/json"}
KEYS = {"product_id": ["1", "2", "3"]}
ROWS: dict[str, Any] = {
    "group": "product.stats",
    "keys": KEYS,
    "columns": {"clicks": [1, 2, 3], "ctr": [0.5, 0.5, 0.5]},
}
_numbers = count()


@pytest.fixture
async def url(kafka: KafkaServer) -> KafkaUrl:
    url = KafkaUrl.parse(f"kafka://{kafka.address}/writes{next(_numbers)}?partitions=3&timeout=3")
    await make_topics(url)
    return url


@asynccontextmanager
async def served(shop: Shop, url: KafkaUrl, *, accepts: bool) -> AsyncIterator[httpx.AsyncClient]:
    """Serve the shop over HTTP, with a feature stream that nobody reads."""
    sender = Sender(url)
    streams = StreamService(shop.features, shop.source, sender, consumers=[], accepts=accepts)
    live = LiveRevision(shop.source, [shop.features, streams])
    await live.start()
    parts = Parts({FEATURES: shop.features, STREAMS: streams})
    resources = Resources(parts, live, shop.source)
    await resources.probes.check()
    async with client_of(Edge(resources)) as client:
        yield client
    await sender.close()


@asynccontextmanager
async def consumed(shop: Shop, url: KafkaUrl, period_s: float = 60.0) -> AsyncIterator[Consumption]:
    """Write the messages of the topic to the shop's store."""
    live = LiveRevision(shop.source, [shop.features])
    await live.start()
    resources = Resources(Parts({FEATURES: shop.features}), live, shop.source)
    door = StreamDoor(resources, wait_s=1, timeout_s=5)
    consumption = Consumption(
        url,
        dead=dead_letters(url),
        marks=stored_marks(url),
        handle=door.handle,
        period_s=period_s,
    )
    task = asyncio.create_task(consumption.run())
    yield consumption
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def clicks(shop: Shop) -> list[int]:
    query = FeatureQuery("product", KEYS["product_id"], columns=("stats.clicks",))
    (rows,) = await shop.features.read([query], shop.request())
    values: list[int] = rows.columns["stats.clicks"].values.tolist()
    return values


async def test_kafka_accepts_a_write_that_reaches_the_store_later(
    shop: Shop, url: KafkaUrl
) -> None:
    async with served(shop, url, accepts=True) as client:
        reply = await client.post(PUT, json=ROWS)
        assert (reply.status_code, reply.json()) == (202, {"accepted": 3, "by": "kafka"})
        assert await clicks(shop) == [0, 0, 0]
        async with consumed(shop, url):

            async def is_written(expected: list[int]) -> bool:
                return await clicks(shop) == expected

            await wait_until(lambda: is_written([1, 2, 3]), "the rows are in the store")
            deleted = await client.post(
                DELETE, json={"group": "product.stats", "keys": {"product_id": ["2"]}}
            )
            assert (deleted.status_code, deleted.json()["accepted"]) == (202, 1)
            await wait_until(lambda: is_written([1, 0, 3]), "the row is deleted")


async def test_clients_are_told_what_kafka_has_accepted(shop: Shop, url: KafkaUrl) -> None:
    async with served(shop, url, accepts=True) as client:
        for values in ([1, 2, 3], np.array([1, 2, 3], np.int32)):
            columns = {"clicks": values, "ctr": [0.5, 0.5, 0.5]}
            body, binary = features_put("product.stats", KEYS, columns, None, None)
            reply = await client.post(PUT, content=body, headers=PROTOBUF if binary else JSON)
            answer = put_reply(reply.content, binary)
            assert (reply.status_code, answer) == (202, Written(accepted=3))
        body = features_delete("product.stats", KEYS, None, False)
        reply = await client.post(DELETE, content=body, headers=PROTOBUF)
        assert (reply.status_code, delete_reply(reply.content)) == (202, Deleted(accepted=3))


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"columns": {"clicks": [1, 2, 3]}}, "columns.ctr"),
        ({"columns": {"clicks": [1, 2, 2**40], "ctr": [0, 0, 0]}}, "columns.clicks[2]"),
        ({"event_time": 10**13}, "event_time"),
        ({"group": "product.nothing"}, "group"),
        ({"keys": {"user_id": ["1"]}}, "keys.user_id"),
    ],
)
@pytest.mark.parametrize("accepts", [True, False])
async def test_a_wrong_write_is_refused_before_it_is_sent(
    shop: Shop, url: KafkaUrl, change: dict[str, Any], field: str, accepts: bool
) -> None:
    async with served(shop, url, accepts=accepts) as client:
        reply = await client.post(PUT, json={**ROWS, **change})
        assert reply.status_code in (400, 404)
        assert reply.json()["error"]["field"] == field
        async with consumed(shop, url) as consumption:
            await wait_until(lambda: consumption.report.lag == 0, "the topic was read")
            assert consumption.report.handled == 0


async def test_a_write_that_kafka_does_not_take_is_not_acknowledged(
    shop: Shop, url: KafkaUrl, kafka: KafkaServer
) -> None:
    async with served(shop, url, accepts=False) as client:
        assert (await client.post(PUT, json=ROWS)).json()["written"] == 3
        changed = {**ROWS, "columns": {"clicks": [7, 8, 9], "ctr": [0, 0, 0]}}
        kafka.pause()
        try:
            reply = await client.post(PUT, json=changed)
        finally:
            kafka.resume()
        assert reply.status_code == 503
        assert "safe to send them again" in reply.json()["error"]["message"]
        assert await clicks(shop) == [7, 8, 9]
        assert (await client.post(PUT, json=changed)).json()["written"] == 3
