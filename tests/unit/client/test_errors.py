"""Each error of the tree comes out of its reply as it went in."""

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
    ModelFailed("clicks", "its output 'p' has 1 rows"),
    Unavailable("the store does not answer"),
    StoreFull("no room"),
    DeadlineExceeded("no answer in 5 ms"),
]


def over_the_wire(error: KiranaError) -> KiranaError:
    return error_of(status_of(error), body_of(error))


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.code)
def test_an_error_arrives_as_it_was_raised(error: KiranaError) -> None:
    found = over_the_wire(error)
    assert type(found) is type(error)
    assert (found.code, found.message, found.field) == (error.code, error.message, error.field)
    assert str(found) == error.message


@pytest.mark.parametrize("error", TREE, ids=lambda error: error.code)
def test_an_error_can_be_sent_on(error: KiranaError) -> None:
    found = over_the_wire(error)
    again = pickle.loads(pickle.dumps(found))
    assert type(again) is type(found)
    assert (again.code, again.message, again.field) == (found.code, found.message, found.field)


def test_the_problems_of_a_catalog_are_there() -> None:
    found = over_the_wire(CatalogError(PROBLEMS))
    assert isinstance(found, CatalogError)
    assert "\n".join(str(each) for each in found.problems) == found.message


@pytest.mark.parametrize(
    ("error", "names"),
    [
        (Unknown("model_id", "ranked", ["ranker"]), ("kind", "name")),
        (NodeError("for_you", "ranked", "no model"), ("flow", "node")),
        (ModelFailed("clicks", "its output 'p' has 1 rows"), ("model",)),
    ],
    ids=lambda each: getattr(each, "code", None),
)
def test_what_a_class_documents_can_be_read(error: KiranaError, names: tuple[str, str]) -> None:
    found = over_the_wire(error)
    assert [name for name in names if not hasattr(found, name)] == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (HttpError(404, "not_found", "no such route"), Unknown),
        (HttpError(405, "method_not_allowed", "POST is"), KiranaError),
        (HttpError(415, "unsupported_media_type", "send JSON"), InvalidInput),
        (HttpError(400, "invalid_protobuf", "no message"), InvalidInput),
        (HttpError(503, "overloaded", "too many"), Unavailable),
        (KiranaError("an error of Kirana itself"), KiranaError),
    ],
    ids=lambda each: each.code,
)
def test_what_only_the_edge_says_goes_by_its_status(
    error: KiranaError, kind: type[KiranaError]
) -> None:
    found = over_the_wire(error)
    assert type(found) is kind
    assert (found.code, found.message) == (error.code, error.message)


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
def test_what_a_proxy_says_goes_by_its_status(status: int, kind: type[KiranaError]) -> None:
    found = error_of(status, b"<html><body>a proxy speaks</body></html>")
    assert type(found) is kind
    assert found.code == f"http_{status}"
    assert "a proxy speaks" in found.message
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
def test_no_body_of_an_error_breaks_the_client(body: bytes) -> None:
    found = error_of(503, body)
    assert type(found) is Unavailable
    assert found.code == "http_503"
    assert 0 < len(found.message) <= 200


def test_a_code_of_a_later_version_is_kept() -> None:
    body = b'{"error": {"code": "too_hot", "message": "wait", "field": null}}'
    found = error_of(503, body)
    assert type(found) is Unavailable
    assert found.code == "too_hot"
