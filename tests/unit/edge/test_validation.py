"""Validation of messages: it refuses exactly what the decoder refuses, and names the field."""

from __future__ import annotations

import copy
from typing import Annotated, Any, Literal

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import Meta

from kirana.edge import messages
from kirana.edge.bodies import decode_json, decode_query
from kirana.edge.errors import HttpError
from kirana.edge.limits import MAX_EVENTS, MAX_KEYS
from kirana.edge.routes import ROUTES
from kirana.edge.validation import MAX_SEARCHED_BYTES, check_bounds, first_error
from kirana.errors import FieldPath, InvalidInput, TooLarge

EVENT = {"user_id": 1, "event": "click", "product_id": "a", "timestamp": 5, "metadata": {"a": [1]}}
VALID: dict[type[msgspec.Struct], dict[str, Any]] = {
    messages.FeaturesGet: {"entity": "a", "keys": {"k": ["1", 2], "l": 3}, "features": ["g.f"]},
    messages.FeaturesPut: {"group": "a.g", "keys": {"k": "1"}, "columns": {"f": [1, None, "x"]}},
    messages.FeaturesDelete: {"group": "a.g", "keys": {"k": [1]}, "event_time": [1, 2]},
    messages.InteractionsPost: {"events": [EVENT, {**EVENT, "metadata": None}]},
    messages.InteractionsQuery: {"user_ids": [1, "b"], "events": ["click"], "last": 3},
    messages.CatalogPut: {"object": {"kind": "flow"}, "expected_revision": 3},
    messages.CatalogPost: {"objects": [{}], "delete": [{"kind": "a", "name": "b"}]},
    messages.FlowRun: {"context": {"user_id": 1}, "trace": True},
    messages.Infer: {
        "context": {"k": [1]}, "inputs": {"i": [0.5, 1], "j": 2}, "top_k": 1, "return": ["matrix"],
    },
}  # fmt: skip
NO_REASON = "the body is not valid"
MESSAGES = pytest.mark.parametrize("message", VALID, ids=lambda message: message.__name__)

SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-3, 20_000),
    st.just(10**400),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(["", "a", "matrix", "outputs"]),
)
ANYTHING = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "name", "k"]), inner, max_size=2)
    ),
    max_leaves=4,
)


@st.composite
def _broken(draw: st.DrawFn, valid: dict[str, Any]) -> Any:
    """Draw a body in which one value, at any depth, is replaced, removed or added."""
    body = copy.deepcopy(valid)
    container: Any = body
    while True:
        key = draw(
            st.sampled_from(
                sorted(container) if isinstance(container, dict) else range(len(container))
            )
        )
        inner = container[key]
        if not (isinstance(inner, dict | list) and inner and draw(st.booleans())):
            break
        container = inner
    match draw(st.sampled_from(["replace", "remove", "add"])):
        case "replace":
            container[key] = draw(ANYTHING)
        case "remove":
            del container[key]
        case "add" if isinstance(container, dict):
            container["another"] = draw(ANYTHING)
        case "add":
            container.append(draw(ANYTHING))
    return body


@MESSAGES
@given(data=st.data())
def test_a_reason_is_given_exactly_if_the_decoder_refuses(
    message: type[msgspec.Struct], data: st.DataObject
) -> None:
    body = data.draw(_broken(VALID[message]) | ANYTHING)
    encoded = msgspec.json.encode(body)
    error = first_error(message, body, encoded)
    try:
        msgspec.json.decode(encoded, type=message)
    except msgspec.ValidationError:
        assert error.message != NO_REASON
        assert error.path or not isinstance(body, dict)
    else:
        assert error.message == NO_REASON


@MESSAGES
def test_a_valid_message_is_within_its_bounds(message: type[msgspec.Struct]) -> None:
    check_bounds(msgspec.convert(VALID[message], message))


def test_every_message_of_a_route_is_covered_here() -> None:
    assert set(VALID) == {route.request for route in ROUTES if route.request is not None}
    for route in ROUTES:
        if route.query is not None:
            check_bounds(route.query())


class Inner(messages.Message):
    number: Annotated[float, Meta(ge=0)]
    more: dict[str, list[Literal["a", "b"]]] = {}


class Outer(messages.Message):
    inner: list[Inner]
    renamed: Annotated[int, Meta(le=5)] | None = msgspec.field(name="re", default=None)


@pytest.mark.parametrize(
    ("outer", "path"),
    [
        (Outer([Inner(0.5), Inner(-0.5)]), ("inner", 1, "number")),
        (Outer([Inner(0, {"k": ["a", "c"]})]), ("inner", 0, "more", "k", 1)),
        (Outer([], 6), ("re",)),
    ],
    ids=str,
)
def test_bounds_are_checked_at_every_depth(outer: Outer, path: FieldPath) -> None:
    check_bounds(Outer([Inner(0.5, {"k": ["a"]})], 5))
    for refuse in (
        lambda: check_bounds(outer),
        lambda: decode_json(Outer, msgspec.json.encode(outer)),
    ):
        with pytest.raises(InvalidInput) as caught:
            refuse()
        assert caught.value.path == path


def test_a_message_with_an_unsupported_field_type_is_refused() -> None:
    class Unsupported(messages.Message):
        pair: tuple[int, int]

    with pytest.raises(TypeError, match="a message can't have a field"):
        check_bounds(Unsupported((1, 2)))


@pytest.mark.parametrize(
    ("body", "path"),
    [
        (b'{"entity": 5, "entity": "a", "keys": {}, "features": ["f"]}', ("entity",)),
        (b'{"entity": "a", "keys": {"k": [], "k": 1}, "features": ["f"]}', ("keys", "k")),
    ],
)
def test_a_duplicate_name_is_refused(body: bytes, path: FieldPath) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_json(messages.FeaturesGet, body)
    assert (caught.value.path, caught.value.message) == (path, f"'{path[-1]}' is given twice")


def test_a_duplicate_name_is_not_searched_for_in_a_large_body() -> None:
    padding = b'"' + b"a" * MAX_SEARCHED_BYTES + b'"'
    body = b'{"entity": 5, "entity": %s, "keys": {}, "features": ["f"]}' % padding
    with pytest.raises(InvalidInput, match="the body is not valid: check whether a name is given"):
        decode_json(messages.FeaturesGet, body)


def without(message: type[msgspec.Struct], name: str) -> dict[str, Any]:
    """Return the valid body of a message without one field."""
    return {key: value for key, value in VALID[message].items() if key != name}


def changed(message: type[msgspec.Struct], **fields: Any) -> dict[str, Any]:
    """Return the valid body of a message with other values of these fields."""
    return {**VALID[message], **fields}


WRONG: list[tuple[type[msgspec.Struct], Any, FieldPath, str]] = [
    (messages.FeaturesGet, [], (), "must be an object, not a list"),
    (messages.FeaturesGet, without(messages.FeaturesGet, "keys"), ("keys",),
     "'keys' is missing"),
    (messages.FeaturesGet, changed(messages.FeaturesGet, kees={}), ("kees",),
     "unknown field 'kees': did you mean 'keys'?"),
    (messages.FeaturesGet, changed(messages.FeaturesGet, entity=5), ("entity",),
     "must be a string, not an integer"),
    (messages.FeaturesGet, changed(messages.FeaturesGet, keys={"k": [1, 2.5]}), ("keys", "k", 1),
     "must be a string or an integer, not a decimal number"),
    (messages.FeaturesGet, changed(messages.FeaturesGet, keys={"k": None}), ("keys", "k"),
     "must be a string, an integer or a list, not null"),
    (messages.FeaturesGet, changed(messages.FeaturesGet, features=[]), ("features",),
     "must have at least one entry"),
    (messages.InteractionsPost, {"events": [EVENT, {**EVENT, "event": True}]},
     ("events", 1, "event"), "must be a string, not true or false"),
    (messages.InteractionsQuery, changed(messages.InteractionsQuery, last=0), ("last",),
     "must be from 1 to 10000, not 0"),
    (messages.Infer, changed(messages.Infer, top_k=0), ("top_k",), "must be at least 1, not 0"),
    (messages.Infer, {**VALID[messages.Infer], "return": ["matrix", "matrx"]}, ("return", 1),
     "'matrx' is not allowed: did you mean 'matrix'?"),
    (messages.Infer, changed(messages.Infer, inputs={"i": [10**400]}), ("inputs", "i", 0),
     "the number is too large"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "body", "path", "reason"), WRONG, ids=lambda value: str(value))
def test_the_field_and_the_reason_are_named(
    message: type[msgspec.Struct], body: Any, path: FieldPath, reason: str
) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_json(message, msgspec.json.encode(body))
    assert (caught.value.path, caught.value.message) == (path, reason)


def test_a_wrong_type_is_reported_before_a_value_out_of_bounds() -> None:
    body = b'{"features": [], "keys": {"k": []}, "entity": 5}'
    with pytest.raises(InvalidInput) as caught:
        decode_json(messages.FeaturesGet, body)
    assert caught.value.path == ("entity",)


def test_invalid_json_is_reported_before_any_field() -> None:
    with pytest.raises(HttpError) as caught:
        decode_json(messages.FeaturesGet, b'{"entity": 5, ')
    assert caught.value.code == "invalid_json"


def test_types_beyond_the_limit_of_a_list_are_not_checked() -> None:
    keys = {"k": ["1"] * MAX_KEYS + [None]}
    body = msgspec.json.encode(changed(messages.FeaturesGet, keys=keys))
    with pytest.raises(TooLarge, match="has 10001 entries"):
        decode_json(messages.FeaturesGet, body)


@pytest.mark.parametrize("excess", [0, 1])
def test_a_list_may_have_as_many_entries_as_its_limit(excess: int) -> None:
    keys = {"k": ["1"] * (MAX_KEYS + excess)}
    bodies: list[tuple[type[msgspec.Struct], dict[str, Any], FieldPath]] = [
        (messages.FeaturesGet, changed(messages.FeaturesGet, keys=keys), ("keys", "k")),
        (messages.InteractionsPost, {"events": [EVENT] * (MAX_EVENTS + excess)}, ("events",)),
    ]
    for message, body, path in bodies:
        encoded = msgspec.json.encode(body)
        if not excess:
            decode_json(message, encoded)
            continue
        with pytest.raises(TooLarge) as caught:
            decode_json(message, encoded)
        assert caught.value.path == path
        assert caught.value.message == "has 10001 entries, the limit is 10000"


@pytest.mark.parametrize(
    ("text", "path"),
    [
        (b"last=0", ("last",)),
        (b"last=10001", ("last",)),
        (b"last=5&last=5", ("last",)),
        (b"last=five", ("last",)),
        (b"lost=5", ("lost",)),
        (b"limit=0&since=5", ("limit",)),
        (b"since=", ("since",)),
    ],
)
def test_a_wrong_query_parameter_is_named(text: bytes, path: FieldPath) -> None:
    with pytest.raises(InvalidInput) as caught:
        decode_query(messages.InteractionsBounds, text)
    assert caught.value.path == path
