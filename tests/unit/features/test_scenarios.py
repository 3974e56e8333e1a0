"""Three scenarios of schema changes in production: statuses, and where each cell comes from.

In each scenario, a new schema version is live while some rows are still written by the older one.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kirana.features import FeatureQuery
from kirana.features.source import WriteResult
from tests.support import request_at
from tests.unit.features.evolving import NOW_MS, World, no_row, not_in_version, null, stored

pytestmark = pytest.mark.usefixtures("inner_loops")

CLICKS = "name: clicks, dtype: int64, default: 0"
CTR = "name: ctr, dtype: float32, default: 0.5"
ORDERS = "name: orders, dtype: int64, default: 9"
PRICE = "name: price, dtype: float64, default: 1.5"
OLD = ("stats.clicks", "stats.ctr")
ALL = ("stats.clicks", "stats.ctr", "stats.orders")
TTL_MS = 7 * 86_400_000


@pytest.fixture(params=["packed", "text"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> World:
    return World(tmp_path / "catalog", request.param)


async def test_a_new_feature_is_added_but_ingestion_jobs_still_use_the_older_schema_version(
    world: World,
) -> None:
    world.publish(CLICKS, CTR)
    before: dict[str, dict[str, Any]] = {
        "1": {"clicks": 1, "ctr": 0.25},
        "2": {"clicks": 2, "ctr": None},
    }
    assert await world.write(before, revision=1) == WriteResult(2, 0)
    live = world.publish(ORDERS, CLICKS, CTR)
    # The jobs write by the older version, on the new revision or on the old one.
    third = {"3": {"clicks": 3, "ctr": 0.75}}
    assert await world.write(third, revision=live, version=1) == WriteResult(1, 0)
    fourth = {"4": {"clicks": None, "ctr": 0.125}}
    assert await world.write(fourth, revision=1) == WriteResult(1, 0)
    keys = ["1", "2", "3", "4", "nobody"]
    answer = await world.read(keys, *ALL, revision=live)
    assert answer.status == ["ok", "ok", "ok", "ok", "missing"]
    assert answer.cells == {
        "stats.clicks": [stored(1), stored(2), stored(3), null(0), no_row(0)],
        "stats.ctr": [stored(0.25), null(0.5), stored(0.75), stored(0.125), no_row(0.5)],
        "stats.orders": [*[not_in_version(9)] * 4, no_row(9)],
    }
    assert answer.age_ms == [0, 0, 0, 0, -1]
    # Requests on the older revision return the same as before.
    old = await world.read(keys, *OLD, revision=1)
    assert old.status == answer.status
    assert old.cells == {name: answer.cells[name] for name in OLD}


async def test_ongoing_writes_do_not_include_the_new_feature_and_the_existing_ones_stay_fresh(
    world: World,
) -> None:
    world.publish(CLICKS, CTR)
    rows = {"1": {"clicks": 1, "ctr": 0.25}, "2": {"clicks": 2, "ctr": 0.25}}
    await world.write(rows, revision=1)
    live = world.publish(CLICKS, CTR, ORDERS)
    # A first load of the new feature covers product 2 only.
    world.now_ms = NOW_MS + 1_000
    await world.write({"2": {"clicks": 3, "ctr": 0.5, "orders": 4}}, revision=live)
    answer = await world.read(["1", "2", "3"], *ALL, revision=live)
    assert answer.status == ["ok", "ok", "missing"]
    assert answer.age_ms == [1_000, 0, -1]
    assert answer.cells == {
        "stats.clicks": [stored(1), stored(3), no_row(0)],
        "stats.ctr": [stored(0.25), stored(0.5), no_row(0.5)],
        "stats.orders": [not_in_version(9), stored(4), no_row(9)],
    }
    # A week later the job of the older version has refreshed product 1; product 2 has expired.
    world.now_ms = NOW_MS + TTL_MS - 1_000
    fresh = {"1": {"clicks": 7, "ctr": 0.75}}
    assert await world.write(fresh, revision=live, version=1) == WriteResult(1, 0)
    world.now_ms = NOW_MS + TTL_MS + 1_000
    answer = await world.read(["1", "2", "3"], *ALL, revision=live)
    assert answer.status == ["ok", "expired", "missing"]
    assert answer.age_ms == [2_000, TTL_MS, -1]
    assert answer.cells == {
        "stats.clicks": [stored(7), no_row(0), no_row(0)],
        "stats.ctr": [stored(0.75), no_row(0.5), no_row(0.5)],
        "stats.orders": [not_in_version(9), no_row(9), no_row(9)],
    }
    # One job now writes by the new version, and another still writes by the old one.
    await world.write({"1": {"clicks": 8, "ctr": 0.5, "orders": 5}}, revision=live)
    await world.write({"2": {"clicks": 6, "ctr": 0.25}}, revision=live, version=1)
    answer = await world.read(["1", "2", "3"], *ALL, revision=live)
    assert answer.status == ["ok", "ok", "missing"]
    assert answer.cells == {
        "stats.clicks": [stored(8), stored(6), no_row(0)],
        "stats.ctr": [stored(0.5), stored(0.25), no_row(0.5)],
        "stats.orders": [stored(5), not_in_version(9), no_row(9)],
    }


async def test_models_request_a_mix_of_old_and_new_features_depending_on_rollout_stages(
    world: World,
) -> None:
    world.publish(PRICE, group="product.offer")
    first = world.publish(CLICKS, CTR)
    second = world.publish(ORDERS, CTR, CLICKS)
    await world.write({"old": {"clicks": 1, "ctr": 0.25}}, revision=second, version=1)
    await world.write({"new": {"orders": 3, "ctr": 0.75, "clicks": 2}}, revision=second)
    await world.write({"old": {"price": 2.5}}, revision=second, group="product.offer")
    await world.write({"gone": {"clicks": 5, "ctr": 0.5}}, revision=first)
    times = np.array([NOW_MS], dtype=np.uint64)
    await world.cached.delete(
        "product.stats", ["gone"], times, False, request_at(world.catalog, first, world.now_ms)
    )
    keys = ["new", "none", "old", "gone"]

    # The old model reads the old features, on both revisions.
    for revision in (first, second):
        answer = await world.read(keys, "stats.ctr", "stats.clicks", revision=revision)
        assert answer.status == ["ok", "missing", "ok", "missing"]
        assert answer.cells == {
            "stats.ctr": [stored(0.75), no_row(0.5), stored(0.25), no_row(0.5)],
            "stats.clicks": [stored(2), no_row(0), stored(1), no_row(0)],
        }

    # The new model reads old and new features, of two groups.
    names = ("stats.clicks", "offer.price", "stats.orders")
    answer = await world.read(keys, *names, revision=second)
    assert answer.status == ["ok", "missing", "ok", "missing"]
    assert answer.cells == {
        "stats.clicks": [stored(2), no_row(0), stored(1), no_row(0)],
        "offer.price": [no_row(1.5), no_row(1.5), stored(2.5), no_row(1.5)],
        "stats.orders": [stored(3), no_row(9), not_in_version(9), no_row(9)],
    }
    offers = await world.read(keys, "offer.price", revision=second)
    assert offers.status == ["missing", "missing", "ok", "missing"]

    # Both sets of features in one call return the same values.
    queries = [FeatureQuery("product", keys, matrix) for matrix in (OLD, names)]
    for service in (world.plain, world.cached):
        old, mixed = await service.read(queries, request_at(world.catalog, second, world.now_ms))
        assert old.matrix.tolist() == [[2.0, 0.75], [0.0, 0.5], [1.0, 0.25], [0.0, 0.5]]
        assert mixed.matrix.tolist() == [
            [2.0, 1.5, 3.0],
            [0.0, 1.5, 9.0],
            [1.0, 2.5, 9.0],
            [0.0, 1.5, 9.0],
        ]
