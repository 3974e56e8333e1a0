"""The laws that a history must obey. A checker returns one message per breach."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Protocol

from tests.chaos.history import Fault, History, Read, Write

FRESH_S = 0.7
"""How old the value of a read may be: `cache_fresh_ms` of the run, and time for the reply."""

SETTLED_S = 5.0
"""How long after a fault the laws about fresh values need not hold yet."""

LONGEST_S = 3.0
"""The longest time until a call has a reply or an error: the deadline, and a margin."""


class Law(Protocol):
    """A function that yields a message for each breach in a history."""

    __name__: str

    def __call__(self, history: History) -> Iterator[str]: ...


def _writes(history: History) -> dict[str, list[Write]]:
    """Return the writes of each key."""
    by_key: dict[str, list[Write]] = defaultdict(list)
    for event in history.events:
        if isinstance(event, Write):
            for key in event.keys:
                by_key[key].append(event)
    return by_key


def _cells(history: History) -> Iterator[tuple[Read, str, int | None, str]]:
    """Yield each read, key, value and status that was answered."""
    for read in history.events:
        if isinstance(read, Read) and not read.error:
            for key, value, status in zip(read.keys, read.values, read.status, strict=True):
                yield read, key, value, status


def _seen_time(read: Read, value: int | None, writes: list[Write]) -> int:
    """Return the event time of the row that a read has seen; 0 if there was none.

    No row may mean any delete, so it counts as the newest one that began before the read ended.
    """
    times = [w.event_time for w in writes if w.value == value and w.began <= read.ended]
    return max(times, default=0)


def nothing_is_invented(history: History) -> Iterator[str]:
    """Check that each value was written to its key before the end of the read."""
    writes = _writes(history)
    for read, key, value, status in _cells(history):
        if status == "ok" and not any(
            write.value == value and write.began <= read.ended for write in writes[key]
        ):
            yield f"{key}: read {value} at {read.ended:.3f}, which nobody had written"
        if status not in ("ok", "missing", "unavailable"):
            yield f"{key}: status {status} at {read.ended:.3f}"


def values_are_fresh(history: History) -> Iterator[str]:
    """Check that no read gives a value that an acknowledged write replaced, without a fault."""
    writes = _writes(history)
    faults = [event for event in history.events if isinstance(event, Fault)]
    for read, key, value, status in _cells(history):
        if status == "unavailable" or _is_disturbed(read, faults):
            continue
        expected = max(
            (
                write.event_time
                for write in writes[key]
                if write.outcome == "acknowledged" and write.ended <= read.began - FRESH_S
            ),
            default=0,
        )
        seen = _seen_time(read, value if status == "ok" else None, writes[key])
        if seen < expected:
            yield (
                f"{key}: the read at {read.began:.3f} through {read.door} gave {value} "
                f"({status}, {read.tier}) of {seen}, but {expected} was acknowledged"
            )


def nothing_is_lost(history: History) -> Iterator[str]:
    """Check that each key has its newest acknowledged write, or a newer one, after all faults."""
    writes = _writes(history)
    final = {key for read, key, _, _ in _cells(history) if read.final}
    for key in sorted(writes.keys() - final):
        yield f"{key}: not read at the end"
    for read, key, value, status in _cells(history):
        if not read.final:
            continue
        if status == "unavailable":
            yield f"{key}: unavailable at the end through {read.door}"
            continue
        acknowledged = (w.event_time for w in writes[key] if w.outcome == "acknowledged")
        expected = max(acknowledged, default=0)
        seen = _seen_time(read, value if status == "ok" else None, writes[key])
        if seen < expected:
            yield f"{key}: {value} of {seen} at the end, but {expected} was acknowledged"


def replicas_agree(history: History) -> Iterator[str]:
    """Check that all replicas give the same value of a key after all faults."""
    by_key: dict[str, list[tuple[str, int | None]]] = defaultdict(list)
    for read, key, value, _ in _cells(history):
        if read.final:
            by_key[key].append((read.door, value))
    for key, seen in by_key.items():
        for (door, value), (other_door, other) in pairwise(seen):
            if value != other:
                yield f"{key}: {value} through {door}, but {other} through {other_door}"


def calls_end(history: History) -> Iterator[str]:
    """Check that each call has a reply or an error in bounded time, if its replica runs."""
    stops = [
        event
        for event in history.events
        if isinstance(event, Fault) and event.kind in ("replica paused", "replica killed")
    ]
    for event in history.events:
        if not isinstance(event, Read | Write):
            continue
        stopped_s = sum(
            max(min(stop.recovered, event.ended) - max(stop.began, event.began), 0.0)
            for stop in stops
        )
        if event.ended - event.began - stopped_s > LONGEST_S:
            yield f"a {type(event).__name__.lower()} took {event.ended - event.began:.1f} s"


def undisturbed_calls_succeed(history: History) -> Iterator[str]:
    """Check that each call succeeds, without a fault."""
    faults = [event for event in history.events if isinstance(event, Fault)]
    for event in history.events:
        if isinstance(event, Write) and event.outcome == "unknown":
            if not _is_disturbed(event, faults):
                yield f"a write at {event.began:.3f} was not acknowledged, without a fault"
        elif isinstance(event, Read) and not _is_disturbed(event, faults):
            if event.error:
                yield f"a read at {event.began:.3f} failed, without a fault: {event.error}"
            elif "unavailable" in event.status:
                yield f"a read at {event.began:.3f} was unavailable, without a fault"


def _is_disturbed(call: Read | Write, faults: list[Fault]) -> bool:
    """Return whether a fault was near a call."""
    return any(
        fault.began <= call.ended and call.began <= fault.recovered + SETTLED_S for fault in faults
    )


DATA_LAWS = (nothing_is_invented, values_are_fresh, nothing_is_lost, replicas_agree)
TIME_LAWS = (calls_end, undisturbed_calls_succeed)
"""Laws that a machine that is busy with other work may break."""


def breaches(history: History, laws: Iterable[Law] = (*DATA_LAWS, *TIME_LAWS)) -> list[str]:
    """Return all breaches of laws, each with the name of its law."""
    return [f"{law.__name__}: {message}" for law in laws for message in law(history)]
