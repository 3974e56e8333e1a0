"""Errors that the edge encodes into replies, and the client decodes from them."""

from __future__ import annotations

import pickle

import pytest

from kirana.client.errors import error_of
from kirana.edge.errors import HttpError, body_of, status_of
from kirana.errors import (
    CatalogError,
    Conflict,
    DeadlineExceeded,
    InvalidInput,
    KiranaError,
    ModelFailed,
    NodeError,
    Overloaded,
    Problem,
    StoreFull,
    TooLarge,
    Unavailable,
    Unknown,
)

PROBLEMS = [Problem("no such node", "flow.yaml", 7, "nodes.top"), Problem("no such model")]
TREE: list[KiranaError] = [
    InvalidInput("wrong", field="keys.product_id[3]"),
    TooLarge("too much", field="events"),
    Unknown("flow", "for_yuo", ["for_you"], field="name"),
    Unknown("model_id", "ranked", ["ranker"], field="model_id"),
    CatalogError(PROBLEMS),
    Conflict("revision 7 is live, not 6", field="expected_revision"),
    NodeError("for_you", "ranked", "no model"),
    ModelFailed("clicks", "output 'p' has 1 row, expected 2"),
    Unavailable("the store does not answer"),
    Overloaded("too many runs are waiting"),
    StoreFull("the store is full"),
    DeadlineExceeded("no answer in 5 ms"),
]


def over_the_wire(error: KiranaError) -> KiranaError:
    """Encode an error as the edge does, and decode it as the client does."""
    return error_of(status_of(error), body_of(error))


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.code)
def test_an_error_arrives_as_it_was_raised(error: KiranaError) -> None:
    received = over_the_wire(error)
    assert type(received) is type(error)
    assert (received.code, received.message, received.field) == (
        error.code,
        error.message,
        error.field,
    )
    assert str(received) == str(error)


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.code)
def test_a_received_error_can_be_pickled(error: KiranaError) -> None:
    received = over_the_wire(error)
    unpickled = pickle.loads(pickle.dumps(received))
    assert type(unpickled) is type(received)
    assert (unpickled.code, unpickled.message, unpickled.field) == (
        received.code,
        received.message,
        received.field,
    )


def test_a_catalog_error_arrives_with_its_problems() -> None:
    received = over_the_wire(CatalogError(PROBLEMS))
    assert isinstance(received, CatalogError)
    assert "\n".join(str(problem) for problem in received.problems) == received.message


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (Unknown("model_id", "ranked", ["ranker"]), ("kind", "name")),
        (NodeError("for_you", "ranked", "no model"), ("flow", "node")),
        (ModelFailed("clicks", "output 'p' has 1 row, expected 2"), ("model",)),
    ],
    ids=lambda value: getattr(value, "code", None),
)
def test_the_attributes_of_an_error_exist_after_decoding(
    error: KiranaError, names: tuple[str, ...]
) -> None:
    received = over_the_wire(error)
    assert [name for name in names if not hasattr(received, name)] == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (HttpError(404, "not_found", "no such route"), Unknown),
        (HttpError(405, "method_not_allowed", "use POST"), KiranaError),
        (HttpError(415, "unsupported_media_type", "send JSON"), InvalidInput),
        (HttpError(400, "invalid_protobuf", "no message"), InvalidInput),
        (KiranaError("an error of Kirana itself"), KiranaError),
    ],
    ids=lambda error: error.code,
)
def test_an_error_code_without_its_own_class_is_classified_by_its_status(
    error: KiranaError, kind: type[KiranaError]
) -> None:
    received = over_the_wire(error)
    assert type(received) is kind
    assert (received.code, received.message) == (error.code, error.message)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, InvalidInput),
        (404, Unknown),
        (409, Conflict),
        (413, TooLarge),
        (418, KiranaError),
        (500, KiranaError),
        (502, Unavailable),
        (503, Unavailable),
        (504, DeadlineExceeded),
    ],
)
def test_an_error_page_of_a_proxy_is_classified_by_its_status(
    status: int, kind: type[KiranaError]
) -> None:
    error = error_of(status, b"<html><body>a proxy speaks</body></html>")
    assert type(error) is kind
    assert error.code == f"http_{status}"
    assert "a proxy speaks" in error.message
    assert error_of(status, b"").message == f"HTTP {status}"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff",
        b"null",
        b"[]",
        b'{"error": "text"}',
        b'{"error": {"code": 7, "message": "x"}}',
        b'{"error": {"code": "x"}}',
        b'{"error": {"code": "\xff", "message": "x"}}',
        b"[" * 100_000,
    ],
    ids=lambda body: repr(body[:30]),
)
def test_a_malformed_error_body_is_classified_by_its_status(body: bytes) -> None:
    error = error_of(503, body)
    assert type(error) is Unavailable
    assert error.code == "http_503"
    assert 0 < len(error.message) <= 200


def test_an_unknown_code_is_kept() -> None:
    body = b'{"error": {"code": "too_hot", "message": "wait", "field": null}}'
    error = error_of(503, body)
    assert type(error) is Unavailable
    assert error.code == "too_hot"
