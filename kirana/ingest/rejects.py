"""Rows that a push refuses, and the file with their reasons."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import BinaryIO

import msgspec

from kirana.errors import InvalidInput
from kirana.ingest.problems import SHOWN, Problem, error_of

MOST_ROWS = 10_000
"""A check stops after so many rejected rows, unless rejected rows are allowed."""


class Rejects:
    """Counts rejected rows, and writes their problems to a file, one JSON object a line.

    The file is made with the first problem. Without a `path`, nothing is written. Use it as a
    context manager, which closes the file.
    """

    def __init__(self, path: Path | None = None, *, allowed: bool = False) -> None:
        self.path = path
        self.allowed = allowed
        self.rows = 0
        self._problems = 0
        self._first: list[Problem] = []
        self._file: BinaryIO | None = None

    def __enter__(self) -> Rejects:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()

    @property
    def is_full(self) -> bool:
        """Whether there are so many rejected rows that a check need not go on."""
        return not self.allowed and self.rows >= MOST_ROWS

    def add(self, rows: int, problems: Iterable[Problem]) -> None:
        """Add problems of this number of rows."""
        self.rows += rows
        for problem in problems:
            self._problems += 1
            if len(self._first) <= SHOWN:
                self._first.append(problem)
            if self.path is not None:
                if self._file is None:
                    self.path.parent.mkdir(parents=True, exist_ok=True)
                    self._file = self.path.open("wb")
                self._file.write(msgspec.json.encode(problem) + b"\n")

    def error(self) -> InvalidInput:
        """Return an error that lists the first problems."""
        rows = f"{self.rows} rows are" if self.rows > 1 else "1 row is"
        where = f"; {self.path} has all reasons" if self.path and self._problems > SHOWN else ""
        stopped = ", and the rest was not checked" if self.is_full else ""
        return error_of(self._first, self._problems, f"{rows} wrong{stopped}{where}")
