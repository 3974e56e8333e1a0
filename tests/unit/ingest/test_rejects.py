"""The file of rejected rows."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kirana.ingest.problems import SHOWN, Problem
from kirana.ingest.rejects import MOST_ROWS, Rejects


def test_all_problems_are_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rejected.jsonl"
    count = SHOWN + 5
    with Rejects(path) as rejects:
        for row in range(count):
            rejects.add(1, 2, [Problem("f.csv", row, "a", f"no {row}")])
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["row"] for line in lines] == list(range(count))
    assert lines[3] == {"file": "f.csv", "row": 3, "column": "a", "reason": "no 3"}
    message = rejects.error().message
    assert message.splitlines()[-2:] == [
        "... and 5 more",
        f"{count} rows are wrong; {path} has all reasons",
    ]


def test_without_a_problem_there_is_no_file(tmp_path: Path) -> None:
    with Rejects(tmp_path / "rejected.jsonl") as rejects:
        rejects.add(0, 5, [])
    assert rejects.rows == 0
    assert not (tmp_path / "rejected.jsonl").exists()


@pytest.mark.parametrize(("checked", "ends"), [(MOST_ROWS, True), (3 * MOST_ROWS, False)])
def test_a_check_ends_after_many_rejected_rows(checked: int, ends: bool) -> None:
    problem = Problem("f.csv", 1, "a", "no")
    strict, lenient = Rejects(), Rejects(allowed=True)
    for rejects in (strict, lenient):
        rejects.add(MOST_ROWS, checked, [problem, problem])
    assert strict.is_full
    assert lenient.is_full is lenient.are_wrong is ends
    assert "the rest was not checked" in strict.error().message


def test_a_file_that_can_not_be_read_is_an_error_even_if_rejected_rows_are_allowed() -> None:
    rejects = Rejects(allowed=True)
    rejects.add(1, 2, [Problem("f.csv", 1, "a", "no")])
    assert not rejects.are_wrong
    rejects.add_file(Problem("g.csv", None, None, "is damaged"))
    assert rejects.are_wrong
    assert "g.csv: is damaged" in rejects.error().message
