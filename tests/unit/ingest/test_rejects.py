"""The file of rejected rows."""

from __future__ import annotations

import json
from pathlib import Path

from kirana.ingest.problems import SHOWN, Problem
from kirana.ingest.rejects import MOST_ROWS, Rejects


def test_all_problems_are_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "rejected.jsonl"
    count = SHOWN + 5
    with Rejects(path) as rejects:
        for row in range(count):
            rejects.add(1, [Problem("f.csv", row, "a", f"no {row}")])
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
        rejects.add(0, [])
    assert rejects.rows == 0
    assert not (tmp_path / "rejected.jsonl").exists()


def test_a_check_ends_after_many_rejected_rows_unless_they_are_allowed() -> None:
    problem = Problem("f.csv", 1, "a", "no")
    strict, lenient = Rejects(), Rejects(allowed=True)
    for rejects in (strict, lenient):
        rejects.add(MOST_ROWS, [problem, problem])
    assert strict.is_full
    assert not lenient.is_full
    assert "the rest was not checked" in strict.error().message
