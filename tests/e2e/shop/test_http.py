"""The HTTP API of a running Kirana."""

from __future__ import annotations

import httpx
import pytest

from tests.e2e.shop_requests import BAD, NOW_MS, READS, WRITES, Call, expected_scores


@pytest.fixture(scope="module", autouse=True)
def _filled(client: httpx.Client) -> None:
    for call in WRITES:
        assert call.send(client).status_code == 200


def test_each_part_of_the_edge_reports_its_state(client: httpx.Client) -> None:
    reply = client.get("/healthz")
    assert reply.status_code == 200
    assert reply.json()["status"] == "ok"
    assert {name: part["state"] for name, part in reply.json()["parts"].items()} == {
        "features": "ok",
        "interactions": "ok",
        "flows": "ok",
        "inferflow": "ok",
        "catalog": "ok",
    }


@pytest.mark.parametrize("door", ["front door", "direct port"])
@pytest.mark.parametrize("path", ["/healthz", "/nothing"])
def test_a_reply_has_one_header_with_the_request_id(
    client: httpx.Client, door: str, path: str
) -> None:
    direct = client.get("/v1/endpoints").json()["endpoints"][0]["url"]
    url = path if door == "front door" else f"{direct}{path}"
    given = client.get(url, headers={"x-request-id": "from-the-gateway"})
    assert given.headers.get_list("x-request-id") == ["from-the-gateway"]
    (generated,) = client.get(url).headers.get_list("x-request-id")
    assert generated


def test_features_come_back_with_dtype_and_status(client: httpx.Client) -> None:
    reply = READS[0].send(client).json()
    assert reply["dtypes"] == ["float32", "string", "bool", "int32[4]"]
    assert reply["values"] == [
        [0.0, "product 1", True, [2, 3, 4, 5]],
        [0.0625, "product 2", False, [3, 4, 5, 6]],
        [0.5, "?", True, [0, 0, 0, 0]],
    ]
    assert reply["status"] == {
        "stats": ["ok", "ok", "missing"],
        "attrs": ["ok", "ok", "missing"],
        "similar": ["ok", "ok", "missing"],
    }


def test_interactions_come_newest_first(client: httpx.Client) -> None:
    reply = client.get("/v1/interactions/7/click?last=2").json()
    assert [entry["product_id"] for entry in reply["interactions"]] == ["3", "2"]
    ranged = client.get(f"/v1/interactions/7/click?since={NOW_MS + 1}&until={NOW_MS + 2}").json()
    assert [entry["timestamp"] for entry in ranged["interactions"]] == [NOW_MS + 2, NOW_MS + 1]


def test_infer_scores_the_matrix_that_it_returns(client: httpx.Client) -> None:
    reply = READS[6].send(client).json()
    assert reply["ids"] == ["3", "1", "nobody"]
    matrix = reply["matrix"]["rows"]
    # Columns: similar, age, ctr, clicks, in_stock, category share, clicks of user and category.
    assert matrix[0] == [0.5, 41.0, 0.125, 2.0, 1.0, 0.25, 3.0]
    assert matrix[1] == [1.0, 41.0, 0.0, 0.0, 1.0, 0.25, 1.0]
    assert matrix[2] == [2.5, 41.0, 0.5, 0.0, 1.0, 0.25, -1.0]
    assert reply["scores"] == pytest.approx(expected_scores(matrix), rel=1e-5)
    assert reply["defaults"]["product.stats"] == 1


def test_a_flow_recommends_similar_products_that_are_unseen(client: httpx.Client) -> None:
    reply = client.post("/v1/flows/for_you", json={"context": {"user_id": 7}, "trace": True}).json()
    ids = reply["output"]["ids"]
    assert len(ids) == 3
    assert not {"1", "2", "3"} & set(ids)
    assert reply["output"]["scores"] == sorted(reply["output"]["scores"], reverse=True)
    assert {span["node"] for span in reply["trace"]} == {
        "recent",
        "seen",
        "similar",
        "unseen",
        "ranked",
        "top",
    }


@pytest.mark.parametrize(("call", "status", "code", "field"), BAD)
def test_bad_input_is_refused_with_the_expected_code_and_field(
    client: httpx.Client, call: Call, status: int, code: str, field: str | None
) -> None:
    reply = call.send(client)
    assert reply.status_code == status
    error = reply.json()["error"]
    assert (error["code"], error["field"]) == (code, field)
    assert "Traceback" not in reply.text


def test_broken_json_is_a_400_and_the_server_stays_healthy(client: httpx.Client) -> None:
    headers = {"content-type": "application/json"}
    for body in (b"{", b'{"context": {', b"\xff\xfe", b"", b'{"context": NaN}'):
        reply = client.post("/v1/flows/for_you", content=body, headers=headers)
        assert reply.status_code == 400
        assert reply.json()["error"]["code"] == "invalid_json"
    assert client.get("/healthz").status_code == 200


def test_a_body_over_the_limit_is_a_413(client: httpx.Client) -> None:
    body = b'{"context": {"user_id": "' + b"x" * (9 << 20) + b'"}}'
    reply = client.post(
        "/v1/flows/for_you", content=body, headers={"content-type": "application/json"}
    )
    assert reply.status_code == 413
    assert client.get("/healthz").status_code == 200


def test_an_id_may_contain_a_slash(client: httpx.Client) -> None:
    event = {"user_id": "a/b", "event": "click", "product_id": "c|d", "timestamp": NOW_MS}
    assert client.post("/v1/interactions", json={"events": [event]}).status_code == 200
    reply = client.get("/v1/interactions/a%2Fb/click").json()
    assert reply["interactions"] == [{"product_id": "c|d", "timestamp": NOW_MS}]
    assert client.delete("/v1/interactions/a%2Fb").json() == {"deleted": 1}
    assert client.get("/v1/interactions/a%2Fb/click").json() == {"interactions": []}
