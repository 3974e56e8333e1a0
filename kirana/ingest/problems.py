"""What is wrong with files: their columns, and single rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from kirana.errors import InvalidInput

SHOWN = 20
"""How many problems the message of an error lists."""


class Problem(msgspec.Struct, frozen=True):
    """One thing that is wrong. `row` counts from 0; None if the whole column or file is wrong."""

    file: str
    row: int | None
    column: str | None
    reason: str

    def __str__(self) -> str:
        row = "" if self.row is None else f", row {self.row}"
        column = "" if self.column is None else f", column '{self.column}'"
        return f"{self.file}{row}{column}: {self.reason}"


def error_of(first: Sequence[Problem], count: int, ending: str = "") -> InvalidInput:
    """Return an error that lists the first of `count` problems, one a line, and then an ending.

    Its field is the column of the first problem. A single problem has no ending.
    """
    lines = [str(problem) for problem in first[:SHOWN]]
    if count > len(lines):
        lines.append(f"... and {count - len(lines)} more")
    if count > 1 and ending:
        lines.append(ending)
    return InvalidInput("\n".join(lines), field=first[0].column)


def wrong_rows(check: Callable[[int, int], object], rows: int) -> dict[int, InvalidInput]:
    """Return the error of each wrong row.

    `check(start, stop)` raises `InvalidInput` if one of these rows is wrong. If several are wrong
    together, each half is checked, down to single rows. So the time grows with the number of wrong
    rows, and only slowly with that of all rows.
    """
    found: dict[int, InvalidInput] = {}
    spans = [(0, rows)]
    while spans:
        start, stop = spans.pop()
        try:
            check(start, stop)
        except InvalidInput as error:
            if stop - start == 1:
                found[start] = error
            else:
                middle = (start + stop) // 2
                spans += [(middle, stop), (start, middle)]
    return found
