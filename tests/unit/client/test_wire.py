"""Requests as the client encodes them and the edge reads them, and values that are refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import orjson
import pytest

from kirana.client import wire
from kirana.codecs import Column
from kirana.edge import messages
from kirana.edge.protobuf import decode
from kirana.errors import InvalidInput
from kirana.interactions import Event

CTR = np.array([0.25, 0.5], dtype=np.float32)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("7", "7"),
        (7, 7),
        (-7, -7),
        (["1", "2"], ["1", "2"]),
        ([1, 2], [1, 2]),
        ([1, "b"], ["1", "b"]),
        (["7"], ["7"]),
        ("", ""),
        ("né/|\\%\n", "né/|\\%\n"),
        ((1, 2), [1, 2]),
    ],
    ids=repr,
)
def test_ids_arrive_as_strings_or_as_integers(given: wire.Ids, expected: object) -> None:
    body = wire.features_get("product", {"product_id": given, "user_id": "u"}, ["stats.ctr"], True)
    message = decode(messages.FeaturesGet, body)
    assert message.keys == {"product_id": expected, "user_id": "u"}
    assert (message.entity, message.features, message.provenance) == (
        "product",
        ["stats.ctr"],
        True,
    )


@pytest.mark.parametrize(
    "given",
    [None, 1.5, True, b"12", [1.5], [None], [b"1"], [["1"]], "\ud800", 1 << 64],
    ids=repr,
)
def test_an_invalid_id_is_refused_and_named(given: Any) -> None:
    with pytest.raises(InvalidInput) as caught:
        wire.features_get("product", {"product_id": given}, ["stats.ctr"], False)
    assert caught.value.field == "keys.product_id"


@pytest.mark.parametrize("event_time", [None, 5, [5, 6]], ids=repr)
def test_a_put_of_arrays_is_binary(event_time: wire.Times) -> None:
    title = Column(np.array(["né", ""], dtype=object), np.array([False, True]))
    columns = {"ctr": CTR, "title": title}
    body, binary = wire.features_put("a.b", {"id": ["1", "2"]}, columns, event_time, 3)
    message = decode(messages.FeaturesPut, body)
    assert binary
    assert (message.group, message.keys) == ("a.b", {"id": ["1", "2"]})
    assert (message.event_time, message.schema_version) == (event_time, 3)
    received: dict[str, Any] = message.columns
    assert received["ctr"].values.tolist() == CTR.tolist()
    assert received["title"].values.tolist() == ["né", ""]
    assert received["title"].nulls.tolist() == [False, True]


def test_a_put_with_a_list_is_json() -> None:
    nulls = np.array([False, True])
    columns = {
        "ctr": [0.5, None],
        "share": np.array([np.nan, -np.inf]),
        "stock": Column(np.array([True, False]), nulls),
    }
    body, binary = wire.features_put("a.b", {"id": [1, 2]}, columns, 5, None)
    assert not binary
    assert orjson.loads(body) == {
        "group": "a.b",
        "keys": {"id": [1, 2]},
        "columns": {"ctr": [0.5, None], "share": ["NaN", "-Infinity"], "stock": [True, None]},
        "event_time": 5,
    }


def test_events_arrive_as_they_were_given() -> None:
    events = [
        Event("7", "click", "1", 5),
        Event("8", "order", "né", 6, {"price": 9.5}),
        Event("7", "click", "1", 7, {}),
    ]
    posted = decode(messages.InteractionsPost, wire.interactions_post(events)).events
    received = [
        Event(
            str(message.user_id),
            message.event,
            str(message.product_id),
            message.timestamp,
            message.metadata,
        )
        for message in posted
    ]
    assert received == events


def test_bounds_that_are_not_given_are_not_sent() -> None:
    body = wire.interactions_query([7, "8"], ["click"], {"last": None, "since": 0, "until": 9})
    message = decode(messages.InteractionsQuery, body)
    assert (message.user_ids, message.events) == (["7", "8"], ["click"])
    assert (message.last, message.since, message.until, message.limit) == (None, 0, 9, None)


def test_an_infer_request_arrives_with_all_fields() -> None:
    inputs: dict[str, Any] = {"similar": [0.5, 1], "hour": 7, "price": CTR}
    body = wire.infer({"user_id": 7, "product_id": ["1", "2"]}, inputs, 5, ["matrix"])
    message = decode(messages.Infer, body)
    assert message.context == {"user_id": 7, "product_id": ["1", "2"]}
    assert (message.top_k, message.returned) == (5, ["matrix"])
    received: dict[str, Any] = message.inputs
    assert {name: array.tolist() for name, array in received.items()} == {
        "similar": [0.5, 1.0],
        "hour": 7,
        "price": CTR.tolist(),
    }
    assert decode(messages.Infer, wire.infer({}, {}, None, [])).top_k is None


UNSENDABLE: dict[str, Callable[[], object]] = {
    "metadata that is not JSON": lambda: wire.interactions_post(
        [Event("7", "click", "1", 5, {"shop": object()})]
    ),
    "a timestamp beyond 64 bits": lambda: wire.interactions_post(
        [Event("7", "click", "1", 1 << 70)]
    ),
    "a count beyond 64 bits": lambda: wire.interactions_query(["7"], ["click"], {"last": 1 << 70}),
    "a top_k beyond 64 bits": lambda: wire.infer({}, {}, 1 << 70, []),
    "a negative schema version": lambda: wire.features_put("a.b", {}, {"ctr": CTR}, None, -1),
    "an input of strings": lambda: wire.infer({}, {"x": ["a"]}, None, []),
    "a ragged input": lambda: wire.infer({}, {"x": [[1.0], [2.0, 3.0]]}, None, []),
    "a column of complex numbers": lambda: wire.features_put(
        "a.b", {}, {"ctr": np.array([1j])}, None, None
    ),
    "None in an array of strings": lambda: wire.features_put(
        "a.b", {}, {"title": np.array(["a", None], dtype=object)}, None, None
    ),
    "bytes in a list": lambda: wire.features_put("a.b", {}, {"title": [b"x"]}, None, None),
    "half a surrogate pair in a name": lambda: wire.features_get("\ud800", {}, [], False),
    "half a surrogate pair in a path": lambda: wire.path_of("v1", "interactions", "\ud800"),
    "a context that is not JSON": lambda: wire.json_body({"context": {"user_id": {1, 2}}}),
}


@pytest.mark.parametrize("send", UNSENDABLE.values(), ids=UNSENDABLE)
def test_a_value_that_can_not_be_sent_is_refused(send: Callable[[], object]) -> None:
    with pytest.raises(InvalidInput):
        send()


def test_an_array_of_strings_is_sent_as_a_string_column() -> None:
    body, _ = wire.features_put("a.b", {"id": "1"}, {"title": np.array(["né", "b"])}, None, None)
    received: dict[str, Any] = decode(messages.FeaturesPut, body).columns
    assert received["title"].values.tolist() == ["né", "b"]


def test_times_may_be_an_array() -> None:
    times: Any = np.array([5, 6])
    body, _ = wire.features_put("a.b", {"id": ["1", "2"]}, {"ctr": CTR}, times, None)
    assert decode(messages.FeaturesPut, body).event_time == [5, 6]


@pytest.mark.parametrize(
    ("segment", "path"),
    [
        ("a/b", "/v1/x/a%2Fb"),
        ("a%2Fb", "/v1/x/a%252Fb"),
        ("né ?#&+", "/v1/x/n%C3%A9%20%3F%23%26%2B"),
        ("", "/v1/x/"),
        ("..", "/v1/x/.."),
    ],
)
def test_a_segment_of_a_path_is_escaped(segment: str, path: str) -> None:
    assert wire.path_of("v1", "x", segment) == path


def test_the_columns_of_a_flow_reply_are_arrays() -> None:
    output = {
        "ids": ["1", "2"],
        "scores": [0.5, "NaN"],
        "clicks": [7, 8],
        "in_stock": [True, False],
        "title": ["a", "NaN"],
        "price": [1.5, None],
        "taste": [[1.0, 2.0], [3.0, 4.0]],
    }
    reply = wire.flow_reply(orjson.dumps({"output": output, "revision": 4}))
    assert (reply.ids, reply.trace, reply.revision) == (["1", "2"], [], 4)
    assert list(reply.columns) == [name for name in output if name != "ids"]
    assert reply.columns["scores"].dtype == np.float64
    assert np.isnan(reply.columns["scores"][1])
    assert reply.columns["clicks"].dtype == np.int64
    assert reply.columns["in_stock"].dtype == np.bool_
    for name in ("title", "price", "taste"):
        assert reply.columns[name].tolist() == output[name]
    empty = wire.flow_reply(b'{"output": {"ids": [], "scores": []}, "revision": 4}')
    assert empty.columns["scores"].dtype == np.float64
