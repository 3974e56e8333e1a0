"""Rows that a push refuses, and the file with their reasons."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import BinaryIO

import msgspec

from kirana.errors import InvalidInput
from kirana.ingest.problems import SHOWN, Problem, error_of

MOST_ROWS = 10_000
"""A check may stop after this many rejected rows."""


class Rejects:
    """Counts rejected rows, and writes their problems to a file, one JSON object a line.

    The file is made with the first problem. Without a `path`, nothing is written. Use it as a
    context manager, which closes the file. If rejected rows are `allowed`, they are no error.
    """

    def __init__(self, path: Path | None = None, *, allowed: bool = False) -> None:
        self.path = path
        self.allowed = allowed
        self.rows = 0
        self._checked = 0
        self._files = 0
        self._problems = 0
        self._first: list[Problem] = []
        self._file: BinaryIO | None = None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, so that all problems are in it."""
        if self._file is not None:
            self._file.close()
            self._file = None

    @property
    def is_full(self) -> bool:
        """Whether a check may stop, because too many rows were rejected.

        If rejected rows are allowed, that is half of all rows. Then single rows are not the cause.
        """
        return self.rows >= MOST_ROWS and not (self.allowed and 2 * self.rows < self._checked)

    @property
    def are_wrong(self) -> bool:
        """Whether the problems are an error: a file that can't be read, or rows."""
        return bool(self._files) or self.is_full or (bool(self.rows) and not self.allowed)

    def add(self, rejected: int, checked: int, problems: Iterable[Problem]) -> None:
        """Add the problems of `rejected` rows, which were found in `checked` rows."""
        self.rows += rejected
        self._checked += checked
        for problem in problems:
            self._problems += 1
            if len(self._first) <= SHOWN:
                self._first.append(problem)
            if self.path is not None:
                if self._file is None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = self.path.open("wb")
                self._file.write(msgspec.json.encode(problem) + b"\n")

    def add_file(self, problem: Problem) -> None:
        """Add the problem of a file that can't be read to its end."""
        self._files += 1
        self.add(0, 0, [problem])

    def error(self) -> InvalidInput:
        """Return an error that lists the first problems."""
        rows = f"{self.rows} rows are" if self.rows > 1 else "1 row is"
        ending = f"{rows} wrong" if self.rows else "nothing was written"
        ending += ", and the rest was not checked" if self.is_full else ""
        ending += f"; {self.path} has all reasons" if self.path and self._problems > SHOWN else ""
        return error_of(self._first, self._problems, ending)
