"""Markers of what tests need of the machine; `python -m tests.needs PATH` prints them."""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from typing import NoReturn

import pytest

NEEDS = {"compiled", "redis", "serve", "zookeeper"}
"""Their names; `pyproject.toml` says what each is, the Makefile how it is installed."""

_OF_FIXTURES = {"servers": "redis", "own": "redis", "zookeeper": "zookeeper", "tiny": "machine"}
_OF_FOLDERS = {"tests/e2e/": "serve", "tests/unit/native/": "compiled"}
"""Parameters of fixtures carry their markers themselves."""


def mark(item: pytest.Item) -> None:
    """Add the markers that follow from a test's fixtures and its folder."""
    fixtures = getattr(item, "fixturenames", ())
    found = {need for name, need in _OF_FIXTURES.items() if name in fixtures}
    found |= {need for folder, need in _OF_FOLDERS.items() if item.nodeid.startswith(folder)}
    for need in sorted(found):
        item.add_marker(need)


def lacks(what: str) -> NoReturn:
    """Skip a test whose need the machine lacks; `tests/conftest.py` fails it in CI."""
    pytest.skip(f"{what}: run make test-setup")


def in_ci() -> bool:
    return os.environ.get("CI") == "true"


class _Collected:
    def __init__(self) -> None:
        self.needs: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.needs |= {each.name for each in item.iter_markers()} & NEEDS


def main() -> None:
    """Print the needs of the tests that pytest's arguments select: all if it finds none."""
    collected = _Collected()
    with redirect_stdout(io.StringIO()) as said:
        code = pytest.main(["--collect-only", "-qqq", *sys.argv[1:]], plugins=[collected])
    if code:
        print(said.getvalue(), file=sys.stderr)
    print(*sorted(NEEDS if code else collected.needs))


if __name__ == "__main__":
    main()
