"""JSON values converted to columns of a feature's dtype and shape."""

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
    """Assert that the values are refused; return the field that the error names."""
    with pytest.raises(InvalidInput) as caught:
        column(dtype, values, shape)
    return caught.value.field


@pytest.mark.parametrize("dtype", INTEGERS)
def test_an_integer_column_accepts_the_whole_range_of_its_dtype(dtype: str) -> None:
    low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
    result = column(dtype, [low, 0, high])
    assert result.values.dtype == NUMERIC[dtype]
    assert result.values.tolist() == [low, 0, high]
    assert result.nulls is None
    assert refusal(dtype, [0, high + 1]) == "columns.a[1]"
    assert refusal(dtype, [low - 1]) == "columns.a[0]"


@pytest.mark.parametrize("wrong", [1.0, 1.5, "1", "NaN", True, [1], {}, 10**400])
@pytest.mark.parametrize("dtype", ["int8", "uint64"])
def test_an_integer_column_refuses_other_values(dtype: str, wrong: object) -> None:
    assert refusal(dtype, [1, 2, wrong]) == "columns.a[2]"


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_float_column_accepts_numbers_infinities_and_nan(dtype: str) -> None:
    result = column(dtype, [1.5, 2, "Infinity", "-Infinity", "NaN"])
    assert result.values.dtype == NUMERIC[dtype]
    assert result.values[:4].tolist() == [1.5, 2.0, math.inf, -math.inf]
    assert np.isnan(result.values[4])
    assert column(dtype, [0.5, -0.25]).values.tolist() == [0.5, -0.25]


@pytest.mark.parametrize("wrong", ["1.5", "nan", "inf", "", True, [1.0], {}])
@pytest.mark.parametrize("dtype", FLOATS)
def test_a_float_column_refuses_other_values(dtype: str, wrong: object) -> None:
    assert refusal(dtype, [1.0, wrong]) == "columns.a[1]"


@pytest.mark.parametrize("preceding", [[], [1]], ids=["floats alone", "with an integer"])
@pytest.mark.parametrize(("dtype", "beyond"), [("float16", 65_600.0), ("float32", 1e39)])
def test_a_number_beyond_the_range_of_a_float_is_refused(
    dtype: str, beyond: float, preceding: list[int]
) -> None:
    largest = float(np.finfo(dtype).max)
    assert column(dtype, [*preceding, largest, -largest]).values[-1] == -largest
    position = len(preceding) + 1
    assert refusal(dtype, [*preceding, 0.5, beyond]) == f"columns.a[{position}]"
    assert refusal(dtype, [*preceding, 0.5, -beyond]) == f"columns.a[{position}]"


@pytest.mark.parametrize("dtype", FLOATS)
def test_an_integer_of_400_digits_is_refused_as_a_float(dtype: str) -> None:
    assert refusal(dtype, [10**400]) == "columns.a[0]"


def test_a_bool_column_accepts_true_and_false() -> None:
    result = column("bool", [True, False, None])
    assert result.values.dtype == np.bool_
    assert result.values.tolist() == [True, False, False]
    assert result.nulls is not None
    assert result.nulls.tolist() == [False, False, True]


@pytest.mark.parametrize("wrong", [0, 1, 0.0, "true", "", []])
def test_a_bool_column_refuses_other_values(wrong: object) -> None:
    assert refusal("bool", [True, None, wrong]) == "columns.a[2]"


def test_strings_are_kept_unchanged() -> None:
    texts = ["", "a", "é", "🛒", "a\0b", "null"]
    assert column("string", texts).values.tolist() == texts


@pytest.mark.parametrize("wrong", [1, 1.0, True, ["a"], {}, "\ud800"])
def test_a_string_column_refuses_other_values(wrong: object) -> None:
    assert refusal("string", ["a", None, wrong]) == "columns.a[2]"


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_accepts_null(dtype: str) -> None:
    value = {"string": "x", "bool": True}.get(dtype, 1)
    result = column(dtype, [None, value, None])
    assert result.nulls is not None
    assert result.nulls.tolist() == [True, False, True]
    assert result.values[1] == value
    alone = column(dtype, [None])
    assert alone.nulls is not None
    assert alone.nulls.tolist() == [True]


@pytest.mark.parametrize("dtype", DTYPES)
def test_no_values_make_an_empty_column(dtype: str) -> None:
    assert len(column(dtype, []).values) == 0


def test_vectors_and_matrices_have_the_shape_of_the_feature() -> None:
    result = column("float32", [[1, 2.5, "NaN"], None, [4.0, 5.0, 6.0]], (3,))
    assert result.values.shape == (3, 3)
    assert result.values[2].tolist() == [4.0, 5.0, 6.0]
    assert result.nulls is not None
    assert result.nulls.tolist() == [False, True, False]
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
def test_values_of_another_shape_are_refused(wrong: object) -> None:
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
def test_any_json_becomes_a_column_or_an_error_that_names_the_value(
    dtype: str, shape: tuple[int, ...], values: list[Any]
) -> None:
    shape = shape if dtype in NUMERIC else ()
    try:
        result = column(dtype, values, shape)
    except InvalidInput as error:
        fields = [f"columns.a[{i}]" for i in range(len(values))]
        if error.field not in fields:
            raise
        return
    assert result.values.shape == (len(values), *shape)
    if result.nulls is not None:
        assert result.nulls.tolist() == [value is None for value in values]


VERSION = SchemaVersion("user.g", 1, (Feature("age", "int16"), Feature("name", "string")))


def test_columns_are_converted_by_name() -> None:
    result = columns_of(VERSION, {"name": ["a", None], "age": [1, 2]}, 2)
    assert result["age"].values.tolist() == [1, 2]
    assert result["name"].values.tolist() == ["a", ""]


def test_a_column_that_the_schema_version_lacks_is_unknown() -> None:
    with pytest.raises(Unknown, match=r"did you mean 'user\.g\.age'") as caught:
        columns_of(VERSION, {"agee": [1]}, 1)
    assert caught.value.field == "columns.agee"


@pytest.mark.parametrize("values", [[], [1], [1, 2, 3]])
def test_a_column_needs_one_value_per_key(values: list[int]) -> None:
    with pytest.raises(InvalidInput, match="expected 2 values, one per key") as caught:
        columns_of(VERSION, {"age": values}, 2)
    assert caught.value.field == "columns.age"


def test_an_error_names_the_column_and_the_row_of_the_value() -> None:
    with pytest.raises(InvalidInput, match="int16") as caught:
        columns_of(VERSION, {"age": [1, 40_000]}, 2)
    assert caught.value.field == "columns.age[1]"
