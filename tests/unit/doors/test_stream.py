"""Messages of a stream as writes, without Kafka."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kirana.catalog.revisions import LiveRevision
from kirana.clock import MAX_FUTURE_MS
from kirana.doors.stream import JSON, StreamDoor
from kirana.edge.resources import Resources
from kirana.errors import KiranaError, Overloaded, StoreFull, Unavailable
from kirana.features import FeatureQuery
from kirana.kafka.consumption import Message, Outcome
from kirana.streams.messages import WRITE
from kirana.wire.blocks import to_block
from kirana.wire.messages_pb2 import FeaturesDelete, FeaturesPut
from tests.support import SHOP, Shop, publish, write_shop
from tests.waiting import wait_until

DONE = Outcome("done", revision=1)
ROW = {"group": "product.stats", "keys": {"product_id": ["a"]}}


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def message(value: Any, *, at_ms: int | None = None, **headers: bytes) -> Message:
    if not isinstance(value, bytes):
        value = json.dumps(value).encode()
    at_ms = now_ms() if at_ms is None else at_ms
    return Message(
        "rows", 0, 7, at_ms, value, {name.replace("_", "-"): v for name, v in headers.items()}
    )


def put(clicks: int, **fields: Any) -> dict[str, Any]:
    return {**ROW, "columns": {"clicks": [clicks], "ctr": [0.5]}, **fields}


async def door_of(shop: Shop, *, wait_s: float = 60.0, features: Any = None) -> StreamDoor:
    live = LiveRevision(shop.source, [shop.features], poll_s=0.001)
    await live.start()
    parts = shop.served(features=features)
    return StreamDoor(Resources(parts, live, shop.source), wait_s=wait_s, timeout_s=5)


@pytest.fixture
async def door(shop: Shop) -> StreamDoor:
    return await door_of(shop)


async def clicks(shop: Shop) -> int:
    query = FeatureQuery("product", ["a"], columns=("stats.clicks",))
    (rows,) = await shop.features.read([query], shop.request())
    return int(rows.columns["stats.clicks"].values[0])


async def test_json_is_written(door: StreamDoor, shop: Shop) -> None:
    assert await door.handle(message(put(3))) == DONE
    assert await clicks(shop) == 3
    spaced = b" " + json.dumps(put(4)).encode()
    assert await door.handle(message(spaced, content_type=JSON)) == DONE
    assert await clicks(shop) == 4


async def test_protobuf_is_written_and_deleted(door: StreamDoor, shop: Shop) -> None:
    body = FeaturesPut(group="product.stats", schema_version=1)
    body.keys["product_id"].texts.append("a")
    body.columns["clicks"].CopyFrom(to_block(np.array([3], np.int32)))
    body.columns["ctr"].CopyFrom(to_block(np.array([0.5], np.float32)))
    assert await door.handle(message(body.SerializeToString())) == DONE
    assert await clicks(shop) == 3
    delete = FeaturesDelete(group="product.stats")
    delete.keys["product_id"].texts.append("a")
    deleted = message(delete.SerializeToString(), **{WRITE: b"delete"})
    assert await door.handle(deleted) == DONE
    assert await clicks(shop) == 0


async def test_the_time_of_a_message_is_the_event_time_of_its_rows(
    door: StreamDoor, shop: Shop
) -> None:
    earlier = now_ms() - 1_000
    assert await door.handle(message(put(3), at_ms=earlier)) == DONE
    assert await door.handle(message(put(4, event_time=earlier - 1))) == DONE
    assert await clicks(shop) == 3
    # The message is read again after a rebalance, and must not replace newer rows.
    assert await door.handle(message(put(5, event_time=earlier + 1))) == DONE
    assert await door.handle(message(put(3), at_ms=earlier)) == DONE
    assert await clicks(shop) == 5


@pytest.mark.parametrize(
    ("value", "headers", "reason"),
    [
        (b"\xff\xff", {}, "not a FeaturesPut message"),
        (b"{", {}, "JSON"),
        (put(1, columns={"clicks": [1]}), {}, "'ctr' is missing"),
        (put(2**40), {}, r"columns.clicks\[0\]"),
        (put(1, event_time=now_ms() + 3_600_000), {}, "five minutes in the future"),
        (put(1), {WRITE: b"replace"}, "must be put or delete, not 'replace'"),
    ],
)
async def test_a_message_that_would_fail_again_is_refused(
    door: StreamDoor, value: Any, headers: dict[str, bytes], reason: str
) -> None:
    outcome = await door.handle(message(value, **headers))
    assert outcome.state == "refused"
    assert reason.replace("\\", "") in outcome.reason


async def test_a_clock_that_is_ahead_does_not_let_rows_through(shop: Shop) -> None:
    ahead = now_ms() + 3_600_000
    door = await door_of(shop, wait_s=0)
    outcome = await door.handle(message(put(1, event_time=ahead), at_ms=ahead))
    assert outcome.state == "refused"


async def test_rows_wait_for_a_clock_that_is_behind(door: StreamDoor) -> None:
    soon = now_ms() + 300
    early = message(put(1, event_time=soon + MAX_FUTURE_MS), at_ms=soon)
    assert (await door.handle(early)).state == "later"

    async def is_done() -> bool:
        return (await door.handle(early)).state == "done"

    await wait_until(is_done, "the clock has caught up")


async def is_refused(door: StreamDoor, waiting: Message) -> bool:
    return (await door.handle(waiting)).state == "refused"


@pytest.mark.parametrize("unknown", [{"schema_version": 2}, {"group": "product.more"}])
async def test_a_message_of_an_unknown_schema_waits_and_is_refused(
    shop: Shop, unknown: dict[str, Any]
) -> None:
    door = await door_of(shop, wait_s=0.2)
    waiting = message(put(1, **unknown))
    assert (await door.handle(waiting)).state == "later"
    await wait_until(lambda: is_refused(door, waiting), "the message is refused")


async def test_a_message_of_a_schema_version_that_is_published_later_is_written(
    shop: Shop, shop_folder: Path
) -> None:
    waiting = message(put(3, schema_version=2, columns={"clicks": [3], "ctr": [0], "n": [1]}))
    assert (await (await door_of(shop)).handle(waiting)).state == "later"
    ctr = "  - {name: ctr, dtype: float32, default: 0.5}\n"
    grown = SHOP.replace(ctr, ctr + "  - {name: n, dtype: int32, default: 9}\n")
    publish(write_shop(shop_folder, grown))
    assert await (await door_of(shop)).handle(waiting) == Outcome("done", revision=2)
    # A message of the older version is read as what it is.
    older = message(put(4, schema_version=1))
    assert (await (await door_of(shop)).handle(older)).state == "done"
    assert await clicks(shop) == 4


class FailingFeatures:
    def __init__(self, error: Exception) -> None:
        self._error = error

    async def write(self, write: object, context: object) -> None:
        raise self._error


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (Unavailable("redis is away"), Outcome("later", "redis is away")),
        (Overloaded("too many"), Outcome("later", "too many")),
        (StoreFull("no space"), Outcome("later", "no space")),
        (KiranaError("never"), Outcome("refused", "never", revision=1)),
        (ZeroDivisionError(), Outcome("refused", "internal error: ZeroDivisionError", revision=1)),
    ],
)
async def test_a_failure_of_the_store_is_tried_again(
    shop: Shop, error: Exception, outcome: Outcome
) -> None:
    door = await door_of(shop, features=FailingFeatures(error))
    assert await door.handle(message(put(1))) == outcome
