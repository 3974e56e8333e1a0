"""`/v1/catalog...`: each change is one revision, and also changes the source files."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest

from kirana.catalog.changes import Change
from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.publishing import Published
from kirana.cli.locations import local_settings
from kirana.edge.replies import CatalogListReply
from kirana.errors import Problem
from kirana.serving.assembly import catalog_backend
from tests.support import Shop, nth, open_shop
from tests.unit.edge.conftest import CatalogOutage, client_of, refused

NEW = {"keep": 7, "ttl": "2d"}


@pytest.fixture
def source(shop_folder: Path) -> DirectoryCatalog:
    return catalog_backend(local_settings(shop_folder, {}))


async def _put(client: httpx.AsyncClient, path: str, record: Any, **fields: Any) -> int:
    """Put an object, and return the number of the live revision."""
    response = await client.put(f"/v1/catalog/{path}", json={"object": record, **fields})
    assert response.status_code == 200, response.text
    number: int = response.json()["revision"]
    return number


async def test_the_live_revision_is_listed_with_its_history(
    client: httpx.AsyncClient, source: DirectoryCatalog
) -> None:
    listing = (await client.get("/v1/catalog")).json()
    assert (listing["revision"], listing["catalog"]) == (1, source.current().catalog)
    assert "away_since" not in listing
    assert listing["objects"]["event_type"] == ["click", "wishlist"]
    (first,) = listing["history"]
    assert first["revision"] == 1
    assert "flow for_you" in first["put"]
    assert first["deleted"] == []


async def test_the_live_revision_is_listed_without_history_while_the_catalog_can_not_be_read(
    outage: CatalogOutage,
) -> None:
    before = (await outage.client.get("/v1/catalog")).json()
    assert len(before["history"]) == 1
    await outage.begin()
    response = await outage.client.get("/v1/catalog")
    assert response.status_code == 200
    assert outage.live.away_since is not None
    since_ms = int(outage.live.away_since * 1000)
    assert response.json() == {**before, "history": [], "away_since": since_ms}
    msgspec.json.decode(response.content, type=CatalogListReply)
    click = await outage.client.get("/v1/catalog/event_type/click")
    assert click.json()["object"]["keep"] == 50
    await outage.end()
    assert (await outage.client.get("/v1/catalog")).json() == before


async def test_an_object_is_returned_as_people_write_it(client: httpx.AsyncClient) -> None:
    reply = (await client.get("/v1/catalog/feature_group/product.stats")).json()
    assert reply["object"]["ttl"] == "7d"
    assert reply["object"]["features"][0] == {"name": "clicks", "dtype": "int32", "default": 0}
    (version,) = reply["schema_versions"]
    assert version["version"] == 1
    assert len(version["fingerprint"]) == 8


async def test_putting_back_an_object_that_was_read_changes_nothing(
    client: httpx.AsyncClient, source: DirectoryCatalog
) -> None:
    listed = (await client.get("/v1/catalog")).json()["objects"]
    for kind, names in listed.items():
        for name in names:
            record = (await client.get(f"/v1/catalog/{kind}/{name}")).json()["object"]
            assert await _put(client, f"{kind}/{name}", record) == 1
    assert not source.publish().changed


async def test_a_put_makes_the_next_revision_and_rewrites_the_source(
    client: httpx.AsyncClient, source: DirectoryCatalog, shop_folder: Path
) -> None:
    assert await _put(client, "event_type/click", NEW, expected_revision=1) == 2
    assert source.load(nth(source, 2)).event_types["click"].keep == 7
    text = (shop_folder / "shop.yaml").read_text()
    assert "keep: 7" in text
    assert not source.publish().changed
    history = (await client.get("/v1/catalog?history=1")).json()["history"]
    assert [entry["put"] for entry in history] == [["event_type click"]]


async def test_an_unexpected_live_revision_is_a_conflict(
    client: httpx.AsyncClient, source: DirectoryCatalog
) -> None:
    body = {"object": NEW, "expected_revision": 7}
    refusal = await refused(client, "PUT", "/v1/catalog/event_type/click", body)
    assert refusal == (409, "conflict", "expected_revision")
    path = "/v1/catalog/event_type/wishlist?expected_revision=7"
    assert await refused(client, "DELETE", path) == (409, "conflict", "expected_revision")
    assert source.current().number == 1


async def test_several_objects_make_one_revision(
    client: httpx.AsyncClient, source: DirectoryCatalog
) -> None:
    entity = {"kind": "entity", "name": "seller", "keys": [{"name": "seller_id"}]}
    group = {
        "kind": "feature_group",
        "name": "seller.trust",
        "features": [{"name": "score", "dtype": "float32", "default": "NaN"}],
    }
    body = {"objects": [group, entity], "delete": [{"kind": "event_type", "name": "wishlist"}]}
    response = await client.post("/v1/catalog", json=body)
    assert response.json() == {"revision": 2}
    catalog = source.load(nth(source, 2))
    assert "seller.trust" in catalog.groups
    assert "wishlist" not in catalog.event_types
    assert not source.publish().changed


async def test_a_change_with_warnings_is_published_and_returns_them(
    shop: Shop, shop_folder: Path
) -> None:
    class Warned(DirectoryCatalog):
        def publish_change(self, change: Change, expected_revision: int | None = None) -> Published:
            published = super().publish_change(change, expected_revision)
            problems = (Problem("the flow is slow", "shop.yaml"),)
            return replace(published, checked=replace(published.checked, warnings=problems))

    shop.publisher = Warned(shop_folder)
    async with client_of(await shop.edge()) as client:
        path, warnings = "/v1/catalog/event_type/cart", ["shop.yaml: the flow is slow"]
        put = await client.put(path, json={"object": NEW})
        assert put.json() == {"revision": 2, "warnings": warnings}
        body = {"objects": [{"kind": "event_type", "name": "cart"}]}
        post = await client.post("/v1/catalog", json=body)
        assert post.json() == {"revision": 3, "warnings": warnings}
        assert (await client.delete(path)).json() == {"revision": 4, "warnings": warnings}


async def test_a_bad_object_is_named_and_nothing_is_published(
    client: httpx.AsyncClient, source: DirectoryCatalog
) -> None:
    good = {"kind": "event_type", "name": "cart"}
    bad = {"kind": "feature_group", "name": "user.x", "features": [{"name": "a", "dtype": "int"}]}
    refusal = await refused(client, "POST", "/v1/catalog", {"objects": [good, bad]})
    assert refusal == (400, "invalid_catalog", "objects[1].features[0].dtype")
    assert source.current().number == 1
    assert not source.publish().changed


@pytest.mark.parametrize(
    ("method", "path", "body", "expected"),
    [
        ("GET", "entity/nobody", None, (404, "unknown_entity", "name")),
        ("GET", "thing/user", None, (404, "unknown_kind", "kind")),
        ("DELETE", "event_type/nothing", None, (404, "unknown_event_type", "name")),
        ("DELETE", "entity/user", None, (400, "invalid_catalog", None)),
        ("PUT", "thing/x", {"object": {}}, (404, "unknown_kind", "kind")),
        ("PUT", "event_type/click", {}, (400, "invalid_input", "object")),
        ("PUT", "event_type/click", {"object": []}, (400, "invalid_input", "object")),
        ("PUT", "event_type/c", {"object": {"name": "x"}}, (400, "invalid_input", "object.name")),
        ("PUT", "event_type/c t", {"object": {}}, (400, "invalid_catalog", "object.name")),
        ("PUT", "event_type/c", {"object": {"keep": "7"}}, (400, "invalid_catalog", "object.keep")),
        ("PUT", "event_type/c", {"object": {"kept": 7}}, (400, "invalid_catalog", "object.kept")),
    ],
)  # fmt: skip
async def test_a_bad_request_is_refused_and_its_field_named(
    client: httpx.AsyncClient, method: str, path: str, body: Any, expected: tuple[int, str, str]
) -> None:
    assert await refused(client, method, f"/v1/catalog/{path}", body) == expected


async def test_an_extremely_nested_object_is_refused(client: httpx.AsyncClient) -> None:
    deep: Any = []
    for _ in range(500):
        deep = [deep]
    record = {"generator": "stored_list", "with": {"deep": deep}}
    path = "/v1/catalog/candidate_generator/deep"
    response = await client.put(path, json={"object": record})
    assert response.status_code == 400
    assert response.json()["error"]["field"] == "object"


async def test_edits_of_the_source_are_neither_lost_nor_published(
    client: httpx.AsyncClient, source: DirectoryCatalog, shop_folder: Path
) -> None:
    file = shop_folder / "shop.yaml"
    file.write_text(file.read_text().replace("keep: 50", "keep: 49"))
    body = {"object": NEW}
    refusal = await refused(client, "PUT", "/v1/catalog/event_type/click", body)
    assert refusal == (409, "conflict", None)
    assert await _put(client, "event_type/wishlist", {"keep": 4}) == 2
    assert source.load(nth(source, 2)).event_types["click"].keep == 50
    assert "keep: 49" in file.read_text()


async def test_a_broken_source_must_be_fixed_first(
    client: httpx.AsyncClient, shop_folder: Path
) -> None:
    (shop_folder / "broken.yaml").write_text("kind: [")
    refusal = await refused(client, "PUT", "/v1/catalog/event_type/click", {"object": NEW})
    assert refusal == (409, "conflict", None)


async def test_rows_of_lost_schema_versions_are_corrupt(
    client: httpx.AsyncClient, source: DirectoryCatalog, shop_folder: Path
) -> None:
    """The version files are lost while rows that they describe are still stored."""
    put = {
        "group": "product.stats",
        "keys": {"product_id": ["1"]},
        "columns": {"clicks": [7], "ctr": [0.25]},
    }
    assert (await client.post("/v1/features/put", json=put)).json()["written"] == 1
    for file in (shop_folder / "versions" / "product.stats").iterdir():
        file.unlink()
    features = [{"name": "ctr", "dtype": "float32"}, {"name": "clicks", "dtype": "int32"}]
    body = {"object": {"ttl": "7d", "features": features}}
    refusal = await refused(client, "PUT", "/v1/catalog/feature_group/product.stats", body)
    assert refusal[:2] == (400, "invalid_catalog")
    # If the file CURRENT is lost too, only the fingerprints in the rows show the loss.
    (shop_folder / ".kirana" / "CURRENT").unlink()
    text = (shop_folder / "shop.yaml").read_text()
    swapped = text.replace("  - {name: clicks, dtype: int32, default: 0}\n", "").replace(
        "  - {name: ctr, dtype: float32, default: 0.5}\n",
        "  - {name: ctr, dtype: float32, default: 0.5}\n"
        "  - {name: clicks, dtype: int32, default: 0}\n",
    )
    (shop_folder / "shop.yaml").write_text(swapped)
    revision = source.publish().revision
    assert source.load(revision).groups["product.stats"].current.number == 1
    reopened = open_shop(shop_folder)
    try:
        async with client_of(await reopened.edge()) as reopened_client:
            get = {"entity": "product", "keys": {"product_id": ["1"]}, "features": ["stats.ctr"]}
            reply = (await reopened_client.post("/v1/features/get", json=get)).json()
    finally:
        await reopened.close()
    assert reply["status"] == {"stats": ["corrupt"]}
    assert reply["values"] == [[0.5]]
