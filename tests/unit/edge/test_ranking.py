"""`/v1/flows/{name}` and `/v1/infer/{model_id}`: ranked lists and scores over HTTP."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from kirana import byte_limit
from kirana.edge.handlers import ranking
from tests.support import SHOP, SHOP_WEIGHTS, Shop, open_shop, publish, write_shop
from tests.unit.edge.conftest import client_of, refused

FLOW, INFER = "/v1/flows/for_you", "/v1/infer/ranker"
NOW_MS = int(time.time() * 1000)
ASK: dict[str, Any] = {"context": {"user_id": "7", "product_id": ["1", "2", "3"]}}


async def put(client: httpx.AsyncClient, group: str, keys: Any, **columns: Any) -> None:
    """Write rows of a group, which must be accepted."""
    body = {"group": group, "keys": keys, "columns": columns}
    response = await client.post("/v1/features/put", json=body)
    assert response.status_code == 200, response.text


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[httpx.AsyncClient]:
    """Yield a client of a shop that has a few rows and one click."""
    async with client_of(await shop.edge()) as client:
        ids = ["1", "2", "3", "4"]
        ctr = [0.125, 0.5, 0.25, 0.75]
        await put(client, "product.stats", {"product_id": ids}, clicks=[1, 2, 3, 4], ctr=ctr)
        await put(
            client,
            "product.similar",
            {"product_id": ["1"]},
            ids=[[1, 2, 3, 4]],
            weights=[[1.0, 0.5, 0.25, 0.125]],
        )
        events = [{"user_id": 7, "event": "click", "product_id": "1", "timestamp": NOW_MS}]
        assert (await client.post("/v1/interactions", json={"events": events})).status_code == 200
        yield client


async def post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    """Send JSON, and return the reply, which must have status 200."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_a_flow_returns_a_ranked_list(client: httpx.AsyncClient) -> None:
    reply = await post(client, FLOW, {"context": {"user_id": 7}})
    assert set(reply) == {"output", "revision"}
    assert reply["revision"] == 1
    output = reply["output"]
    assert set(output) == {"ids", "scores", "similar", "p_click", "p_order"}
    assert set(output["ids"]) == {"2", "3", "4"}
    assert output["scores"] == sorted(output["scores"], reverse=True)
    assert dict(zip(output["ids"], output["similar"], strict=True)) == {
        "2": 0.5,
        "3": 0.25,
        "4": 0.125,
    }


async def test_a_trace_has_a_span_for_each_node(client: httpx.AsyncClient) -> None:
    reply = await post(client, FLOW, {"context": {"user_id": "7"}, "trace": True})
    spans = {span["node"]: span for span in reply["trace"]}
    assert list(spans["top"]) == [
        "node",
        "op",
        "state",
        "start_ms",
        "took_ms",
        "attempts",
        "size",
        "error",
    ]
    assert {name: (span["op"], span["size"]) for name, span in spans.items()} == {
        "recent": ("interactions", 1),
        "seen": ("interactions", 1),
        "similar": ("candidates", 4),
        "unseen": ("filter", 3),
        "ranked": ("infer", 3),
        "top": ("top_k", 3),
    }
    assert {(s["state"], s["attempts"], s["error"]) for s in spans.values()} == {("ok", 1, None)}


async def test_a_user_without_history_gets_an_empty_list(client: httpx.AsyncClient) -> None:
    reply = await post(client, FLOW, {"context": {"user_id": "nobody"}})
    assert {name: column for name, column in reply["output"].items() if column} == {}
    assert reply["output"]["ids"] == []


async def test_a_flow_and_infer_give_the_same_scores(client: httpx.AsyncClient) -> None:
    output = (await post(client, FLOW, {"context": {"user_id": "7"}}))["output"]
    body = {
        "context": {"user_id": "7", "product_id": output["ids"]},
        "inputs": {"similar": output["similar"]},
        "return": ["outputs"],
    }
    reply = await post(client, INFER, body)
    assert reply["scores"] == output["scores"]
    assert reply["outputs"] == {name: output[name] for name in ("p_click", "p_order")}


async def test_infer_returns_scores_in_the_order_of_the_ids(client: httpx.AsyncClient) -> None:
    reply = await post(client, INFER, {**ASK, "return": ["matrix", "outputs"]})
    assert set(reply) == {"ids", "scores", "outputs", "matrix", "defaults", "revision"}
    assert reply["ids"] == ["1", "2", "3"]
    assert reply["matrix"]["columns"][:3] == [
        "input.similar",
        "user.profile.age",
        "product.stats.ctr",
    ]
    rows = reply["matrix"]["rows"]
    assert [row[2] for row in rows] == [0.125, 0.5, 0.25]
    for name, weights in SHOP_WEIGHTS.items():
        expected = [
            sum(weight * value for weight, value in zip(weights, row, strict=True)) for row in rows
        ]
        assert reply["outputs"][f"p_{name}"] == pytest.approx(expected)
    outputs = zip(reply["outputs"]["p_click"], reply["outputs"]["p_order"], strict=True)
    assert reply["scores"] == pytest.approx([click + 4 * order for click, order in outputs])
    assert reply["defaults"]["user.profile"] == 3
    assert "product.stats" not in reply["defaults"]


async def test_infer_returns_only_the_requested_fields(client: httpx.AsyncClient) -> None:
    reply = await post(client, INFER, ASK)
    assert set(reply) == {"ids", "scores", "defaults", "revision"}


@pytest.mark.parametrize("top_k", [1, 2, 3, 100, 10**12])
async def test_top_k_keeps_the_best_rows_first_in_every_list(
    client: httpx.AsyncClient, top_k: int
) -> None:
    returned = ["outputs", "matrix"]
    full_reply = await post(client, INFER, {**ASK, "return": returned})
    reply = await post(client, INFER, {**ASK, "top_k": top_k, "return": returned})
    order = sorted(range(3), key=lambda i: -full_reply["scores"][i])[:top_k]
    for path in (["ids"], ["scores"], ["outputs", "p_click"], ["matrix", "rows"]):
        values, full_values = reply, full_reply
        for step in path:
            values, full_values = values[step], full_values[step]
        assert values == [full_values[i] for i in order], path
    assert reply["defaults"] == full_reply["defaults"]


async def test_non_finite_scores_are_returned_as_strings(client: httpx.AsyncClient) -> None:
    columns = {"clicks": [1, 1], "ctr": ["NaN", "Infinity"]}
    await put(client, "product.stats", {"product_id": ["1", "2"]}, **columns)
    reply = await post(client, INFER, {**ASK, "return": ["matrix", "outputs"], "top_k": 3})
    # The output p_order is NaN for an infinite ctr too, because 0 times infinity is NaN.
    assert reply["ids"] == ["3", "1", "2"]
    assert reply["scores"][1:] == ["NaN", "NaN"]
    assert reply["outputs"]["p_click"][1:] == ["NaN", "Infinity"]
    assert [row[2] for row in reply["matrix"]["rows"]] == [0.25, "NaN", "Infinity"]


async def test_a_node_named_ids_does_not_hide_the_ids_of_the_output(tmp_path: Path) -> None:
    """A node names a column of the output, and a node may be named `ids` or `scores`."""
    catalog = (
        SHOP.replace("  similar: [unseen]", "  ids: [unseen]")
        .replace("  recent: [similar]", "  recent: [ids]")
        .replace("  similar: {op: candidates", "  ids: {op: candidates")
    )
    folder = write_shop(tmp_path, catalog)
    publish(folder)
    shop = open_shop(folder)
    async with client_of(await shop.edge()) as client:
        event = {"user_id": 7, "event": "click", "product_id": "1", "timestamp": NOW_MS}
        await client.post("/v1/interactions", json={"events": [event]})
        lists: dict[str, Any] = {"ids": [[2, 3, 0, 0]], "weights": [[1.0, 0.5, 0, 0]]}
        await put(client, "product.similar", {"product_id": ["1"]}, **lists)
        output = (await post(client, FLOW, {"context": {"user_id": "7"}}))["output"]
    await shop.close()
    assert set(output["ids"]) == {"2", "3"}


BAD: dict[str, tuple[str, Any, int, str, str]] = {
    "an unknown flow": ("/v1/flows/for_yu", {"context": {}}, 404, "unknown_flow", "name"),
    "a flow without context": (FLOW, {}, 400, "invalid_input", "context"),
    "a context that is a list": (FLOW, {"context": []}, 400, "invalid_input", "context"),
    "a context that is null": (FLOW, {"context": None}, 400, "invalid_input", "context"),
    "a context without the user": (
        FLOW, {"context": {}}, 400, "invalid_input", "context.user_id"),
    "a user that is null": (
        FLOW, {"context": {"user_id": None}}, 400, "invalid_input", "context.user_id"),
    "a user that is a list": (
        FLOW, {"context": {"user_id": ["7"]}}, 400, "invalid_input", "context.user_id"),
    "a user that is a fraction": (
        FLOW, {"context": {"user_id": 7.5}}, 400, "invalid_input", "context.user_id"),
    "an empty user": (
        FLOW, {"context": {"user_id": ""}}, 400, "invalid_input", "context.user_id"),
    "a user with NUL": (
        FLOW, {"context": {"user_id": "\0"}}, 400, "invalid_input", "context.user_id"),
    "a user that is too long": (
        FLOW, {"context": {"user_id": "x" * 201}}, 400, "invalid_input", "context.user_id"),
    "a trace that is text": (
        FLOW, {"context": {}, "trace": "yes"}, 400, "invalid_input", "trace"),
    "an unknown field of a flow": (
        FLOW, {"context": {}, "user_id": "7"}, 400, "invalid_input", "user_id"),
    "an unknown model id": (
        "/v1/infer/rankr", ASK, 404, "unknown_model_id", "model_id"),
    "infer without context": (INFER, {}, 400, "invalid_input", "context"),
    "infer without rows": (
        INFER, {"context": {"user_id": "7"}}, 400, "invalid_input", "context.product_id"),
    "infer of no rows": (
        INFER, {"context": {"user_id": "7", "product_id": []}}, 400, "invalid_input",
        "context.product_id"),
    "infer of a row that is not in a list": (
        INFER, {"context": {"user_id": "7", "product_id": "1"}}, 400, "invalid_input",
        "context.product_id"),
    "infer for several users": (
        INFER, {"context": {"user_id": ["7"], "product_id": ["1"]}}, 400, "invalid_input",
        "context.user_id"),
    "infer with an unknown id": (
        INFER, {"context": {**ASK["context"], "item_id": "1"}}, 400, "invalid_input",
        "context.item_id"),
    "infer of an empty id": (
        INFER, {"context": {"user_id": "7", "product_id": ["1", ""]}}, 400, "invalid_input",
        "context.product_id[1]"),
    "infer for an empty user": (
        INFER, {"context": {"user_id": "", "product_id": ["1"]}}, 400, "invalid_input",
        "context.user_id"),
    "infer of an id that is too long": (
        INFER, {"context": {"user_id": "7", "product_id": ["1", "x" * 401]}}, 413, "too_large",
        "context.product_id[1]"),
    "infer of too many rows": (
        INFER, {"context": {"user_id": "7", "product_id": ["1"] * 10_001}}, 413, "too_large",
        "context.product_id"),
    "top_k of zero": (INFER, {**ASK, "top_k": 0}, 400, "invalid_input", "top_k"),
    "top_k that is text": (INFER, {**ASK, "top_k": "5"}, 400, "invalid_input", "top_k"),
    "an unknown return": (
        INFER, {**ASK, "return": ["outputs", "all"]}, 400, "invalid_input", "return[1]"),
    "a return that is not a list": (
        INFER, {**ASK, "return": "outputs"}, 400, "invalid_input", "return"),
    "an unknown input": (
        INFER, {**ASK, "inputs": {"similer": 1}}, 400, "invalid_input", "inputs.similer"),
    "an input of the wrong length": (
        INFER, {**ASK, "inputs": {"similar": [1, 2]}}, 400, "invalid_input", "inputs.similar"),
    "an empty input": (
        INFER, {**ASK, "inputs": {"similar": []}}, 400, "invalid_input", "inputs.similar"),
    "an input beyond float32": (
        INFER, {**ASK, "inputs": {"similar": 1e300}}, 400, "invalid_input", "inputs.similar"),
    "inputs that are a list": (
        INFER, {**ASK, "inputs": [1, 2, 3]}, 400, "invalid_input", "inputs"),
    "an unknown field of infer": (INFER, {**ASK, "topk": 5}, 400, "invalid_input", "topk"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "code", "field"), BAD.values(), ids=BAD.keys())
async def test_a_bad_request_is_refused_and_its_field_named(
    client: httpx.AsyncClient, path: str, body: Any, status: int, code: str, field: str
) -> None:
    assert await refused(client, "POST", path, body) == (status, code, field)


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"context": {"user_id": 7.5, "product_id": ["1"]}}, "context.user_id"),
        ({"context": {"user_id": None, "product_id": ["1"]}}, "context.user_id"),
        ({"context": {"user_id": "7", "product_id": ["1", 2.5]}}, "context.product_id[1]"),
        ({**ASK, "inputs": {"similar": "1"}}, "inputs.similar"),
        ({**ASK, "inputs": {"similar": [1, None, 3]}}, "inputs.similar[1]"),
        ({**ASK, "inputs": {"similar": [1, "NaN", 3]}}, "inputs.similar[1]"),
        ({**ASK, "inputs": {"similar": 10**400}}, "inputs.similar"),
    ],
    ids=lambda value: str(value)[-40:],
)
async def test_a_wrong_type_within_a_mapping_is_named_by_its_key(
    client: httpx.AsyncClient, body: Any, field: str
) -> None:
    assert await refused(client, "POST", INFER, body) == (400, "invalid_input", field)


async def test_a_matrix_that_is_too_large_is_refused(
    client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "MAX_CELLS", 20)
    assert (await client.post(INFER, json=ASK)).status_code == 200
    matrix = {**ASK, "return": ["matrix"]}
    assert await refused(client, "POST", INFER, matrix) == (413, "too_large", "return")
    monkeypatch.setattr(byte_limit, "MAX_READ_BYTES", 80)
    assert await refused(client, "POST", INFER, ASK) == (413, "too_large", "context.product_id")
