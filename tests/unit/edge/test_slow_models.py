"""Requests on a model that is slower than their limits: the answers come while it still runs."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from kirana.edge import Edge
from kirana.models.loaded import LoadedModel
from tests.support import SHOP, Shop, open_shop, publish, write_shop, write_slow_model
from tests.unit.edge.conftest import client_of

HASTY_FLOW = """
---
kind: flow
name: hasty
graph:
  recent: [similar]
  similar: [ranked]
  ranked: []
nodes:
  recent: {op: interactions, with: {event: click, last: 5}}
  similar: {op: candidates, with: {cg_name: similar_products, limit: 10}}
  ranked: {op: infer, with: {model_id: ranker}, timeout_ms: 20, fallback: empty}
"""
INFER = {"context": {"user_id": "7", "product_id": ["2", "3"]}}
MODEL_OUTPUT, COLUMNS = "p_click", 7


@pytest.fixture
async def slow_shop(tmp_path: Path) -> Shop:
    """Return a shop whose click model takes tenths of a second for each run."""
    folder = write_shop(tmp_path / "shop", SHOP + HASTY_FLOW)
    write_slow_model(folder / "models/click/1/model.onnx", COLUMNS, MODEL_OUTPUT, size=3_000)
    publish(folder)
    return open_shop(folder)


async def click_model(shop: Shop) -> LoadedModel:
    models = await shop.models._models.at(shop.revision)
    return models["click_model"]


async def write_history(client: httpx.AsyncClient) -> None:
    """Write a click of user 7, and products that are similar to the clicked one."""
    rows = {
        "group": "product.similar",
        "keys": {"product_id": ["1"]},
        "columns": {"ids": [[2, 3, 4, 5]], "weights": [[1.0, 0.9, 0.8, 0.7]]},
    }
    click = {"user_id": "7", "event": "click", "product_id": "1", "timestamp": 1_700_000_000_000}
    assert (await client.post("/v1/features/put", json=rows)).status_code == 200
    assert (await client.post("/v1/interactions", json={"events": [click]})).status_code == 200


async def test_a_fallback_a_deadline_and_health_do_not_wait_for_the_model(slow_shop: Shop) -> None:
    edge: Edge = await slow_shop.edge()
    model = await click_model(slow_shop)
    async with client_of(edge) as client:
        await write_history(client)
        flow = await client.post(
            "/v1/flows/hasty", json={"context": {"user_id": "7"}, "trace": True}
        )
        assert flow.status_code == 200
        states = {span["node"]: span["state"] for span in flow.json()["trace"]}
        assert states["ranked"] == "fallback"
        assert model.pending == 1
        headers = {"x-kirana-timeout-ms": "50"}
        late = await client.post("/v1/infer/ranker", json=INFER, headers=headers)
        assert late.status_code == 504
        health = await client.get("/healthz")
        assert health.status_code == 200
        assert model.pending > 0
    await slow_shop.close()
