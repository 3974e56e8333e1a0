"""Values as people send them in JSON, as columns of a feature's dtype."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.codecs import Column
from kirana.errors import InvalidInput, Unknown
from kirana.features.values import column_of, columns_of
from kirana.schema import DTYPES, NUMERIC, Feature, SchemaVersion

INTEGERS = [name for name, dtype in NUMERIC.items() if dtype.kind in "iu"]
FLOATS = [name for name, dtype in NUMERIC.items() if dtype.kind == "f"]


def column(dtype: str, values: list[Any], shape: tuple[int, ...] = ()) -> Column:
    return column_of(Feature("a", dtype, shape), values, field="columns.a")


def refusal(dtype: str, values: list[Any], shape: tuple[int, ...] = ()) -> str | None:
    with pytest.raises(InvalidInput) as caught:
        column(dtype, values, shape)
    return caught.value.field


@pytest.mark.parametrize("dtype", INTEGERS)
def test_integers_take_the_whole_range_of_their_dtype(dtype: str) -> None:
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    found = column(dtype, [low, 0, high])
    assert found.values.dtype == NUMERIC[dtype]
    assert found.values.tolist() == [low, 0, high]
    assert found.nulls is None
    assert refusal(dtype, [0, high + 1]) == "columns.a[1]"
    assert refusal(dtype, [low - 1]) == "columns.a[0]"


@pytest.mark.parametrize("wrong", [1.0, 1.5, "1", "NaN", True, [1], {}, 10**400])
@pytest.mark.parametrize("dtype", ["int8", "uint64"])
def test_only_integers_are_integers(dtype: str, wrong: object) -> None:
    assert refusal(dtype, [1, 2, wrong]) == "columns.a[2]"


@pytest.mark.parametrize("dtype", FLOATS)
def test_floats_are_numbers_or_the_names_of_what_json_lacks(dtype: str) -> None:
    found = column(dtype, [1.5, 2, "Infinity", "-Infinity", "NaN"])
    assert found.values.dtype == NUMERIC[dtype]
    assert found.values[:4].tolist() == [1.5, 2.0, math.inf, -math.inf]
    assert np.isnan(found.values[4])
    assert column(dtype, [0.5, -0.25]).values.tolist() == [0.5, -0.25]


@pytest.mark.parametrize("wrong", ["1.5", "nan", "inf", "", True, [1.0], {}])
@pytest.mark.parametrize("dtype", FLOATS)
def test_nothing_else_is_a_float(dtype: str, wrong: object) -> None:
    assert refusal(dtype, [1.0, wrong]) == "columns.a[1]"


@pytest.mark.parametrize("others", [[], [1]], ids=["floats alone", "with an integer"])
@pytest.mark.parametrize(("dtype", "beyond"), [("float16", 65_600.0), ("float32", 1e39)])
def test_a_number_beyond_the_range_of_a_float_is_refused(
    dtype: str, beyond: float, others: list[int]
) -> None:
    largest = float(np.finfo(dtype).max)
    assert column(dtype, [*others, largest, -largest]).values[-1] == -largest
    at = len(others) + 1
    assert refusal(dtype, [*others, 0.5, beyond]) == f"columns.a[{at}]"
    assert refusal(dtype, [*others, 0.5, -beyond]) == f"columns.a[{at}]"


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_integer_of_400_digits_is_no_float(dtype: str) -> None:
    assert refusal(dtype, [10**400]) == "columns.a[0]"


def test_booleans_are_true_and_false() -> None:
    found = column("bool", [True, False, None])
    assert found.values.dtype == np.bool_
    assert found.values.tolist() == [True, False, False]
    assert found.nulls is not None
    assert found.nulls.tolist() == [False, False, True]


@pytest.mark.parametrize("wrong", [0, 1, 0.0, "true", "", []])
def test_nothing_else_is_a_boolean(wrong: object) -> None:
    assert refusal("bool", [True, None, wrong]) == "columns.a[2]"


def test_strings_are_kept_as_they_are() -> None:
    texts = ["", "a", "é", "🛒", "a\0b", "null"]
    assert column("string", texts).values.tolist() == texts


@pytest.mark.parametrize("wrong", [1, 1.0, True, ["a"], {}, "\ud800"])
def test_nothing_else_is_a_string(wrong: object) -> None:
    assert refusal("string", ["a", None, wrong]) == "columns.a[2]"


@pytest.mark.parametrize("dtype", DTYPES)
def test_null_is_null_in_every_dtype(dtype: str) -> None:
    value = {"string": "x", "bool": True}.get(dtype, 1)
    found = column(dtype, [None, value, None])
    assert found.nulls is not None
    assert found.nulls.tolist() == [True, False, True]
    assert found.values[1] == value
    alone = column(dtype, [None])
    assert alone.nulls is not None
    assert alone.nulls.tolist() == [True]


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_values_are_an_empty_column(dtype: str) -> None:
    assert len(column(dtype, []).values) == 0


def test_vectors_have_their_shape() -> None:
    found = column("float32", [[1, 2.5, "NaN"], None, [4.0, 5.0, 6.0]], (3,))
    assert found.values.shape == (3, 3)
    assert found.values[2].tolist() == [4.0, 5.0, 6.0]
    assert found.nulls is not None
    assert found.nulls.tolist() == [False, True, False]
    matrix = column("int8", [[[1, 2], [3, 4]]], (2, 2))
    assert matrix.values.tolist() == [[[1, 2], [3, 4]]]
    assert column("uint64", [[2**64 - 1, 1]], (2,)).values.tolist() == [[2**64 - 1, 1]]
    assert column("int8", [[7]], (1,)).values.tolist() == [[7]]


@pytest.mark.parametrize(
    "wrong",
    [
        1,
        [1],
        [1, 2, 3],
        [[1, 2]],
        [[1], [2]],
        [1, None],
        [1, True],
        [1, "2"],
        [1, [2]],
        [[1], [2, 3]],
        [],
        "ab",
        {"a": 1, "b": 2},
    ],
    ids=repr,
)
def test_what_has_another_shape_is_refused(wrong: object) -> None:
    assert refusal("int8", [[1, 2], wrong], (2,)) == "columns.a[1]"


@pytest.mark.parametrize("wrong", [[[1, 2], [3]], [[1, 2], 3], [1, 2, 3, 4]], ids=repr)
def test_a_matrix_with_ragged_rows_is_refused(wrong: object) -> None:
    assert refusal("float32", [wrong], (2, 2)) == "columns.a[0]"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner),
    max_leaves=6,
)


@given(
    st.sampled_from(DTYPES), st.sampled_from([(), (2,), (2, 2)]), st.lists(json_values, max_size=4)
)
def test_any_json_is_a_column_or_an_error_that_names_the_value(
    dtype: str, shape: tuple[int, ...], values: list[Any]
) -> None:
    shape = shape if dtype in NUMERIC else ()
    try:
        found = column(dtype, values, shape)
    except InvalidInput as error:
        fields = [f"columns.a[{at}]" for at in range(len(values))]
        if error.field not in fields:
            raise
        return
    assert found.values.shape == (len(values), *shape)
    if found.nulls is not None:
        assert found.nulls.tolist() == [value is None for value in values]


VERSION = SchemaVersion("user.g", 1, (Feature("age", "int16"), Feature("name", "string")))


def test_columns_are_made_by_name() -> None:
    found = columns_of(VERSION, {"name": ["a", None], "age": [1, 2]}, 2)
    assert found["age"].values.tolist() == [1, 2]
    assert found["name"].values.tolist() == ["a", ""]


def test_a_column_that_the_version_lacks_is_unknown() -> None:
    with pytest.raises(Unknown, match=r"did you mean 'user\.g\.age'") as caught:
        columns_of(VERSION, {"agee": [1]}, 1)
    assert caught.value.field == "columns.agee"


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
def test_a_column_has_one_value_a_key(values: list[int]) -> None:
    with pytest.raises(InvalidInput, match="for 2 keys") as caught:
        columns_of(VERSION, {"age": values}, 2)
    assert caught.value.field == "columns.age"


def test_a_wrong_value_is_named_by_its_column_and_row() -> None:
    with pytest.raises(InvalidInput, match="int16") as caught:
        columns_of(VERSION, {"age": [1, 40_000]}, 2)
    assert caught.value.field == "columns.age[1]"
