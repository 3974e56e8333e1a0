"""Values that were written as text."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.errors import InvalidInput
from kirana.ingest.texts import parsed, parsed_times
from kirana.schema import NUMERIC, Feature

MOMENT_MS = 1_764_324_000_000  # 2025-11-28T10:00:00Z


def read(dtype: str, *texts: str | None) -> list[Any]:
    values: list[Any] = parsed(Feature("a", dtype), pa.array(texts, pa.string())).to_pylist()
    return values


@pytest.mark.parametrize(
    ("dtype", "texts", "values"),
    [
        ("int32", ["1", " -2 ", None, "3.0", "4.", "+5"], [1, -2, None, 3, 4, 5]),
        ("int64", ["9007199254740993"], [9007199254740993]),
        ("uint64", [str(2**64 - 1)], [2**64 - 1]),
        ("float32", ["1", "1.5", "-1e3", "nan", "inf"], ["1.0", "1.5", "-1000.0", "nan", "inf"]),
        ("bool", ["true", "False", "1", "0", None], [True, False, True, False, None]),
        ("string", [" a ", "", None], [" a ", "", None]),
    ],
)
def test_texts_are_read_as_the_dtype(dtype: str, texts: list[str], values: list[Any]) -> None:
    found = read(dtype, *texts)
    assert [str(value) for value in found] == [str(value) for value in values]


@pytest.mark.parametrize(
    ("dtype", "text", "message"),
    [
        ("int32", "1.5", r"'1\.5' is not a number \(int32\)"),
        ("int8", "300", r"'300' is not a number \(int8\)"),
        ("float64", "1,5", "is not a number"),
        ("float64", "1e400", "'1e400' is not a number"),
        ("int32", "0x1F", "'0x1F' is not a number"),
        ("float32", "0x1F", "'0x1F' is not a number"),
        ("float32", "", "'' is not a number"),
        ("bool", "maybe", "'maybe' is not a bool"),
    ],
)
def test_a_text_of_another_dtype_is_refused(dtype: str, text: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        read(dtype, text)
    with pytest.raises(InvalidInput, match="some values are not"):
        read(dtype, text, text)


def test_a_list_is_refused() -> None:
    with pytest.raises(InvalidInput, match="use Parquet"):
        parsed(Feature("a", "float32", (2,)), pa.array(["[1, 2]"]))


@pytest.mark.parametrize(
    "text",
    [
        "2025-11-28T10:00:00Z",
        "2025-11-28 10:00:00",
        "2025-11-28T15:30:00+05:30",
        "2025-11-28T05:00:00.000-0500",
        "2025-11-28T05:00:00-05",
        "2025-11-28 10:00:00.000000001",
        "1764324000000",
        "1764324000000.0",
    ],
)
def test_a_time_may_have_a_zone(text: str) -> None:
    (time,) = parsed_times(pa.array([text])).cast(pa.int64()).to_pylist()
    assert time == MOMENT_MS


def test_times_of_different_forms_are_read_together() -> None:
    texts = pa.array(["2025-11-28", None, "2025-11-28T10:00:00Z", str(MOMENT_MS), "0"])
    times = parsed_times(texts).cast(pa.int64()).to_pylist()
    assert times == [MOMENT_MS - 36_000_000, None, MOMENT_MS, MOMENT_MS, 0]


def test_a_number_of_another_unit_is_refused() -> None:
    with pytest.raises(InvalidInput, match="1764324000 looks like seconds"):
        parsed_times(pa.array(["2025-11-28", "1764324000"]))


def test_a_text_that_is_no_time_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"'28\.11\.2025' is not a time"):
        parsed_times(pa.array(["28.11.2025"]))


NUMBERS = [None, "1", "-1", "1.0", "1.5", "300", "inf", "1e400", "x", "", "0x1F", "true", "0"]
TIMES = ["2025-11-28", "2025-11-28T10:00:00Z", "2025-11-28 10:00:00.123456789", str(MOMENT_MS)]
TEXTS = st.sampled_from([*NUMBERS, *TIMES])


@given(st.lists(TEXTS, min_size=1, max_size=6), st.sampled_from([*NUMERIC, "bool", "time"]))
def test_what_becomes_of_a_text_does_not_depend_on_others(
    texts: list[str | None], dtype: str
) -> None:
    def convert(some: list[str | None]) -> list[Any] | None:
        column = pa.array(some, pa.string())
        try:
            found = parsed_times(column) if dtype == "time" else parsed(Feature("a", dtype), column)
        except InvalidInput:
            return None
        return [str(value) for value in found.to_pylist()]

    alone = [convert([text]) for text in texts]
    together = None if None in alone else [value for values in alone for value in values or []]
    assert convert(texts) == together
