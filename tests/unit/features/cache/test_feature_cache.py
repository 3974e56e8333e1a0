"""The in-process cache against a plain dict, and what one can rely on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.codecs.packed.layout import row_bytes
from kirana.features.cache import feature_cache as cache_module
from kirana.features.cache.feature_cache import IDLE_S, MOVED_AT_ONCE, FeatureCache
from kirana.features.cache.group import SLOT_BYTES
from kirana.schema import Feature, FeatureGroup, SchemaVersion
from tests.unit.features.cache.cached import (
    ATTRS,
    FRESH_S,
    GROUPS,
    GROWN,
    NUMBERS,
    ROW,
    SMALLEST_SKETCH,
    STATS,
    SUMMED,
    TEXT,
    TITLE,
    read,
)
from tests.unit.features.counted_store import Clock, group_of

pytestmark = pytest.mark.usefixtures("inmost_loops")

KEYS = [f"k{at}" for at in range(14)]
WHICH = st.integers(0, 2)
RANGE = st.tuples(st.integers(0, len(KEYS) - 1), st.integers(0, 6))
SHAPES = st.lists(
    st.sampled_from(["row", "row", "row", "shorter", "longer", "absent", "large", "none"]),
    min_size=1,
    max_size=9,
)
STEPS = st.one_of(
    st.tuples(st.just("fill"), WHICH, st.integers(0, len(KEYS) - 1), SHAPES, st.just(1)),
    st.tuples(st.just("fill"), WHICH, st.integers(0, len(KEYS) - 1), SHAPES, st.just(5)),
    st.tuples(st.just("look_up"), WHICH, RANGE),
    st.tuples(st.just("look_up"), WHICH, RANGE),
    st.tuples(st.just("look_up_by_the_first_version"), WHICH, RANGE),
    st.tuples(st.just("forget"), WHICH, RANGE),
    st.tuples(st.just("time_passes"), st.sampled_from([0.5, 3.0, FRESH_S])),
    st.tuples(st.just("a_version_comes"), WHICH, st.sampled_from([GROWN, [TITLE], NUMBERS])),
)


def some_keys(first: int, count: int) -> list[str]:
    return [*KEYS[first:], *KEYS[:first]][:count]


class Compared:
    """A cache beside a dict of what was filled last, and when. All rows differ."""

    def __init__(self, groups: Sequence[FeatureGroup], max_bytes: int) -> None:
        self.clock = Clock(0.0)
        self.max_bytes = max_bytes
        self.cache = FeatureCache(max_bytes, FRESH_S, clock=self.clock)
        self.groups = [*groups]
        self.known: dict[tuple[str, str], tuple[bytes | None, float]] = {}
        self.filled = 0

    def value(self, group: FeatureGroup, shape: str) -> bytes | None:
        self.filled += 1
        if shape == "absent":
            return None
        size = row_bytes(group) or 40
        sizes = {"row": size, "shorter": size - 8, "longer": size + 8, "large": 900, "none": 0}
        return self.filled.to_bytes(8, "little").ljust(900, b"\xaa")[: sizes[shape]]

    def fill(self, which: int, first: int, shapes: Sequence[str], times: int) -> None:
        """Many times, and a row gets in though others are there."""
        group = self.groups[which]
        keys = some_keys(first, len(shapes))
        values = [self.value(group, shape) for shape in shapes]
        for _ in range(times):
            self.cache.fill(group, keys, values)
        for key, value in zip(keys, values, strict=True):
            self.known[group.name, key] = (value, self.clock.now)

    def look_up(self, which: int, span: tuple[int, int]) -> None:
        self.compare(self.groups[which], some_keys(*span))

    def look_up_by_the_first_version(self, which: int, span: tuple[int, int]) -> None:
        group = self.groups[which]
        self.compare(replace(group, versions=group.versions[:1]), some_keys(*span))

    def compare(self, group: FeatureGroup, keys: Sequence[str]) -> None:
        counts = self.cache.counts
        hits, misses = counts.hits, counts.misses
        found = read(self.cache, group, keys)
        for key, value in found.items():
            assert (group.name, key) in self.known, f"{key} was forgotten, or never filled"
            last, filled_at = self.known[group.name, key]
            assert value == last
            assert self.clock.now - filled_at < FRESH_S
        assert counts.hits == hits + len(found)
        assert counts.misses == misses + len(keys) - len(found)

    def forget(self, which: int, span: tuple[int, int]) -> None:
        group, keys = self.groups[which], some_keys(*span)
        self.cache.forget(group.name, keys)
        for key in keys:
            self.known.pop((group.name, key), None)
        assert read(self.cache, group, keys) == {}

    def time_passes(self, seconds: float) -> None:
        self.clock.now += seconds

    def a_version_comes(self, which: int, features: Sequence[Feature]) -> None:
        group = self.groups[which]
        version = SchemaVersion(group.name, len(group.versions) + 1, tuple(features))
        self.groups[which] = replace(group, versions=(*group.versions, version))

    def check_bytes(self) -> None:
        absent = sum(value is None for value, _ in self.known.values())
        sketches = len(self.groups) * SMALLEST_SKETCH
        assert self.cache.nbytes <= self.max_bytes + sketches + absent * SLOT_BYTES


@pytest.mark.parametrize("moved_at_once", [1, MOVED_AT_ONCE])
@settings(max_examples=100)
@given(
    st.permutations(GROUPS),
    st.sampled_from([4_000, 9_000, 60_000]),
    st.lists(STEPS, min_size=15, max_size=60),
)
def test_it_gives_what_was_filled_last_or_nothing(
    moved_at_once: int,
    groups: Sequence[FeatureGroup],
    max_bytes: int,
    steps: Sequence[tuple[Any, ...]],
) -> None:
    with patch.object(cache_module, "MOVED_AT_ONCE", moved_at_once):
        compared = Compared(groups[:3], max_bytes)
        for name, *arguments in steps:
            getattr(compared, name)(*arguments)
            if moved_at_once > len(KEYS):
                compared.check_bytes()
        for which in [0, 1, 2] * len(KEYS):
            compared.look_up(which, (0, len(KEYS)))
        compared.check_bytes()


# what one can rely on


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> FeatureCache:
    return FeatureCache(1 << 20, FRESH_S, clock=clock)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_what_was_filled_is_there_until_it_is_not_fresh(
    cache: FeatureCache, clock: Clock, group: FeatureGroup
) -> None:
    size = row_bytes(group) or 33
    wanted = {"1": b"a" * size, "2": None, "3": b"b" * (size + 1), "4": b"c" * size, "5": b"d"}
    cache.fill(group, list(wanted), list(wanted.values()))
    clock.now += FRESH_S - 0.001
    assert read(cache, group, ["5", "9", *"4321"]) == wanted
    clock.now += 0.001
    assert read(cache, group, list(wanted)) == {}
    cache.fill(group, ["2"], [b"e" * size])
    assert read(cache, group, list(wanted)) == {"2": b"e" * size}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_the_last_fill_counts_whatever_lengths_the_rows_have(
    cache: FeatureCache, group: FeatureGroup
) -> None:
    size = row_bytes(group) or 33
    lengths = [size, size + 1, 0, size, None, size - 1, size + 9, None, 0, size + 1, 0]
    for number, length in enumerate(lengths):
        value = None if length is None else bytes([number]) * length
        cache.fill(group, ["1"], [value])
        assert read(cache, group, ["1"]) == {"1": value}


def test_a_group_knows_nothing_of_the_keys_of_another(cache: FeatureCache) -> None:
    for number, group in enumerate(GROUPS):
        cache.fill(group, ["1", "2"], [bytes([number]) * 48, None])
    cache.forget("product.stats", ["1", "2"])
    cache.forget("product.other", ["1"])
    assert read(cache, GROUPS[0], ["1", "2"]) == {}
    for number, group in enumerate(GROUPS[1:], start=1):
        assert read(cache, group, ["1", "2"]) == {"1": bytes([number]) * 48, "2": None}


def test_what_was_given_does_not_change_with_what_is_filled_later(cache: FeatureCache) -> None:
    keys = ["1", "2", "3"]
    cache.fill(STATS, keys, [b"a" * ROW] * 3)
    found = cache.look_up(STATS, keys)
    cache.fill(STATS, keys, [b"b" * ROW] * 3)
    cache.forget(STATS.name, keys)
    cache.fill(STATS, ["7", "8", "9"], [b"c" * ROW] * 3)
    assert b"".join(map(bytes, found.table)) == b"a" * 3 * ROW


def test_no_keys_are_no_rows(cache: FeatureCache) -> None:
    cache.fill(STATS, [], [])
    cache.forget(STATS.name, [])
    assert read(cache, STATS, []) == {}
    cache.fill(STATS, ["1", "2"], [b"loose", b"a" * ROW])
    assert read(cache, STATS, []) == {}
    assert (cache.counts.hits, cache.counts.misses) == (0, 0)


def test_without_freshness_nothing_is_used(clock: Clock) -> None:
    cache = FeatureCache(1 << 20, 0.0, clock=clock)
    cache.fill(STATS, ["1", "2"], [b"a" * ROW, None])
    assert read(cache, STATS, ["1", "2"]) == {}


def test_a_group_that_comes_shrinks_the_others_to_their_most_used_rows(clock: Clock) -> None:
    cache = FeatureCache(100 * (ROW + SLOT_BYTES), FRESH_S, clock=clock)
    keys = [str(at) for at in range(90)]
    values = {key: key.encode().ljust(ROW) for key in keys}
    cache.fill(STATS, keys, list(values.values()))
    cache.fill(STATS, ["7"], [b"loose"])
    used = [*keys[1:50:2]]
    for _ in range(3):
        cache.look_up(STATS, used)
    cache.fill(SUMMED, ["1"], [b"x" * row_bytes(SUMMED)])
    found = read(cache, STATS, keys)
    assert found == {key: b"loose" if key == "7" else values[key] for key in found}
    # the loose row may be more than what is left
    assert {*used} - {"7"} <= {*found}
    assert 49 <= len(found) <= 50
    assert read(cache, SUMMED, ["1"]) == {"1": b"x" * row_bytes(SUMMED)}


def test_a_group_that_nobody_reads_any_more_gives_its_bytes_to_the_others(clock: Clock) -> None:
    cache = FeatureCache(30 * (ROW + SLOT_BYTES), 2 * IDLE_S, clock=clock)
    for group in (ATTRS, SUMMED, STATS):
        cache.look_up(group, ["1"])
    keys = [str(at) for at in range(20)]
    cache.fill(STATS, keys, [b"a" * ROW] * 20)
    assert len(read(cache, STATS, keys)) == 10
    clock.now += IDLE_S + 1
    kept = read(cache, STATS, keys)
    # one comes, two are gone: there is more room than before
    cache.fill(TEXT, ["1"], [b"x"])
    assert read(cache, STATS, keys) == kept
    cache.fill(STATS, keys, [b"b" * ROW] * 20)
    assert read(cache, STATS, keys) == dict.fromkeys(list(read(cache, STATS, keys)), b"b" * ROW)
    assert len(read(cache, STATS, keys)) == 15
    assert cache.nbytes <= 30 * (ROW + SLOT_BYTES) + 3 * SMALLEST_SKETCH


def test_a_version_that_comes_leaves_no_row_that_is_not_the_last(cache: FeatureCache) -> None:
    grown = group_of(STATS.name, NUMBERS, GROWN)
    cache.fill(STATS, ["1", "2"], [b"a" * ROW, b"b" * ROW])
    cache.fill(grown, ["1"], [b"c" * row_bytes(grown)])
    assert read(cache, STATS, ["1", "2"]).get("2", b"b" * ROW) == b"b" * ROW
    for group in (grown, STATS):
        assert read(cache, group, ["1"]) == {"1": b"c" * row_bytes(grown)}
        cache.fill(group, ["2"], [b"d" * ROW])
        assert read(cache, group, ["2"]) == {"2": b"d" * ROW}
    # rows of the new length lie in a table again
    assert cache.look_up(grown, ["2", "1"]).in_table.tolist() == [1]


def test_a_row_that_shrinking_has_moved_is_as_old_as_it_was(clock: Clock) -> None:
    cache = FeatureCache(20 * (ROW + SLOT_BYTES), FRESH_S, clock=clock)
    keys = [str(at) for at in range(20)]
    cache.fill(STATS, keys[:10], [b"a" * ROW] * 10)
    clock.now += 6.0
    cache.fill(STATS, keys[10:], [b"b" * ROW] * 10)
    for _ in range(3):
        cache.look_up(STATS, keys[::2])
    cache.fill(SUMMED, ["1"], [b"x"])
    assert read(cache, STATS, keys) == {
        key: b"a" * ROW if int(key) < 10 else b"b" * ROW for key in keys[::2]
    }
    clock.now += 4.0
    assert read(cache, STATS, keys) == dict.fromkeys(keys[10::2], b"b" * ROW)


def test_a_row_that_is_refused_leaves_the_others_as_old_as_they_were(clock: Clock) -> None:
    cache = FeatureCache(4 * (ROW + SLOT_BYTES), FRESH_S, clock=clock)
    keys = ["1", "2", "3", "4"]
    cache.fill(STATS, keys, [b"a" * ROW] * 4)
    for _ in range(5):
        cache.look_up(STATS, keys)
    clock.now += 6.0
    cache.fill(STATS, ["5", "6"], [b"b" * ROW, b"loose"])
    assert read(cache, STATS, [*keys, "5", "6"]) == dict.fromkeys(keys, b"a" * ROW)
    assert cache.counts.refused == 2
    clock.now += 4.0
    assert read(cache, STATS, [*keys, "5", "6"]) == {}


def test_rows_that_replace_others_at_once_are_those_of_their_keys(clock: Clock) -> None:
    """Of some that want one place, one gets it: rows of the table and others."""
    cache = FeatureCache(3 * (ROW + SLOT_BYTES), FRESH_S, clock=clock)
    cache.fill(STATS, ["1", "2", "3"], [b"a" * ROW] * 3)
    for turn in range(60):
        keys = [f"{turn}.{at}" for at in range(6)]
        values: list[bytes | None] = [
            f"{key:4}".encode() * (ROW // 4 + at % 2) for at, key in enumerate(keys)
        ]
        for _ in range(turn + 2):
            cache.fill(STATS, keys, values)
            found = read(cache, STATS, keys)
            assert found == {key: v for key, v in zip(keys, values, strict=True) if key in found}
