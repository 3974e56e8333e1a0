"""Errors cross processes and keep what they are about."""

from __future__ import annotations

import pickle

import pytest

from kirana.errors import (
    CatalogError,
    ConfigurationError,
    Conflict,
    ConnectionLost,
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
    (StoreFull("full"), "store_full"),
    (ConnectionLost("lost"), "connection_lost"),
    (DeadlineExceeded("late"), "deadline_exceeded"),
]
each_error = pytest.mark.parametrize(
    ("error", "code"), ERRORS, ids=[type(error).__name__ for error, _ in ERRORS]
)


def family(kind: type[KiranaError]) -> set[type[KiranaError]]:
    return {kind}.union(*(family(each) for each in kind.__subclasses__()))


def test_every_error_of_the_tree_is_in_these_tests() -> None:
    tree = {each for each in family(KiranaError) if each.__module__ == "kirana.errors"}
    assert {type(error) for error, _ in ERRORS} == tree


@each_error
def test_a_code_is_for_programs(error: KiranaError, code: str) -> None:
    assert error.code == code
    assert str(error) == error.message


@each_error
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_an_error_is_the_same_after_pickling(error: KiranaError, code: str, protocol: int) -> None:
    copy = pickle.loads(pickle.dumps(error, protocol))
    assert type(copy) is type(error)
    assert vars(copy) == vars(error)
    assert (copy.code, copy.message, copy.field) == (code, error.message, error.field)
    assert str(copy) == str(error)
    assert repr(copy) == repr(error)


def test_what_is_unknown_is_said_with_what_is_near() -> None:
    error = Unknown("event_type", "clik", ["click", "wishlist"], field="event")
    assert error.message == "unknown event type 'clik': did you mean 'click'?"
    assert (error.kind, error.name, error.field) == ("event_type", "clik", "event")


def test_a_catalog_error_lists_its_problems_one_a_line() -> None:
    problems = [Problem("bad", "a.yaml", 3, "features[0]"), Problem("worse", "b.yaml")]
    error = CatalogError(problems)
    assert error.problems == tuple(problems)
    assert error.message == "a.yaml:3: features[0]: bad\nb.yaml: worse"


def test_a_node_error_names_flow_and_node() -> None:
    error = NodeError("for_you", "ranked", "no answer")
    assert error.message == "flow 'for_you', node 'ranked': no answer"
    assert (error.flow, error.node) == ("for_you", "ranked")


@pytest.mark.parametrize(
    ("name", "known", "hint"),
    [
        ("clik", ["wishlist", "click"], "did you mean 'click'?"),
        ("zzz", ["b", "a"], "choose one of 'a', 'b'"),
        ("zzz", [], "there is none"),
        ("", ["a"], "there is only 'a'"),
        ("zzz", {"b": 1, "a": 2}, "choose one of 'a', 'b'"),
    ],
)
def test_a_hint_says_what_is_near_or_what_there_is(name: str, known: list[str], hint: str) -> None:
    assert did_you_mean(name, known) == hint


def test_a_long_list_of_what_there_is_is_cut() -> None:
    hint = did_you_mean("zzz", [f"{at:02}" for at in range(12)])
    assert hint.endswith("'09' and 2 more")
