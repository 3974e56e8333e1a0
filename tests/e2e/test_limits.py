"""Limits in both placements: a slow model, a large write and a large reply."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import httpx
import pytest

from tests.e2e.starts import kirana_up
from tests.slow_shop import (
    HASTY,
    HASTY_REQUEST,
    HISTORY,
    INFER,
    INFER_REQUEST,
    states_of,
    write_slow_shop,
)

SIZE = 7_000
"""The size of the slow model's matrices. One run must take longer than three other requests."""


@pytest.fixture(scope="module", params=["fused", "spread"])
def client(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Iterator[httpx.Client]:
    """Yield a client of a shop whose click model is slow, with a history of user 7."""
    folder = write_slow_shop(tmp_path_factory.mktemp("limits") / "shop", SIZE)
    with kirana_up(folder, "--placement", request.param) as served:
        for path, body in HISTORY:
            assert served.client.post(path, json=body).status_code == 200
        yield served.client


def test_a_slow_run_does_not_delay_deadlines_fallbacks_or_health_checks(
    client: httpx.Client,
) -> None:
    began = threading.Event()

    def infer() -> httpx.Response:
        began.set()
        return client.post(INFER, json=INFER_REQUEST, headers={"x-kirana-timeout-ms": "60000"})

    with ThreadPoolExecutor(1) as pool:
        slow: Future[httpx.Response] = pool.submit(infer)
        began.wait()
        late = client.post(INFER, json=INFER_REQUEST, headers={"x-kirana-timeout-ms": "100"})
        assert (late.status_code, late.json()["error"]["code"]) == (504, "deadline_exceeded")
        flow = client.post(HASTY, json=HASTY_REQUEST)
        assert (flow.status_code, states_of(flow.json())["ranked"]) == (200, "fallback")
        assert client.get("/healthz").status_code == 200
        assert not slow.done()
        assert slow.result().status_code == 200


def test_a_large_write_and_a_large_reply_are_not_refused(client: httpx.Client) -> None:
    keys = {"product_id": [str(key) for key in range(10_000, 18_000)]}
    titles = [f"{key:0900}" for key in range(8_000)]
    columns = {"title": titles, "category_id": [1] * 8_000, "in_stock": [True] * 8_000}
    rows = {"group": "product.attrs", "keys": keys, "columns": columns}
    written = client.post("/v1/features/put", json=rows)
    assert (written.status_code, written.json()["written"]) == (200, 8_000)
    read = {"entity": "product", "keys": keys, "features": ["attrs.title"]}
    reply = client.post("/v1/features/get", json=read)
    assert reply.status_code == 200
    assert [title for (title,) in reply.json()["values"]] == titles


@pytest.mark.parametrize("accept", ["application/json", "application/x-protobuf"])
def test_a_reply_over_the_limit_is_refused_and_part_of_it_is_not(
    client: httpx.Client, accept: str
) -> None:
    """The rows have 76 MB in all, the limit is 64 MiB. A body may have 8 MiB."""
    ids = [str(key) for key in range(20_000, 20_400)]
    for start in range(0, 400, 40):
        columns = {"title": ["x" * 190_000] * 40, "category_id": [1] * 40, "in_stock": [True] * 40}
        rows = {
            "group": "product.attrs",
            "keys": {"product_id": ids[start : start + 40]},
            "columns": columns,
        }
        assert client.post("/v1/features/put", json=rows).status_code == 200
    for count, status in ((400, 413), (200, 200)):
        keys = {"product_id": ids[:count]}
        read = {"entity": "product", "keys": keys, "features": ["attrs.title"]}
        reply = client.post("/v1/features/get", json=read, headers={"accept": accept})
        assert reply.status_code == status
        if status == 413:
            error = reply.json()["error"]
            assert (error["code"], error["field"]) == ("too_large", "keys")
