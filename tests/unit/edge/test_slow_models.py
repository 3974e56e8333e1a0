"""Requests on a model that is slower than their limits: the answers come while it still runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.edge import Edge
from kirana.models.loaded import LoadedModel
from tests.slow_shop import (
    HASTY,
    HASTY_REQUEST,
    HISTORY,
    INFER,
    INFER_REQUEST,
    states_of,
    write_slow_shop,
)
from tests.support import Shop, open_shop, publish
from tests.unit.edge.conftest import client_of


@pytest.fixture
async def slow_shop(tmp_path: Path) -> Shop:
    """Return a published shop whose click model is slow."""
    folder = write_slow_shop(tmp_path / "shop", size=3_000)
    publish(folder)
    return open_shop(folder)


async def click_model(shop: Shop) -> LoadedModel:
    models = await shop.models._models.at(shop.revision)
    return models["click_model"]


async def test_a_fallback_a_deadline_and_health_do_not_wait_for_the_model(slow_shop: Shop) -> None:
    edge: Edge = await slow_shop.edge()
    model = await click_model(slow_shop)
    async with client_of(edge) as client:
        for path, body in HISTORY:
            assert (await client.post(path, json=body)).status_code == 200
        flow = await client.post(HASTY, json=HASTY_REQUEST)
        assert flow.status_code == 200
        assert states_of(flow.json())["ranked"] == "fallback"
        assert model.pending == 1
        headers = {"x-kirana-timeout-ms": "50"}
        late = await client.post(INFER, json=INFER_REQUEST, headers=headers)
        assert late.status_code == 504
        health = await client.get("/healthz")
        assert health.status_code == 200
        assert model.pending > 0
    await slow_shop.close()
