"""`/healthz`: 200 with the state of each part, or 503 if a part is down."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx
import pytest

from kirana.catalog.revisions import LiveRevision
from kirana.edge import Edge, Resources, probes
from kirana.errors import Unavailable
from kirana.features.service import FeatureService
from kirana.interactions import Event, InteractionQuery, Interactions
from kirana.interactions.service import InteractionService
from kirana.interactions.store import Retention
from tests.store_calls import DownStore
from tests.support import Shop, open_shop, publish, write_shop
from tests.unit.edge.conftest import CatalogOutage, client_of


class DownInteractions:
    """An interaction store that is unavailable."""

    async def append(self, events: Sequence[Event], retention: Mapping[str, Retention]) -> None:
        raise Unavailable("the interactions are down")

    async def query(
        self, queries: Sequence[InteractionQuery], retention: Mapping[str, Retention]
    ) -> list[Interactions]:
        raise Unavailable("the interactions are down")

    async def forget(self, user_id: str) -> int:
        raise Unavailable("the interactions are down")

    async def close(self) -> None:
        pass


async def edge_with(
    shop: Shop,
    features: FeatureService | None = None,
    interactions: InteractionService | None = None,
) -> Edge:
    """Return an edge of the shop in which these parts replace its own."""
    live = LiveRevision(shop.source, [])
    await live.start()
    parts = shop.served(features=features, interactions=interactions)
    resources = Resources(parts, live, shop.source)
    await resources.probes.check()
    return Edge(resources)


async def test_a_running_shop_is_healthy(client: httpx.AsyncClient, shop: Shop) -> None:
    response = await client.get("/healthz")
    assert response.status_code == 200
    reply = response.json()
    assert 0 <= reply.pop("age_ms") < 60_000
    assert reply == {
        "status": "ok",
        "parts": {
            "features": {"state": "ok", "store": "lmdb"},
            "interactions": {"state": "ok"},
            "flows": {"state": "ok"},
            "inferflow": {"state": "ok"},
            "catalog": {
                "state": "ok",
                "revision": 1,
                "catalog": shop.revision.catalog,
                "refused_revisions": 0,
            },
        },
    }


@pytest.mark.parametrize("part", ["features", "interactions"])
async def test_a_part_that_is_down_is_named(shop: Shop, part: str) -> None:
    edge = (
        await edge_with(shop, features=FeatureService(DownStore(), shop.source))
        if part == "features"
        else await edge_with(shop, interactions=InteractionService(DownInteractions(), shop.source))
    )
    async with client_of(edge) as client:
        response = await client.get("/healthz")
    assert response.status_code == 503
    reply = response.json()
    assert reply["status"] == "unavailable"
    states = {name: report["state"] for name, report in reply["parts"].items()}
    assert states.pop(part) == "unavailable"
    assert set(states.values()) == {"ok"}
    assert reply["parts"][part]["reason"]


async def test_writes_and_event_queries_are_unavailable_if_the_stores_are_down(
    shop: Shop,
) -> None:
    """Unlike reads of features, they have no defaults to fall back on."""
    features = FeatureService(DownStore(), shop.source)
    interactions = InteractionService(DownInteractions(), shop.source)
    async with client_of(await edge_with(shop, features, interactions)) as client:
        put = {
            "group": "product.stats",
            "keys": {"product_id": "1"},
            "columns": {"clicks": [1], "ctr": [0.5]},
        }
        event = {
            "user_id": "7",
            "event": "click",
            "product_id": "1",
            "timestamp": 1_700_000_000_000,
        }
        for path, body in (
            ("/v1/features/put", put),
            ("/v1/interactions", {"events": [event]}),
            ("/v1/interactions/query", {"user_ids": ["7"], "events": ["click"]}),
        ):
            response = await client.post(path, json=body)
            assert response.status_code == 503, path
            assert response.json()["error"]["code"] == "unavailable"


async def test_reads_from_a_store_that_is_down_give_defaults_and_say_so(shop: Shop) -> None:
    edge = await edge_with(shop, features=FeatureService(DownStore(), shop.source))
    async with client_of(edge) as client:
        body = {"entity": "product", "keys": {"product_id": ["1", "2"]}, "features": ["stats.ctr"]}
        response = await client.post("/v1/features/get", json=body)
    assert response.status_code == 200
    assert response.json()["status"] == {"stats": ["unavailable", "unavailable"]}
    assert response.json()["values"] == [[0.5], [0.5]]


async def test_a_catalog_without_groups_and_events_is_healthy(tmp_path: Path) -> None:
    folder = write_shop(tmp_path, "kind: entity\nname: user\nkeys: [{name: user_id}]\n")
    publish(folder)
    shop = open_shop(folder)
    async with client_of(await shop.edge()) as client:
        assert (await client.get("/healthz")).status_code == 200
    await shop.close()


async def test_an_unreachable_catalog_is_reported_and_its_last_revision_serves(
    outage: CatalogOutage, shop: Shop
) -> None:
    before = (await outage.client.get("/healthz")).json()["parts"]
    assert "away_since" not in before["catalog"]
    await outage.begin()
    response = await outage.client.get("/healthz")
    assert response.status_code == 200
    assert outage.live.away_since is not None
    assert response.json()["parts"]["catalog"] == {
        "state": "ok",
        "revision": 1,
        "catalog": shop.revision.catalog,
        "refused_revisions": 0,
        "away_since": int(outage.live.away_since * 1000),
    }
    flow = await outage.client.post("/v1/flows/for_you", json={"context": {"user_id": "7"}})
    assert flow.status_code == 200
    await outage.end()
    assert (await outage.client.get("/healthz")).json()["parts"] == before


async def test_refused_revisions_are_counted(shop: Shop) -> None:
    live = LiveRevision(shop.source, [])
    await live.start()
    live.refused = 2
    resources = Resources(shop.served(), live, shop.source)
    await resources.probes.check()
    async with client_of(Edge(resources)) as client:
        reply = (await client.get("/healthz")).json()
    assert reply["parts"]["catalog"]["refused_revisions"] == 2


async def test_a_replica_whose_parts_were_never_checked_is_unavailable(shop: Shop) -> None:
    live = LiveRevision(shop.source, [])
    await live.start()
    async with client_of(Edge(Resources(shop.served(), live, shop.source))) as client:
        response = await client.get("/healthz")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "unavailable"


async def test_an_old_check_says_nothing_of_the_present(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    live = LiveRevision(shop.source, [])
    await live.start()
    resources = Resources(shop.served(), live, shop.source)
    await resources.probes.check()
    monkeypatch.setattr(probes, "MAX_AGE_S", -1.0)
    async with client_of(Edge(resources)) as client:
        response = await client.get("/healthz")
    assert response.status_code == 503
    assert "the parts were last checked" in response.json()["error"]["message"]


async def test_checks_go_on_after_an_error_that_is_not_kiranas(shop: Shop) -> None:
    class Broken(DownInteractions):
        async def query(self, *_: object) -> list[Interactions]:
            raise ZeroDivisionError

    live = LiveRevision(shop.source, [])
    await live.start()
    parts = shop.served(interactions=InteractionService(Broken(), shop.source))
    resources = Resources(parts, live, shop.source)
    for _ in range(2):
        await resources.probes.check()
    async with client_of(Edge(resources)) as client:
        report = (await client.get("/healthz")).json()["parts"]["interactions"]
    assert report == {"state": "unavailable", "reason": "the check failed: see Kirana's log"}
