"""What of a request reaches the far end of a call between deployments."""

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
def found() -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "tests.e2e.far_end",
        json.dumps({**GIVEN, "timeout_s": TIMEOUT_S}),
    ]
    with one_at_a_time():
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@pytest.mark.parametrize("name", GIVEN)
def test_it_sees_what_the_door_gave(found: dict[str, Any], name: str) -> None:
    assert found["told"][name] == GIVEN[name]


def test_lines_of_its_log_have_the_id(found: dict[str, Any]) -> None:
    assert found["told"]["id of the log"] == GIVEN["id"]


def test_its_time_is_what_is_left(found: dict[str, Any]) -> None:
    assert 0 < found["told"]["left_s"] < TIMEOUT_S


def test_it_sees_what_was_spent_and_what_it_spends_comes_back(found: dict[str, Any]) -> None:
    assert found["told"]["retries"] == 2
    # of the retries one is of the far end itself, five are of the actor that it called
    assert found["spent"] == [2 + 1 + 5, 3]


def test_an_actor_of_a_deployment_counts_and_its_errors_arrive(found: dict[str, Any]) -> None:
    actor = found["told"]["actor"]
    assert actor["counted"][:2] == [41, 42]
    assert actor["errors"] == [
        ["invalid_input", "it only grows", "number"],
        ["unavailable", "the actor 'tally' does not answer", None],
    ]


def test_an_actor_sees_the_request_as_a_part_does(found: dict[str, Any]) -> None:
    assert found["told"]["actor"]["seen"] == [GIVEN["id"], GIVEN["id"], True]


def test_an_actor_that_died_begins_anew(found: dict[str, Any]) -> None:
    assert found["told"]["actor"]["counted"][2] == 41


def test_it_stops_at_the_deadline_and_says_so(found: dict[str, Any]) -> None:
    """That it also stops when the caller gives up is what the process waits for."""
    assert found["late"].startswith("DeadlineExceeded: features: ")
