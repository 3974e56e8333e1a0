"""Protobuf messages between the client and the edge, and the same messages in JSON."""

from __future__ import annotations

import time
from typing import Any

import httpx
import numpy as np
import pytest

from kirana.client import Accepted, AsyncClient, Written
from kirana.codecs import Column
from kirana.errors import Conflict, InvalidInput, TooLarge, Unknown
from kirana.interactions import Event

NOW = 1_700_000_000_000
DAY_MS = 86_400_000


async def _post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    """Send JSON, and return the reply, which must have status 200."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def _fill(kirana: AsyncClient) -> None:
    """Write rows for the products 1 and 2."""
    stats = {"clicks": np.array([1, 2]), "ctr": np.array([0.1, np.nan])}
    written = await kirana.put_features("product.stats", {"product_id": ["1", "2"]}, stats)
    assert written == Written(2, 0, 0)
    nulls = np.array([False, True])
    attrs = {
        "title": Column(np.array(["né", ""], dtype=object), nulls),
        "category_id": np.array([7, 8], dtype=np.uint8),
        "in_stock": Column(np.array([False, True]), nulls),
    }
    await kirana.put_features("product.attrs", {"product_id": [1, 2]}, attrs)
    similar = {
        "ids": np.arange(8, dtype=np.int32).reshape(2, 4),
        "weights": np.ones((2, 4), dtype=np.float32),
    }
    await kirana.put_features("product.similar", {"product_id": ["1", "2"]}, similar)


FEATURES = ["attrs.title", "stats.ctr", "similar.ids", "stats.clicks", "attrs.in_stock"]


async def test_features_are_the_same_in_protobuf_and_json(
    kirana: AsyncClient, client: httpx.AsyncClient
) -> None:
    await _fill(kirana)
    keys = {"product_id": ["1", "2", "nobody"]}
    body = {"entity": "product", "keys": keys, "features": FEATURES, "provenance": True}
    in_json = await _post(client, "/v1/features/get", body)
    reply = await kirana.get_features("product", keys, FEATURES, provenance=True)
    assert list(reply.features) == in_json["features"]
    assert list(reply.dtypes) == in_json["dtypes"]
    assert {group: reply.status(group) for group in reply.codes} == in_json["status"]
    assert {name: reply.provenance(name) for name in FEATURES} == in_json["provenance"]
    for i, name in enumerate(FEATURES):
        column = reply.column(name)
        nulls = np.zeros(3, dtype=bool) if column.nulls is None else column.nulls
        cells = [
            None if null else value
            for value, null in zip(column.values.tolist(), nulls, strict=True)
        ]
        json_cells = [row[i] for row in in_json["values"]]
        if name == "stats.ctr":
            assert np.isnan(cells[1])
            assert json_cells[1] == "NaN"
            assert column.values.dtype == np.float32
            assert np.allclose([cells[0], cells[2]], [json_cells[0], json_cells[2]])
        else:
            assert cells == json_cells
    assert reply.column("similar.ids").values.shape == (3, 4)


async def test_the_matrix_of_a_float32_feature_is_not_a_copy(kirana: AsyncClient) -> None:
    await _fill(kirana)
    reply = await kirana.get_features("product", {"product_id": ["1", "x"]}, ["stats.ctr"])
    assert reply.matrix.dtype == np.float32
    assert np.allclose(reply.matrix, [[0.1], [0.5]])
    assert np.shares_memory(reply.matrix, reply.blocks[0][1].values)
    assert reply.status("stats") == ["ok", "missing"]


async def test_a_matrix_of_mixed_dtypes_is_float32(kirana: AsyncClient) -> None:
    await _fill(kirana)
    names = ["similar.ids", "stats.clicks", "attrs.in_stock"]
    reply = await kirana.get_features("product", {"product_id": ["1"]}, names)
    assert reply.matrix.tolist() == [[0.0, 1.0, 2.0, 3.0, 1.0, 0.0]]
    texts = await kirana.get_features("product", {"product_id": ["1"]}, ["attrs.title"])
    with pytest.raises(InvalidInput, match="string"):
        _ = texts.matrix


async def test_a_stored_null_of_a_float_is_returned_as_a_null(kirana: AsyncClient) -> None:
    columns = {"clicks": [1, 2], "ctr": [0.25, None]}
    await kirana.put_features("product.stats", {"product_id": ["1", "2"]}, columns)
    reply = await kirana.get_features("product", {"product_id": ["1", "2"]}, ["stats.ctr"])
    column = reply.column("stats.ctr")
    assert column.nulls is not None
    assert column.nulls.tolist() == [False, True]
    assert column.values.tolist() == [0.25, 0.5]


async def test_interactions_are_the_same_in_protobuf_and_json(
    kirana: AsyncClient, client: httpx.AsyncClient
) -> None:
    events = [
        Event("7", "click", "1", NOW, {"place": "né"}),
        Event("7", "click", "2", NOW + 1),
        Event("8", "wishlist", "2", int(time.time() * 1000)),
    ]
    assert await kirana.add_interactions(events) == Accepted(3, 0)
    body = {"user_ids": ["7", "8"], "events": ["click", "wishlist"], "last": 5}
    in_json = (await _post(client, "/v1/interactions/query", body))["interactions"]
    reply = await kirana.query_interactions(["7", 8], ["click", "wishlist"], last=5)
    for user, by_type in in_json.items():
        for event, records in by_type.items():
            received = reply[user][event]
            assert [record["product_id"] for record in records] == list(received.product_ids)
            assert [record["timestamp"] for record in records] == received.timestamps.tolist()
            assert [record.get("metadata") for record in records] == list(received.metadata)
    ranged = await kirana.interactions("7", "click", since=NOW, until=NOW)
    assert list(ranged.product_ids) == ["1"]
    assert await kirana.forget("7") == 2


async def test_written_stale_and_expired_rows_are_counted(kirana: AsyncClient) -> None:
    await _fill(kirana)
    now = int(time.time() * 1000)
    times = [now, now - 60_000, now - 8 * DAY_MS]
    for clicks in (np.array([1, 2, 3]), [1, 2, 3]):
        columns = {"clicks": clicks, "ctr": [0.5] * 3}
        keys = {"product_id": ["new", "1", "gone"]}
        done = await kirana.put_features("product.stats", keys, columns, event_time=times)
        assert done == Written(1, 1, 1)


async def test_accepted_and_expired_events_are_counted(kirana: AsyncClient) -> None:
    now = int(time.time() * 1000)
    events = [
        Event("7", "wishlist", "1", now - DAY_MS),
        Event("7", "wishlist", "2", now - DAY_MS // 2),
        Event("7", "click", "1", now - 9 * DAY_MS),
    ]
    assert await kirana.add_interactions(events) == Accepted(2, 1)
    assert list((await kirana.interactions("7", "wishlist")).product_ids) == ["2"]


async def test_a_ranking_is_the_same_in_protobuf_and_json(
    kirana: AsyncClient, client: httpx.AsyncClient
) -> None:
    await _fill(kirana)
    context = {"user_id": "7", "product_id": ["1", "2", "3"]}
    body = {
        "context": context,
        "inputs": {"similar": [0.5, 1.0, 2.0]},
        "top_k": 2,
        "return": ["outputs", "matrix"],
    }
    stats = {"clicks": [1], "ctr": [0.5]}
    await kirana.put_features("product.stats", {"product_id": ["2"]}, stats)
    in_json = await _post(client, "/v1/infer/ranker", body)
    reply = await kirana.infer(
        "ranker", context, inputs={"similar": [0.5, 1.0, 2.0]}, top_k=2, outputs=True, matrix=True
    )
    assert list(reply.ids) == in_json["ids"]
    assert np.allclose(reply.scores, in_json["scores"])
    assert reply.matrix is not None
    assert np.allclose(reply.matrix, in_json["matrix"]["rows"])
    assert list(reply.columns) == in_json["matrix"]["columns"]
    assert {name: pytest.approx(values) for name, values in in_json["outputs"].items()} == {
        name: array.tolist() for name, array in reply.outputs.items()
    }
    assert reply.defaults == in_json["defaults"]


async def test_the_client_runs_flows_and_changes_the_catalog(kirana: AsyncClient) -> None:
    await _fill(kirana)
    await kirana.add_interactions([Event("7", "click", "1", NOW)])
    ran = await kirana.run_flow("for_you", {"user_id": "7"}, trace=True)
    assert len(ran.ids) == len(ran.columns["scores"]) > 0
    assert {span["node"] for span in ran.trace} >= {"recent", "ranked"}
    listing = await kirana.catalog(history=1)
    assert listing.revision == 1
    assert "for_you" in listing.objects["flow"]
    click = await kirana.get_object("event_type", "click")
    assert click.object["keep"] == 50
    assert await kirana.put_object("event_type", "click", {"keep": 9}, expected_revision=1) == 2
    with pytest.raises(Conflict):
        await kirana.delete_object("event_type", "click", expected_revision=1)
    assert await kirana.publish([], delete=[("event_type", "wishlist")]) == 3
    assert (await kirana.health())["status"] == "ok"
    assert await kirana.endpoints() == []


@pytest.mark.parametrize(
    ("columns", "field"),
    [
        ({"clicks": np.array([1.5]), "ctr": np.array([0.5])}, "columns.clicks"),
        ({"clicks": np.array([1 << 40]), "ctr": np.array([0.5])}, "columns.clicks"),
        ({"clicks": np.array([1]), "ctr": np.array([1e300])}, "columns.ctr"),
        ({"clicks": np.array([1]), "ctr": np.array([[0.5]])}, "columns.ctr"),
        ({"clicks": np.array([1]), "ctr": np.array(["x"], dtype=object)}, "columns.ctr"),
        ({"clicks": np.array([1, 2]), "ctr": np.array([0.5])}, "columns.clicks"),
        ({"clicks": np.array([1])}, "columns.ctr"),
        ({"clicks": np.array([1]), "ctr": np.array([1]), "x": np.array([1])}, "columns.x"),
        ({"clicks": [1], "ctr": ["x"]}, "columns.ctr[0]"),
    ],
)
async def test_a_column_that_does_not_fit_its_group_is_named(
    kirana: AsyncClient, columns: dict[str, Any], field: str
) -> None:
    with pytest.raises((InvalidInput, Unknown)) as caught:
        await kirana.put_features("product.stats", {"product_id": ["1"]}, columns)
    assert caught.value.field == field


async def test_errors_arrive_with_their_class_code_and_field(kirana: AsyncClient) -> None:
    with pytest.raises(Unknown) as unknown:
        await kirana.get_features("produkt", {"product_id": "1"}, ["stats.ctr"])
    assert (unknown.value.code, unknown.value.field) == ("unknown_entity", "entity")
    with pytest.raises(TooLarge) as large:
        await kirana.get_features("product", {"product_id": list(range(20_000))}, ["stats.ctr"])
    assert large.value.field == "keys.product_id"
    with pytest.raises(InvalidInput) as ids:
        await kirana.get_features("product", {"product_id": [1.5]}, ["stats.ctr"])  # type: ignore[list-item]
    assert ids.value.field == "keys.product_id"


@pytest.mark.parametrize("body", [b"\xff\xff", b"\x0a\x05abc", b"{}", b"\x0a\x02\xff\xfe"])
async def test_bytes_that_are_not_a_message_are_refused(
    client: httpx.AsyncClient, body: bytes
) -> None:
    headers = {"content-type": "application/x-protobuf"}
    response = await client.post("/v1/features/get", content=body, headers=headers)
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_protobuf"


async def test_routes_that_take_only_json_refuse_protobuf(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "application/x-protobuf"}
    response = await client.post("/v1/flows/for_you", content=b"", headers=headers)
    assert response.status_code == 415
    assert response.json()["error"]["code"] == "unsupported_media_type"
