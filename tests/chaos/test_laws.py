"""Each law finds a history that breaks it, and accepts one that does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.chaos.history import Event, Fault, History, Read, Write
from tests.chaos.laws import FRESH_S, LONGEST_S, SETTLED_S, breaches
from tests.chaos.schedule import SLOW, SLOW_EVERY, faults_of


def write(value: int | None, at: float, time: int, **changes: Any) -> Write:
    fields = {"keys": ["a"], "ended": at + 0.1, "outcome": "acknowledged", "door": "1", **changes}
    return Write(value=value, event_time=time, began=at, **fields)


def read(value: int | None, at: float, status: str = "ok", **changes: Any) -> Read:
    fields = {"keys": ["a"], "tier": ["hot"], "ended": at + 0.1, "door": "1", **changes}
    return Read(values=[value], status=[status], began=at, **fields)


def final(value: int | None, status: str = "ok", **changes: Any) -> Read:
    return read(value, 100.0, status, final=True, **changes)


FAULT = Fault("redis paused", 2.0, 3.0, 4.0)
LATER = 1.2 + FRESH_S

ALLOWED: dict[str, list[Event]] = {
    "a fresh value": [write(1, 0, 1), write(2, 1, 2), read(2, LATER), final(2)],
    "an older value within the freshness": [write(1, 0, 1), write(2, 1, 2), read(1, 1.2), final(2)],
    "an older value during a fault": [
        *(write(1, 0, 1), write(2, 1, 2), FAULT),
        *(read(1, 3.9 + SETTLED_S), final(2)),
    ],
    "a write that was not acknowledged": [
        *(FAULT, write(1, 0, 1), write(2, 2, 2, outcome="unknown")),
        *(read(2, 20), read(1, 21), final(2)),
    ],
    "an older write after a newer one": [write(2, 0, 2), write(1, 1, 1), read(2, LATER), final(2)],
    "no row after a delete": [
        *(write(1, 0, 1), write(None, 1, 2)),
        *(read(None, LATER, "missing"), final(None, "missing")),
    ],
    "a default during a fault": [
        *(write(1, 0, 1), FAULT, read(None, 2.5, "unavailable"), final(1)),
    ],
    "a call to a replica that was stopped": [
        *(write(1, 0, 1), final(1), Fault("replica paused", 2.0, 6.0, 6.5)),
        read(1, 2.0, ended=6.2 + LONGEST_S),
    ],
}

BROKEN: dict[str, tuple[str, list[Event]]] = {
    "a value of another key": ("nothing_is_invented", [write(1, 0, 1), read(7, 1), final(1)]),
    "a value before its write": (
        "nothing_is_invented",
        [read(1, 0), write(1, 1, 1), final(1)],
    ),
    "a corrupt row": ("nothing_is_invented", [write(1, 0, 1), read(0, 1, "corrupt"), final(1)]),
    "an older value": (
        "values_are_fresh",
        [write(1, 0, 1), write(2, 1, 2), read(1, LATER), final(2)],
    ),
    "no row": ("values_are_fresh", [write(1, 0, 1), read(None, LATER, "missing"), final(1)]),
    "a deleted row": (
        "values_are_fresh",
        [write(1, 0, 1), write(None, 1, 2), read(1, LATER), final(None, "missing")],
    ),
    "an older value long after a fault": (
        "values_are_fresh",
        [write(1, 0, 1), write(2, 1, 2), FAULT, read(1, 4.1 + SETTLED_S), final(2)],
    ),
    "a lost write": ("nothing_is_lost", [write(1, 0, 1), write(2, 1, 2), final(1)]),
    "a key that is unavailable at the end": (
        "nothing_is_lost",
        [write(1, 0, 1), final(None, "unavailable")],
    ),
    "a key that was not read at the end": ("nothing_is_lost", [write(1, 0, 1)]),
    "two replicas that differ": (
        "replicas_agree",
        [write(1, 0, 1, outcome="unknown"), FAULT, final(1), final(None, "missing", door="2")],
    ),
    "a call that takes long": (
        "calls_end",
        [write(1, 0, 1), read(1, 2, ended=2.1 + LONGEST_S), FAULT, final(1)],
    ),
    "a write that failed for no reason": (
        "undisturbed_calls_succeed",
        [write(1, 0, 1, outcome="unknown"), final(1)],
    ),
    "a default for no reason": (
        "undisturbed_calls_succeed",
        [write(1, 0, 1), read(None, 2, "unavailable"), final(1)],
    ),
}


@pytest.mark.parametrize("name", ALLOWED)
def test_what_the_laws_allow(name: str) -> None:
    assert breaches(History(ALLOWED[name])) == []


@pytest.mark.parametrize("name", BROKEN)
def test_what_breaks_a_law(name: str) -> None:
    law, events = BROKEN[name]
    assert law in {breach.partition(":")[0] for breach in breaches(History(events))}


def test_a_history_is_kept_in_a_file(tmp_path: Path) -> None:
    history = History([*ALLOWED["a default during a fault"]])
    history.save(tmp_path / "history")
    assert History.load(tmp_path / "history") == history


def test_the_faults_of_a_seed_are_always_the_same() -> None:
    for seed in range(1, 201):
        faults = faults_of(seed)
        assert faults == faults_of(seed)
        slow = {fault.kind for fault in faults} & {*SLOW}
        assert bool(slow) == (seed % SLOW_EVERY == 0)
        servers = [fault.kind.split()[0] for fault in faults]
        assert len(servers) == len(set(servers))
