"""Checks within a single object: names, durations, paths and parameters."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from kirana.catalog.objects import (
    KINDS,
    CandidateGeneratorObject,
    EntityObject,
    EventTypeObject,
    FeatureGroupObject,
    FeatureObject,
    FlowObject,
    InferflowObject,
    ModelObject,
)

UNITS_MS = {"ms": 1, "s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}


def group(**changes: Any) -> FeatureGroupObject:
    features = [{"name": "ctr", "dtype": "float32"}]
    return FeatureGroupObject.model_validate(
        {"name": "product.stats", "features": features, **changes}
    )


def inferflow(**changes: Any) -> InferflowObject:
    return InferflowObject.model_validate(
        {
            "name": "ranker",
            "context": {"product_id": "product"},
            "rows": "product_id",
            "features": ["product.stats.ctr"],
            "models": [{"name": "a", "model": "a", "output": "b"}],
            "score": "b",
            **changes,
        }
    )


@pytest.mark.parametrize("name", ["a", "A1", "user_category", "for-you", "x" * 48])
def test_names_are_letters_digits_dashes_and_underscores(name: str) -> None:
    assert EventTypeObject(name=name).name == name


@pytest.mark.parametrize(
    "name",
    ["", "1a", "_a", "-a", "a b", "a.b", "a/b", "../a", "a|b", "a\n", "é", "x" * 49, "a\0"],
)
def test_an_invalid_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="is not a valid name"):
        EventTypeObject(name=name)


@pytest.mark.parametrize("name", ["product", ".stats", "product.", "a.b.c", "a..b", "a b.c"])
def test_a_group_name_that_is_not_entity_dot_group_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match=r"is not a valid name|must be entity\.group"):
        group(name=name)


@given(st.integers(1, 10_000), st.sampled_from(sorted(UNITS_MS)))
def test_durations_become_milliseconds(number: int, unit: str) -> None:
    assert group(ttl=f"{number}{unit}").ttl == number * UNITS_MS[unit]


@pytest.mark.parametrize("ttl", ["0s", "0ms", "0m", "0h", "0d", "00s"])
def test_a_ttl_that_would_keep_nothing_is_refused(ttl: str) -> None:
    reason = f"'{ttl}' would keep nothing: leave 'ttl' out if nothing should expire"
    with pytest.raises(ValidationError, match=reason):
        group(ttl=ttl)
    with pytest.raises(ValidationError, match=reason):
        EventTypeObject.model_validate({"name": "click", "ttl": ttl})


def test_a_duration_is_dumped_in_the_largest_whole_unit() -> None:
    assert group(ttl="2000ms").model_dump()["ttl"] == "2s"
    assert group(ttl="7d").model_dump()["ttl"] == "7d"
    assert group(ttl="90m").model_dump()["ttl"] == "90m"
    assert group().model_dump()["ttl"] is None


@pytest.mark.parametrize("ttl", ["7", "d", "7 d", "7D", "1.5h", "-7d", "7d12h", "", "7w", "7d\n"])
def test_an_invalid_duration_is_refused_with_an_example(ttl: str) -> None:
    with pytest.raises(ValidationError, match="like 7d"):
        group(ttl=ttl)


@pytest.mark.parametrize("ttl", [7, -1, 1.5, True, [7]])
def test_a_duration_must_be_text(ttl: object) -> None:
    with pytest.raises(ValidationError):
        group(ttl=ttl)


@pytest.mark.parametrize("path", ["click/1/model.onnx", "m.onnx", "a.b/..c/m.onnx"])
def test_a_model_path_below_the_root_is_accepted(path: str) -> None:
    assert ModelObject(name="m", path=path).path == path


@pytest.mark.parametrize("path", ["", "/etc/passwd", "../m.onnx", "a/../../m.onnx", "a//m", "a/"])
def test_a_model_path_that_is_not_plain_and_below_the_root_is_refused(path: str) -> None:
    with pytest.raises(ValidationError, match="below the model root"):
        ModelObject(name="m", path=path)


def test_parameters_are_read_and_dumped_under_the_key_with() -> None:
    parameters = {"ids": "a.b.c", "decay": 0.5}
    generator = CandidateGeneratorObject.model_validate(
        {"name": "similar", "generator": "neighbours", "with": parameters}
    )
    assert generator.parameters == parameters
    assert generator.model_dump(by_alias=True)["with"] == parameters


@pytest.mark.parametrize(
    "changes",
    [
        {"timeout_ms": 0},
        {"timeout_ms": "40"},
        {"retries": -1},
        {"retries": 11},
        {"retries": True},
        {"fallback": "full"},
        {"when": 5},
        {"with": ["event"]},
        {"witth": {}},
    ],
)
def test_an_invalid_option_of_a_node_is_refused(changes: dict[str, Any]) -> None:
    node = {"op": "merge", **changes}
    with pytest.raises(ValidationError):
        FlowObject.model_validate({"name": "f", "graph": {"a": []}, "nodes": {"a": node}})


@pytest.mark.parametrize(
    ("kind", "record"),
    [
        (EntityObject, {"name": "user", "keys": []}),
        (EntityObject, {"name": "user", "keys": [{"name": "id", "dtype": "float32"}]}),
        (FeatureObject, {"name": "a", "dtype": "float128"}),
        (FeatureObject, {"name": "a", "dtype": "float32", "shape": [65_537]}),
        (EventTypeObject, {"name": "click", "keep": 0}),
        (EventTypeObject, {"name": "click", "repeats": "first"}),
        (FlowObject, {"name": "f", "graph": {}, "nodes": {}}),
    ],
)
def test_a_value_that_is_not_allowed_is_refused(kind: type[Any], record: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        kind.model_validate(record)


@pytest.mark.parametrize("changes", [{"models": []}, {"context": {}}, {"rows": 1}, {"score": 1}])
def test_an_inferflow_with_an_invalid_field_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        inferflow(**changes)


def test_objects_can_not_be_changed() -> None:
    stats = group()
    with pytest.raises(ValidationError, match="frozen"):
        stats.name = "other.name"


@pytest.mark.parametrize("original", [group(ttl="7d"), inferflow(), EventTypeObject(name="click")])
def test_an_object_survives_dumping_and_reading(original: Any) -> None:
    record = original.model_dump(mode="json", by_alias=True)
    assert KINDS[record["kind"]].model_validate(record) == original
