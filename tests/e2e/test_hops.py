"""Calls between deployments: the request that the called deployment sees, and its results."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.e2e.ray_cluster import REPOSITORY
from tests.e2e.starts import one_at_a_time

TIMEOUT_S = 60.0
GIVEN = {
    "catalog": "shop",
    "revision": 3,
    "now_ms": 1_700_000_000_000,
    "id": "from-the-gateway",
    "priority": "writer",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "caller": "storefront",
}


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "tests.e2e.far_end",
        json.dumps({**GIVEN, "timeout_s": TIMEOUT_S}),
    ]
    with one_at_a_time():
        completed = subprocess.run(
            command, capture_output=True, text=True, check=False, cwd=REPOSITORY
        )
    assert completed.returncode == 0, completed.stderr
    output: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return output


@pytest.mark.parametrize("name", GIVEN)
def test_the_far_end_sees_the_fields_that_the_door_set(report: dict[str, Any], name: str) -> None:
    assert report["received"][name] == GIVEN[name]


def test_log_lines_of_the_far_end_have_the_request_id(report: dict[str, Any]) -> None:
    assert report["received"]["id of the log"] == GIVEN["id"]


def test_the_far_end_has_the_time_that_is_left(report: dict[str, Any]) -> None:
    assert 0 < report["received"]["left_s"] < TIMEOUT_S


def test_the_far_end_sees_the_ledger_and_adds_to_it(report: dict[str, Any]) -> None:
    assert report["received"]["retries"] == 2
    # Two retries before the call, one by the far end, and five by the actor that it called.
    assert report["spent"] == [2 + 1 + 5, 3]


def test_results_and_errors_of_an_actor_arrive(report: dict[str, Any]) -> None:
    actor = report["received"]["actor"]
    assert actor["counted"][:2] == [41, 42]
    assert actor["errors"] == [
        ["invalid_input", "must be at least 0, not -1", "number"],
        ["unavailable", "the actor 'tally' does not answer", None],
    ]


def test_an_actor_sees_the_request_as_a_part_does(report: dict[str, Any]) -> None:
    assert report["received"]["actor"]["seen"] == [GIVEN["id"], GIVEN["id"], True]


def test_an_actor_that_died_starts_with_a_new_count(report: dict[str, Any]) -> None:
    assert report["received"]["actor"]["counted"][2] == 41


def test_the_far_end_stops_at_the_deadline(report: dict[str, Any]) -> None:
    """`far_end.py` also waits until the far end has stopped, after a cancelled and a late call."""
    assert report["late"].startswith("DeadlineExceeded: features: ")
