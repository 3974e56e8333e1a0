"""Markers that say what a test needs, and the failure of skipped tests in CI."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.needs import NEEDS

REPOSITORY = Path(__file__).parents[2]
MARKERS = {
    marker.partition(":")[0]
    for marker in tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["pytest"][
        "ini_options"
    ]["markers"]
}


@pytest.mark.parametrize(
    ("path", "needs"),
    [
        ("tests/unit/native", {"compiled"}),
        ("tests/contract/test_feature_store.py", {"redis", "cassandra"}),
        ("tests/e2e/test_redis_and_zookeeper.py", {"redis", "serve", "zookeeper"}),
        ("tests/nothing", NEEDS),
    ],
)
def test_a_path_has_the_needs_of_its_tests(path: str, needs: set[str]) -> None:
    command = [sys.executable, "-m", "tests.needs", path]
    completed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert set(completed.stdout.split()) == needs


def test_every_marker_is_documented() -> None:
    page = (REPOSITORY / "docs" / "development.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == MARKERS
    makefile = (REPOSITORY / "Makefile").read_text()
    assert set(re.findall(r"^OF_(\w+) :=", makefile, re.MULTILINE)) - {"bench"} == NEEDS
    assert NEEDS | {"machine"} == MARKERS


SKIPPED = """
import pytest

@pytest.mark.{marker}
def test_it():
    pytest.skip("lacks something")
"""


@pytest.mark.parametrize(
    ("marker", "ci", "code"),
    [("redis", "true", 1), ("redis", "false", 0), ("machine", "true", 0)],
)
def test_in_ci_a_skipped_test_fails_unless_marked_machine(
    tmp_path: Path, marker: str, ci: str, code: int
) -> None:
    (tmp_path / "test_skipped.py").write_text(SKIPPED.format(marker=marker))
    command = [sys.executable, "-m", "pytest", "-p", "tests.conftest", "--rootdir", str(tmp_path)]
    completed = subprocess.run(
        [*command, str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        cwd=REPOSITORY,
        env={**os.environ, "CI": ci},
    )
    assert completed.returncode == code, completed.stdout
