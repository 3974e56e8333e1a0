"""Markers for what a test needs on the machine.

`python -m tests.needs PATH` prints the needs of the tests in PATH.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout
from typing import NoReturn

import pytest

NEEDS = {"compiled", "redis", "serve", "zookeeper", "cassandra", "kafka"}
"""The markers whose needs the Makefile installs. `pyproject.toml` describes all markers."""

_FIXTURE_NEEDS = {
    "servers": "redis",
    "own": "redis",
    "zookeeper": "zookeeper",
    "cassandra": "cassandra",
    "kafka": "kafka",
    "tiny": "machine",
}
_FOLDER_NEEDS = {"tests/e2e/": "serve", "tests/unit/native/": "compiled"}
"""Markers by fixture and by folder. Parameters are marked where they are defined."""


def mark(item: pytest.Item) -> None:
    """Add the markers that follow from the fixtures and the folder of a test."""
    fixtures = getattr(item, "fixturenames", ())
    needs = {need for name, need in _FIXTURE_NEEDS.items() if name in fixtures}
    needs |= {need for folder, need in _FOLDER_NEEDS.items() if item.nodeid.startswith(folder)}
    for need in sorted(needs):
        item.add_marker(need)


def skip_missing(reason: str) -> NoReturn:
    """Skip the current test because the machine lacks something."""
    pytest.skip(f"{reason}: run 'make test-setup'")


def in_ci() -> bool:
    return os.environ.get("CI") == "true"


class _NeedsCollector:
    """Pytest plugin that records the needs of the collected tests."""

    def __init__(self) -> None:
        self.needs: set[str] = set()

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            self.needs |= {marker.name for marker in item.iter_markers()} & NEEDS


def main() -> None:
    """Print the needs of the selected tests, or all needs if pytest fails or selects no test."""
    collector = _NeedsCollector()
    with redirect_stdout(io.StringIO()) as output:
        code = pytest.main(["--collect-only", "-qqq", *sys.argv[1:]], plugins=[collector])
    if code:
        print(output.getvalue(), file=sys.stderr)
    print(*sorted(NEEDS if code else collector.needs))


if __name__ == "__main__":
    main()
