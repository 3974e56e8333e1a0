"""`/v1/features/...`: rows are stored and returned, and bad requests are refused."""

from __future__ import annotations

import time
from typing import Any

import httpx
import pytest

from kirana import byte_limit
from kirana.edge.handlers import features as handlers
from kirana.edge.limits import MAX_KEYS
from tests.support import Shop
from tests.unit.edge.conftest import client_of, refused

DAY_MS = 86_400_000
SENT_MS, FUTURE_MS = 1_700_000_000_000, 10**14
GET, PUT, DELETE = "/v1/features/get", "/v1/features/put", "/v1/features/delete"
STATS: dict[str, Any] = {
    "group": "product.stats",
    "keys": {"product_id": ["1", "2"]},
    "columns": {"clicks": [3, 4], "ctr": [0.1, 0.25]},
}
ATTRS: dict[str, Any] = {
    "group": "product.attrs",
    "keys": {"product_id": ["1", "2"]},
    "columns": {"title": ["Chai ☕", ""], "category_id": [7, 0], "in_stock": [False, True]},
}
SIMILAR: dict[str, Any] = {
    "group": "product.similar",
    "keys": {"product_id": ["1"]},
    "columns": {"ids": [[1, 2, 3, 4]], "weights": [[0.5, 0.25, 0, "NaN"]]},
}
AFFINITY: dict[str, Any] = {
    "group": "user_category.affinity",
    "keys": {"user_id": "7", "category_id": [1, 2]},
    "columns": {"clicks": [1.0, 2.0]},
}
ASK: dict[str, Any] = {
    "entity": "product",
    "keys": {"product_id": ["1", "2"]},
    "features": ["stats.ctr"],
}


async def post(client: httpx.AsyncClient, path: str, body: Any) -> Any:
    """Send JSON, and return the reply, which must have status 200."""
    response = await client.post(path, json=body)
    assert response.status_code == 200, response.text
    return response.json()


async def test_values_are_returned_with_their_dtypes(client: httpx.AsyncClient) -> None:
    assert await post(client, PUT, STATS) == {"written": 2, "stale": 0, "expired": 0}
    await post(client, PUT, ATTRS)
    await post(client, PUT, SIMILAR)
    features = ["stats.ctr", "stats.clicks", "attrs.title", "attrs.in_stock", "similar.weights"]
    keys = {"product_id": [2, "1", "x"]}
    reply = await post(client, GET, {"entity": "product", "keys": keys, "features": features})
    assert reply == {
        "features": features,
        "dtypes": ["float32", "int32", "string", "bool", "float32[4]"],
        "values": [
            [0.25, 4, "", True, [0.0, 0.0, 0.0, 0.0]],
            [0.1, 3, "Chai ☕", False, [0.5, 0.25, 0.0, "NaN"]],
            [0.5, 0, "?", True, [0.0, 0.0, 0.0, 0.0]],
        ],
        "status": {
            "stats": ["ok", "ok", "missing"],
            "attrs": ["ok", "ok", "missing"],
            "similar": ["missing", "ok", "missing"],
        },
        "revision": 1,
    }


async def test_features_of_one_dtype_are_returned_as_rows(client: httpx.AsyncClient) -> None:
    await post(client, PUT, STATS)
    assert (await post(client, GET, ASK))["values"] == [[0.1], [0.25]]
    reply = await post(client, GET, {**ASK, "features": ["stats.ctr", "stats.ctr"]})
    assert reply["values"] == [[0.1, 0.1], [0.25, 0.25]]


async def test_non_finite_floats_are_returned_as_strings(client: httpx.AsyncClient) -> None:
    columns = {"clicks": [1, 2, 3], "ctr": ["NaN", "Infinity", "-Infinity"]}
    await post(client, PUT, {**STATS, "keys": {"product_id": [1, 2, 3]}, "columns": columns})
    reply = await post(client, GET, {**ASK, "keys": {"product_id": [1, 2, 3]}})
    assert reply["values"] == [["NaN"], ["Infinity"], ["-Infinity"]]
    reply = await post(client, GET, {**ASK, "features": ["stats.ctr", "stats.clicks"]})
    assert reply["values"] == [["NaN", 1], ["Infinity", 2]]


async def test_a_stored_null_is_returned_as_null(client: httpx.AsyncClient) -> None:
    columns = {"clicks": [None, 4], "ctr": [0.5, None]}
    await post(client, PUT, {**STATS, "columns": columns})
    reply = await post(client, GET, {**ASK, "features": ["stats.ctr", "stats.clicks"]})
    assert reply["values"] == [[0.5, None], [None, 4]]
    assert reply["status"] == {"stats": ["ok", "ok"]}


async def test_large_integers_keep_every_digit(client: httpx.AsyncClient) -> None:
    largest = 2**63 - 1
    columns = {
        "title": ["a", "b"],
        "category_id": [largest, -largest - 1],
        "in_stock": [True, True],
    }
    await post(client, PUT, {**ATTRS, "columns": columns})
    reply = await post(client, GET, {**ASK, "features": ["attrs.category_id"]})
    assert reply["values"] == [[largest], [-largest - 1]]


async def test_a_single_id_applies_to_all_rows(client: httpx.AsyncClient) -> None:
    await post(client, PUT, AFFINITY)
    ask = {"entity": "user_category", "features": ["affinity.clicks"]}
    keys: dict[str, Any] = {"user_id": 7, "category_id": ["2", 1, 3]}
    assert (await post(client, GET, {**ask, "keys": keys}))["values"] == [[2.0], [1.0], [-1.0]]
    keys = {"user_id": ["7", "8"], "category_id": 1}
    assert (await post(client, GET, {**ask, "keys": keys}))["values"] == [[1.0], [-1.0]]
    keys = {"user_id": "7", "category_id": 2}
    assert (await post(client, GET, {**ask, "keys": keys}))["values"] == [[2.0]]


async def test_a_request_may_repeat_a_key(client: httpx.AsyncClient) -> None:
    await post(client, PUT, STATS)
    reply = await post(client, GET, {**ASK, "keys": {"product_id": ["2", "1", 2]}})
    assert reply["values"] == [[0.25], [0.1], [0.25]]


@pytest.mark.parametrize("product", ["a/b|c\\d", "\0", "é🛒", " ", "x" * 400, "f:product.stats:1"])
async def test_a_key_may_contain_separators_nul_and_unicode(
    client: httpx.AsyncClient, product: str
) -> None:
    keys = {"product_id": [product, "other"]}
    await post(client, PUT, {**STATS, "keys": keys})
    assert (await post(client, GET, {**ASK, "keys": keys}))["values"] == [[0.1], [0.25]]


async def test_an_older_write_is_stale(client: httpx.AsyncClient) -> None:
    now = int(time.time() * 1000)
    await post(client, PUT, {**STATS, "event_time": now})
    older = {
        **STATS,
        "columns": {"clicks": [0, 0], "ctr": [0, 0]},
        "event_time": [now - 1, now + 1],
    }
    assert await post(client, PUT, older) == {"written": 1, "stale": 1, "expired": 0}
    assert (await post(client, GET, ASK))["values"] == [[0.1], [0.0]]


async def test_a_deleted_row_is_missing_and_older_writes_do_not_restore_it(
    client: httpx.AsyncClient,
) -> None:
    now = int(time.time() * 1000)
    await post(client, PUT, {**STATS, "event_time": now})
    body = {"group": "product.stats", "keys": {"product_id": "1"}, "event_time": now}
    assert await post(client, DELETE, body) == {"deleted": 1, "stale": 0}
    again = await post(client, PUT, {**STATS, "event_time": now})
    assert again == {"written": 1, "stale": 1, "expired": 0}
    reply = await post(client, GET, ASK)
    assert reply["status"] == {"stats": ["missing", "ok"]}
    assert reply["values"] == [[0.5], [0.25]]
    older = {**body, "event_time": now - 1}
    assert await post(client, DELETE, older) == {"deleted": 0, "stale": 1}


async def test_provenance_says_where_each_cell_comes_from(client: httpx.AsyncClient) -> None:
    now = int(time.time() * 1000)
    columns = {"clicks": [None], "ctr": [0.5]}
    keys = {"product_id": ["1"]}
    body = {**STATS, "keys": keys, "columns": columns, "event_time": now - 60_000}
    await post(client, PUT, body)
    reply = await post(
        client, GET, {**ASK, "features": ["stats.ctr", "stats.clicks"], "provenance": True}
    )
    assert reply["provenance"] == {
        "stats.ctr": ["stored", "no_row"],
        "stats.clicks": ["null", "no_row"],
    }
    age_ms, no_age = reply["age_ms"]["stats"]
    assert age_ms >= 60_000
    assert no_age is None


async def test_an_expired_row_reads_as_defaults_with_the_status_expired(
    client: httpx.AsyncClient,
) -> None:
    eight_days_ago = int(time.time() * 1000) - 8 * DAY_MS
    written = await post(client, PUT, {**STATS, "event_time": eight_days_ago})
    assert written == {"written": 0, "stale": 0, "expired": 2}
    reply = await post(client, GET, ASK)
    assert reply["status"] == {"stats": ["expired", "expired"]}
    assert reply["values"] == [[0.5], [0.5]]


async def test_rows_of_one_put_may_be_written_stale_and_expired(client: httpx.AsyncClient) -> None:
    now = int(time.time() * 1000)
    await post(client, PUT, {**STATS, "event_time": now})
    keys, columns = {"product_id": ["3", "1", "4", "2"]}, {"clicks": [9] * 4, "ctr": [0.75] * 4}
    times = [now, now - 1, now - 8 * DAY_MS, now - 8 * DAY_MS]
    put = {**STATS, "keys": keys, "columns": columns, "event_time": times}
    assert await post(client, PUT, put) == {"written": 1, "stale": 1, "expired": 2}
    reply = await post(client, GET, {**ASK, "keys": keys})
    assert reply["status"] == {"stats": ["ok", "ok", "expired", "ok"]}
    assert reply["values"] == [[0.75], [0.1], [0.5], [0.25]]


BAD: dict[str, tuple[str, Any, int, str, str]] = {
    "get without an entity": (GET, {"keys": {}, "features": []}, 400, "invalid_input", "entity"),
    "get without keys": (GET, {"entity": "a", "features": []}, 400, "invalid_input", "keys"),
    "get with an unknown field": (GET, {**ASK, "kees": {}}, 400, "invalid_input", "kees"),
    "get of a number as entity": (GET, {**ASK, "entity": 5}, 400, "invalid_input", "entity"),
    "get of an unknown entity": (
        GET, {**ASK, "entity": "produkt"}, 404, "unknown_entity", "entity"),
    "get of no features": (GET, {**ASK, "features": []}, 400, "invalid_input", "features"),
    "get of a feature that is not in a list": (
        GET, {**ASK, "features": "stats.ctr"}, 400, "invalid_input", "features"),
    "get of a number as feature": (
        GET, {**ASK, "features": ["stats.ctr", 1]}, 400, "invalid_input", "features[1]"),
    "get of an unknown feature": (
        GET, {**ASK, "features": ["stats.ctr", "stats.crt"]}, 404, "unknown_feature",
        "features[1]"),
    "get of an unknown group": (
        GET, {**ASK, "features": ["stat.ctr"]}, 404, "unknown_feature", "features[0]"),
    "get of a whole group": (
        GET, {**ASK, "features": ["stats"]}, 404, "unknown_feature", "features[0]"),
    "get of an empty name": (GET, {**ASK, "features": [""]}, 404, "unknown_feature", "features[0]"),
    "get with the entity before the group": (
        GET, {**ASK, "features": ["product.stats.ctr"]}, 404, "unknown_feature", "features[0]"),
    "get with provenance that is not a boolean": (
        GET, {**ASK, "provenance": "yes"}, 400, "invalid_input", "provenance"),
    "get of keys that are a list": (GET, {**ASK, "keys": ["1"]}, 400, "invalid_input", "keys"),
    "get without its key": (GET, {**ASK, "keys": {}}, 400, "invalid_input", "keys.product_id"),
    "get with an unknown key": (
        GET, {**ASK, "keys": {"product_id": "1", "id": "1"}}, 400, "invalid_input", "keys.id"),
    "get of no keys": (
        GET, {**ASK, "keys": {"product_id": []}}, 400, "invalid_input", "keys.product_id"),
    "get of an empty id": (
        GET, {**ASK, "keys": {"product_id": ["1", ""]}}, 400, "invalid_input",
        "keys.product_id[1]"),
    "get of a long id": (
        GET, {**ASK, "keys": {"product_id": ["1", "é" * 201]}}, 413, "too_large",
        "keys.product_id[1]"),
    "get of an id that is not an integer": (
        GET,
        {"entity": "category", "keys": {"category_id": [1, "books"]}, "features": ["stats.share"]},
        400, "invalid_input", "keys.category_id[1]"),
    "get of an id beyond its dtype": (
        GET,
        {"entity": "category", "keys": {"category_id": [2**63]}, "features": ["stats.share"]},
        400, "invalid_input", "keys.category_id[0]"),
    "get by half of a compound key": (
        GET,
        {"entity": "user_category", "keys": {"user_id": "7"}, "features": ["affinity.clicks"]},
        400, "invalid_input", "keys.category_id"),
    "get by lists of different lengths": (
        GET,
        {
            "entity": "user_category",
            "keys": {"user_id": ["7", "8"], "category_id": [1]},
            "features": ["affinity.clicks"],
        },
        400, "invalid_input", "keys.category_id"),
    "put without a group": (PUT, {"keys": {}, "columns": {}}, 400, "invalid_input", "group"),
    "put into an unknown group": (
        PUT, {**STATS, "group": "product.stat"}, 404, "unknown_feature_group", "group"),
    "put without a feature": (
        PUT, {**STATS, "columns": {"clicks": [1, 2]}}, 400, "invalid_input", "columns.ctr"),
    "put without columns": (PUT, {**STATS, "columns": {}}, 400, "invalid_input", "columns.clicks"),
    "put of an unknown feature": (
        PUT, {**STATS, "columns": {**STATS["columns"], "crt": [1, 2]}}, 404, "unknown_feature",
        "columns.crt"),
    "put of a column that is too short": (
        PUT, {**STATS, "columns": {"clicks": [1, 2], "ctr": [1]}}, 400, "invalid_input",
        "columns.ctr"),
    "put of an unknown schema version": (
        PUT, {**STATS, "schema_version": 2}, 400, "invalid_input", "schema_version"),
    "put of schema version zero": (
        PUT, {**STATS, "schema_version": 0}, 400, "invalid_input", "schema_version"),
    "put of a time that is text": (
        PUT, {**STATS, "event_time": "now"}, 400, "invalid_input", "event_time"),
    "put of a time before 1970": (
        PUT, {**STATS, "event_time": -1}, 400, "invalid_input", "event_time"),
    "put of a time beyond 64 bits": (
        PUT, {**STATS, "event_time": 10**30}, 400, "invalid_input", "event_time"),
    "put of a time in the future": (
        PUT, {**STATS, "event_time": FUTURE_MS}, 400, "invalid_input", "event_time"),
    "put of times in the future": (
        PUT, {**STATS, "event_time": [SENT_MS, FUTURE_MS]}, 400, "invalid_input", "event_time[1]"),
    "put of too few times": (
        PUT, {**STATS, "event_time": [SENT_MS]}, 400, "invalid_input", "event_time"),
    "put of times before 1970": (
        PUT, {**STATS, "event_time": [SENT_MS, -1]}, 400, "invalid_input", "event_time[1]"),
    "put to no keys": (
        PUT, {**STATS, "keys": {"product_id": []}}, 400, "invalid_input", "keys.product_id"),
    "delete without keys": (
        DELETE, {"group": "product.stats"}, 400, "invalid_input", "keys"),
    "delete from an unknown group": (
        DELETE, {"group": "a.b", "keys": {"product_id": "1"}}, 404, "unknown_feature_group",
        "group"),
    "delete of no keys": (
        DELETE, {"group": "product.stats", "keys": {"product_id": []}}, 400, "invalid_input",
        "keys.product_id"),
    "delete in the future": (
        DELETE,
        {
            "group": "product.stats",
            "keys": {"product_id": ["1", "2"]},
            "event_time": [SENT_MS, FUTURE_MS],
        },
        400, "invalid_input", "event_time[1]"),
    "delete with columns": (
        DELETE, {**STATS}, 400, "invalid_input", "columns"),
}  # fmt: skip


@pytest.mark.parametrize(("path", "body", "status", "code", "field"), BAD.values(), ids=BAD.keys())
async def test_a_bad_request_is_refused_and_its_field_named(
    client: httpx.AsyncClient, path: str, body: Any, status: int, code: str, field: str
) -> None:
    assert await refused(client, "POST", path, body) == (status, code, field)


BAD_VALUES = {
    "text as a number": (STATS, "clicks", "many"),
    "a fraction as an integer": (STATS, "clicks", 1.5),
    "a boolean as an integer": (STATS, "clicks", True),
    "an integer beyond its dtype": (STATS, "clicks", 2**31),
    "an integer below its dtype": (STATS, "clicks", -(2**31) - 1),
    "an integer of 301 digits": (STATS, "clicks", 10**300),
    "a list as a number": (STATS, "clicks", [1]),
    "a mapping as a number": (STATS, "clicks", {"a": 1}),
    "a ragged list as a number": (STATS, "clicks", [[1], [1, 2]]),
    "text as a float": (STATS, "ctr", "0.5"),
    "nan in lower case": (STATS, "ctr", "nan"),
    "a boolean as a float": (STATS, "ctr", False),
    "a float beyond its dtype": (STATS, "ctr", 1e300),
    "an integer beyond all floats": (STATS, "ctr", 10**400),
    "an integer beyond float32": (STATS, "ctr", 10**60),
    "a number as text": (ATTRS, "title", 5),
    "a list as text": (ATTRS, "title", ["a"]),
    "a number as a boolean": (ATTRS, "in_stock", 1),
    "text as a boolean": (ATTRS, "in_stock", "true"),
    "text beyond the limit of a row": (ATTRS, "title", "x" * (1 << 20) + "x"),
    "a number as a vector": (SIMILAR, "ids", 1),
    "a short vector": (SIMILAR, "ids", [1, 2, 3]),
    "a deep vector": (SIMILAR, "ids", [[1, 2, 3, 4]]),
    "a ragged vector": (SIMILAR, "ids", [[1], [1, 2], 3, 4]),
    "a vector with a null": (SIMILAR, "ids", [1, 2, 3, None]),
    "a vector with text": (SIMILAR, "weights", [1, 2, 3, "a"]),
    "a vector beyond its dtype": (SIMILAR, "ids", [1, 2, 3, 2**31]),
}


def nested(depth: int) -> Any:
    """Return a list nested this deep."""
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


BAD_VALUES["a value nested a hundred times"] = (SIMILAR, "ids", nested(100))


@pytest.mark.parametrize(("body", "column", "value"), BAD_VALUES.values(), ids=BAD_VALUES.keys())
async def test_a_value_that_its_feature_can_not_hold_is_named(
    client: httpx.AsyncClient, body: dict[str, Any], column: str, value: Any
) -> None:
    """The value is sent alone, and then after a good one."""
    good = body["columns"][column]
    for position, values in enumerate(([value], [good[0], value])):
        keys = {"product_id": [str(i) for i in range(len(values))]}
        columns = {
            name: [column_values[0]] * len(values)
            for name, column_values in body["columns"].items()
        }
        columns[column] = values
        sent = {**body, "keys": keys, "columns": columns}
        status, _, field = await refused(client, "POST", PUT, sent)
        assert status in (400, 413)
        assert field == f"columns.{column}[{position}]"
    assert (await post(client, GET, ASK))["status"] == {"stats": ["missing", "missing"]}


@pytest.mark.parametrize(
    ("path", "body", "field"),
    [
        (GET, {**ASK, "keys": {"product_id": 1.5}}, "keys.product_id"),
        (GET, {**ASK, "keys": {"product_id": None}}, "keys.product_id"),
        (GET, {**ASK, "keys": {"product_id": ["1", True]}}, "keys.product_id[1]"),
        (GET, {**ASK, "keys": {"product_id": [["1"]]}}, "keys.product_id[0]"),
        (GET, {**ASK, "keys": {"product_id": {"a": 1}}}, "keys.product_id"),
        (PUT, {**STATS, "columns": {"clicks": [1, 2], "ctr": 0.5}}, "columns.ctr"),
        (PUT, {**STATS, "columns": {"clicks": [1, 2], "ctr": None}}, "columns.ctr"),
        (DELETE, {"group": "product.stats", "keys": {"product_id": 1.5}}, "keys.product_id"),
    ],
    ids=lambda value: str(value)[-40:],
)
async def test_a_wrong_type_within_a_mapping_is_named_by_its_key(
    client: httpx.AsyncClient, path: str, body: Any, field: str
) -> None:
    assert await refused(client, "POST", path, body) == (400, "invalid_input", field)


@pytest.mark.parametrize(
    ("keys", "entity", "feature", "field"),
    [
        ({"product_id": ""}, "product", "stats.ctr", "keys.product_id"),
        ({"product_id": "x" * 401}, "product", "stats.ctr", "keys.product_id"),
        ({"category_id": "books"}, "category", "stats.share", "keys.category_id"),
        (
            {"user_id": "", "category_id": [1, 2]},
            "user_category",
            "affinity.clicks",
            "keys.user_id",
        ),
    ],
)
async def test_a_single_id_is_named_without_an_index(
    client: httpx.AsyncClient, keys: Any, entity: str, feature: str, field: str
) -> None:
    body = {"entity": entity, "keys": keys, "features": [feature]}
    status, _, refused_field = await refused(client, "POST", GET, body)
    assert status in (400, 413)
    assert refused_field == field


async def test_requests_over_a_limit_are_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handlers, "MAX_CELLS", 20_000)
    async with client_of(await shop.edge()) as client:
        ids = [str(i) for i in range(MAX_KEYS)]
        ask = {**ASK, "keys": {"product_id": ids}, "features": ["stats.ctr"]}
        assert len((await post(client, GET, ask))["values"]) == MAX_KEYS
        too_large = (413, "too_large", "keys.product_id")
        long = {**ask, "keys": {"product_id": [*ids, "more"]}}
        assert await refused(client, "POST", GET, long) == too_large
        wide = {**ask, "features": ["similar.ids"]}
        assert await refused(client, "POST", GET, wide) == too_large
        many = {"group": "product.stats", "keys": {"product_id": [*ids, "more"]}}
        assert await refused(client, "POST", DELETE, many) == too_large
        assert await refused(client, "POST", PUT, {**many, "columns": {}}) == too_large


@pytest.mark.parametrize("accept", ["application/json", "application/x-protobuf"])
async def test_strings_over_the_limit_are_refused(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, accept: str
) -> None:
    """A string counts as often as the request names its key and its feature."""
    monkeypatch.setattr(byte_limit, "MAX_READ_BYTES", 10_000)
    columns = {"title": ["x" * 1_000] * 12, "category_id": [1] * 12, "in_stock": [True] * 12}
    ids = [str(number) for number in range(12)]
    async with client_of(await shop.edge()) as client:
        await post(client, PUT, {**ATTRS, "keys": {"product_id": ids}, "columns": columns})

        async def read(keys: list[str], features: list[str]) -> tuple[int, str | None]:
            ask = {**ASK, "keys": {"product_id": keys}, "features": features}
            response = await client.post(GET, json=ask, headers={"accept": accept})
            ok = response.status_code == 200
            return response.status_code, None if ok else response.json()["error"]["field"]

        assert await read(ids[:8], ["attrs.title"]) == (200, None)
        assert await read(ids, ["attrs.title"]) == (413, "keys")
        assert await read(ids[:1] * 11, ["attrs.title"]) == (413, "keys")
        assert await read(ids[:6], ["attrs.title"] * 2) == (413, "keys")


async def test_a_refused_put_writes_nothing(client: httpx.AsyncClient) -> None:
    columns = {"clicks": [1, 2], "ctr": [0.5, "x"]}
    await refused(client, "POST", PUT, {**STATS, "columns": columns})
    assert (await post(client, GET, ASK))["status"] == {"stats": ["missing", "missing"]}
