"""Helpers for tests of Redis: encoded rows, a store for one `with` block, waits."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import numpy as np

from kirana.codecs import Codec, Column
from kirana.errors import Unavailable
from kirana.schema import Entity, Feature, FeatureGroup, Key, SchemaVersion
from kirana.stores import FeatureStore, open_feature_store
from tests.waiting import wait_until

NOW_MS = int(time.time()) * 1_000
HOUR_MS = 3_600_000
GROUP = FeatureGroup(
    "product.g",
    Entity("product", (Key("product_id"),)),
    HOUR_MS,
    "packed",
    (SchemaVersion("product.g", 1, (Feature("title", "string"),)),),
)


def row(codec: Codec, text: str, event_time_ms: int = NOW_MS) -> bytes:
    columns = {"title": Column(np.array([text], dtype=object))}
    times = np.array([event_time_ms], dtype=np.uint64)
    return codec.encode(GROUP, GROUP.current, columns, times)[0]


@asynccontextmanager
async def opened(url: str) -> AsyncIterator[FeatureStore]:
    store = open_feature_store(url)
    try:
        yield store
    finally:
        await store.close()


async def until_available(call: Callable[[], Awaitable[object]], description: str) -> None:
    """Repeat a call until it returns a true value. `Unavailable` counts as a false value."""
    await wait_until(call, description, ignoring=Unavailable)
