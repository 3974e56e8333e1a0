"""Batches of the archive: what is in one does not depend on who forms it, or how often."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kirana.archive import batch as module
from kirana.archive.batch import Batch, Batches, Position
from kirana.kafka.marks import Mark

PERIOD_MS = 100
MESSAGES = 40


def record(offset: int) -> Any:
    return SimpleNamespace(offset=offset, value=b"x" * 10)


marks = st.lists(
    st.builds(
        Mark,
        upto=st.integers(0, MESSAGES),
        at_ms=st.integers(0, 500),
        revision=st.integers(1, 3),
        period_ms=st.just(PERIOD_MS),
        refused=st.lists(st.integers(0, MESSAGES), max_size=3).map(tuple),
    ),
    max_size=20,
)


def batches(given: list[Mark], start: Position, gaps: set[int]) -> list[Batch]:
    """Form all batches from a position, as a reader of both topics does."""
    forming = Batches(start)
    ended, seen = [], start.offset
    for offset, mark in [*enumerate(given)][start.mark :]:
        if batch := forming.ended_by(mark, offset):
            ended.append(batch)
        covered = [record(n) for n in range(seen, mark.upto) if n not in gaps]
        seen = max(seen, mark.upto)
        ended += forming.add(covered, mark, offset)
    return ended


def content(batch: Batch) -> list[Any]:
    return [
        batch.start.offset,
        batch.end,
        [(m.record.offset, m.at_ms, m.revision, m.refused) for m in batch.messages],
    ]


@given(marks, st.sets(st.integers(0, MESSAGES)), st.sampled_from([35, 1 << 20]))
def test_from_wherever_a_batch_has_ended_the_same_batches_follow(
    given: list[Mark], gaps: set[int], most: int
) -> None:
    before, module.MAX_BYTES = module.MAX_BYTES, most
    try:
        whole = batches(given, Position(0, 0), gaps)
        for number, batch in enumerate(whole):
            rest = batches(given, batch.next, gaps)
            assert [*map(content, rest)] == [*map(content, whole[number + 1 :])]
    finally:
        module.MAX_BYTES = before


@given(marks, st.sets(st.integers(0, MESSAGES)))
def test_every_message_has_the_time_of_the_first_mark_that_covers_it(
    given: list[Mark], gaps: set[int]
) -> None:
    end = Mark(MESSAGES, 10_000, period_ms=PERIOD_MS)
    found = batches(
        [*given, end, Mark(MESSAGES, 20_000, period_ms=PERIOD_MS)], Position(0, 0), gaps
    )
    times = {m.record.offset: m.at_ms for batch in found for m in batch.messages}
    assert sorted(times) == [n for n in range(MESSAGES) if n not in gaps]
    for offset, at_ms in times.items():
        first = next(i for i, mark in enumerate([*given, end]) if mark.upto > offset)
        assert at_ms == max(mark.at_ms for mark in [*given, end][: first + 1])
    assert all(len({m.at_ms // PERIOD_MS for m in batch.messages}) == 1 for batch in found)


def test_a_batch_begins_where_the_one_before_ends() -> None:
    pairs = [(5, 10), (9, 50), (9, 150), (20, 160), (20, 300)]
    given = [Mark(upto, at_ms, period_ms=PERIOD_MS) for upto, at_ms in pairs]
    first, second = batches(given, Position(0, 0), set())
    assert (first.start.offset, first.end, second.start.offset, second.end) == (0, 9, 9, 20)
    assert first.next == second.start == Position(9, 2, 50)
