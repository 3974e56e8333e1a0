"""Finding wrong rows, and errors that list problems."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from kirana.errors import InvalidInput
from kirana.ingest.problems import SHOWN, Problem, error_of, wrong_rows


@given(st.lists(st.booleans(), max_size=200))
def test_exactly_the_wrong_rows_are_found(wrong: list[bool]) -> None:
    def check(start: int, stop: int) -> None:
        if any(wrong[start:stop]):
            raise InvalidInput(f"{start} {stop}")

    found = wrong_rows(check, len(wrong))
    assert sorted(found) == [row for row, is_wrong in enumerate(wrong) if is_wrong]
    assert all(error.message == f"{row} {row + 1}" for row, error in found.items())


def test_one_wrong_row_of_many_takes_few_checks() -> None:
    spans: list[int] = []

    def check(start: int, stop: int) -> None:
        spans.append(stop - start)
        if start <= 5_000 < stop:
            raise InvalidInput("wrong")

    assert list(wrong_rows(check, 8_192)) == [5_000]
    assert len(spans) < 30
    assert sum(spans) <= 3 * 8_192


def test_an_error_names_the_file_the_row_and_the_column() -> None:
    problems = [Problem("f.csv", 3, "a", "no"), Problem("f.csv", None, "b", "never")]
    error = error_of(problems, 2, "2 rows are wrong")
    assert error.field == "a"
    assert error.message.splitlines() == [
        "f.csv, row 3, column 'a': no",
        "f.csv, column 'b': never",
        "2 rows are wrong",
    ]


def test_an_error_lists_some_problems_and_counts_the_others() -> None:
    problems = [Problem("f.csv", row, None, "no") for row in range(SHOWN + 1)]
    lines = error_of(problems, 50).message.splitlines()
    assert len(lines) == SHOWN + 1
    assert lines[-1] == f"... and {50 - SHOWN} more"
