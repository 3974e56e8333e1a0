"""Error classes: codes, messages, fields, pickling, and suggestions for unknown names."""

from __future__ import annotations

import pickle

import pytest

from kirana.errors import (
    CatalogError,
    ConfigurationError,
    Conflict,
    ConnectionLost,
    DeadlineExceeded,
    FieldPath,
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
    did_you_mean,
)

ERRORS = [
    (KiranaError("broken"), "internal"),
    (InvalidInput("wrong", field="keys.user_id[3]"), "invalid_input"),
    (TooLarge("too much", field="keys"), "too_large"),
    (Unknown("feature_group", "a.b", ["a.c"], field="group"), "unknown_feature_group"),
    (CatalogError([Problem("bad", "a.yaml", 3, "name"), Problem("worse")]), "invalid_catalog"),
    (Conflict("late", field="expected_revision"), "conflict"),
    (ConfigurationError("no", field="features"), "configuration"),
    (NodeError("for_you", "ranked", "no answer"), "node_failed"),
    (ModelFailed("clicks", "its output 'p' has 1 rows"), "model_failed"),
    (Unavailable("gone"), "unavailable"),
    (Overloaded("busy"), "overloaded"),
    (StoreFull("full"), "store_full"),
    (ConnectionLost("lost"), "connection_lost"),
    (DeadlineExceeded("late"), "deadline_exceeded"),
]
every_error = pytest.mark.parametrize(
    ("error", "code"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS]
)


def subclasses(error_class: type[KiranaError]) -> set[type[KiranaError]]:
    return {error_class}.union(*(subclasses(subclass) for subclass in error_class.__subclasses__()))


def test_every_error_class_is_in_these_tests() -> None:
    defined = {
        error_class
        for error_class in subclasses(KiranaError)
        if error_class.__module__ == "kirana.errors"
    }
    assert {type(error) for error, _ in ERRORS} == defined


@every_error
def test_an_error_has_a_code_and_a_message(error: KiranaError, code: str) -> None:
    assert error.code == code
    assert error.message in str(error)
    assert error.args == (error.message,)


@pytest.mark.parametrize(
    ("field", "message", "text"),
    [
        (None, "the store is full", "the store is full"),
        ("keys", "has 3 ids", "keys: has 3 ids"),
        (("events", 3, "time"), "is too late", "events[3].time: is too late"),
        ("features", "features: must be a URL", "features: must be a URL"),
        ("keys.user_id", "'user_id' is not a key", "'user_id' is not a key"),
        ("keys.user_id[3]", "'user_id' is not a key", "keys.user_id[3]: 'user_id' is not a key"),
    ],
    ids=["no field", "a name", "a path", "begins with the field", "quotes the field", "an index"],
)
def test_the_text_of_an_error_has_its_field_before_a_message_that_does_not_name_it(
    field: str | FieldPath | None, message: str, text: str
) -> None:
    assert str(InvalidInput(message, field=field)) == text


@every_error
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_is_the_same_after_pickling(error: KiranaError, code: str, protocol: int) -> None:
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert (copy.code, copy.message, copy.field) == (code, error.message, error.field)
    assert str(copy) == str(error)
    assert repr(copy) == repr(error)


def test_an_unknown_name_is_reported_with_the_closest_one() -> None:
    error = Unknown("event_type", "clik", ["click", "wishlist"], field="event")
    assert error.message == "unknown event type 'clik': did you mean 'click'?"
    assert (error.kind, error.name, error.field) == ("event_type", "clik", "event")


def test_a_catalog_error_lists_one_problem_per_line() -> None:
    problems = [Problem("bad", "a.yaml", 3, "features[0]"), Problem("worse", "b.yaml")]
    error = CatalogError(problems)
    assert error.problems == tuple(problems)
    assert error.message == "a.yaml:3: features[0]: bad\nb.yaml: worse"


def test_a_node_error_names_the_flow_and_the_node() -> None:
    error = NodeError("for_you", "ranked", "no answer")
    assert error.message == "flow 'for_you', node 'ranked': no answer"
    assert (error.flow, error.node) == ("for_you", "ranked")


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("clik", ["wishlist", "click"], "did you mean 'click'?"),
        ("zzz", ["b", "a"], "choose one of 'a', 'b'"),
        ("zzz", [], "none is defined"),
        ("", ["a"], "there is only 'a'"),
        ("zzz", {"b": 1, "a": 2}, "choose one of 'a', 'b'"),
    ],
)
def test_a_hint_names_the_closest_name_or_lists_all_names(
    name: str, known: list[str], hint: str
) -> None:
    assert did_you_mean(name, known) == hint


def test_a_long_list_of_names_is_cut() -> None:
    hint = did_you_mean("zzz", [f"{i:02}" for i in range(12)])
    assert hint.endswith("'09' and 2 more")


def test_an_unknown_name_that_is_long_is_shortened() -> None:
    error = Unknown("entity", "x" * 1_000_000, ["user"])
    assert len(error.message) < 300
    assert error.message.endswith("... (1000000 characters)': there is only 'user'")
