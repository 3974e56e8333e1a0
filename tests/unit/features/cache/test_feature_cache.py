"""`FeatureCache`, compared with a plain dict, and its guarantees."""

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
from kirana.features.cache.feature_cache import IDLE_S, MOVED_PER_LOOK_UP, FeatureCache
from kirana.features.cache.group import SLOT_BYTES
from kirana.schema import Feature, FeatureGroup, SchemaVersion
from tests.clock import Clock
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
from tests.unit.features.counted_store import group_of

pytestmark = pytest.mark.usefixtures("inner_loops")

KEYS = [f"k{i}" for i in range(14)]
GROUP_INDEX = st.integers(0, 2)
RANGE = st.tuples(st.integers(0, len(KEYS) - 1), st.integers(0, 6))
SHAPES = st.lists(
    st.sampled_from(["row", "row", "row", "shorter", "longer", "absent", "large", "empty"]),
    min_size=1,
    max_size=9,
)
STEPS = st.one_of(
    st.tuples(st.just("fill"), GROUP_INDEX, st.integers(0, len(KEYS) - 1), SHAPES, st.just(1)),
    st.tuples(st.just("fill"), GROUP_INDEX, st.integers(0, len(KEYS) - 1), SHAPES, st.just(5)),
    st.tuples(st.just("look_up"), GROUP_INDEX, RANGE),
    st.tuples(st.just("look_up"), GROUP_INDEX, RANGE),
    st.tuples(st.just("look_up_with_the_first_version"), GROUP_INDEX, RANGE),
    st.tuples(st.just("forget"), GROUP_INDEX, RANGE),
    st.tuples(st.just("advance_clock"), st.sampled_from([0.5, 3.0, FRESH_S])),
    st.tuples(st.just("add_version"), GROUP_INDEX, st.sampled_from([GROWN, [TITLE], NUMBERS])),
)


def some_keys(first: int, count: int) -> list[str]:
    return [*KEYS[first:], *KEYS[:first]][:count]


class Compared:
    """A cache, next to a dict of the last value of each key and the time when it was cached.

    All rows but the empty ones have different values. The methods are the steps of the test.
    """

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
        sizes = {"row": size, "shorter": size - 8, "longer": size + 8, "large": 900, "empty": 0}
        return self.filled.to_bytes(8, "little").ljust(900, b"\xaa")[: sizes[shape]]

    def fill(self, group_index: int, first: int, shapes: Sequence[str], times: int) -> None:
        """Cache rows `times` times. Repeated fills let them replace rows that are used less."""
        group = self.groups[group_index]
        keys = some_keys(first, len(shapes))
        values = [self.value(group, shape) for shape in shapes]
        for _ in range(times):
            self.cache.fill(group, keys, values)
        for key, value in zip(keys, values, strict=True):
            self.known[group.name, key] = (value, self.clock.now)

    def look_up(self, group_index: int, span: tuple[int, int]) -> None:
        self.compare(self.groups[group_index], some_keys(*span))

    def look_up_with_the_first_version(self, group_index: int, span: tuple[int, int]) -> None:
        group = self.groups[group_index]
        self.compare(replace(group, versions=group.versions[:1]), some_keys(*span))

    def compare(self, group: FeatureGroup, keys: Sequence[str]) -> None:
        counts = self.cache.counts
        hits, misses = counts.hits, counts.misses
        cached = read(self.cache, group, keys)
        for key, value in cached.items():
            assert (group.name, key) in self.known, f"{key} was forgotten, or never filled"
            last, filled_at = self.known[group.name, key]
            assert value == last
            assert self.clock.now - filled_at < FRESH_S
        assert counts.hits == hits + len(cached)
        assert counts.misses == misses + len(keys) - len(cached)

    def forget(self, group_index: int, span: tuple[int, int]) -> None:
        group, keys = self.groups[group_index], some_keys(*span)
        self.cache.forget(group.name, keys)
        for key in keys:
            self.known.pop((group.name, key), None)
        assert read(self.cache, group, keys) == {}

    def advance_clock(self, seconds: float) -> None:
        self.clock.now += seconds

    def add_version(self, group_index: int, features: Sequence[Feature]) -> None:
        group = self.groups[group_index]
        version = SchemaVersion(group.name, len(group.versions) + 1, tuple(features))
        self.groups[group_index] = replace(group, versions=(*group.versions, version))

    def check_bytes(self) -> None:
        absent = sum(value is None for value, _ in self.known.values())
        sketches = len(self.groups) * SMALLEST_SKETCH
        assert self.cache.nbytes <= self.max_bytes + sketches + absent * SLOT_BYTES


@pytest.mark.parametrize("moved_at_once", [1, MOVED_PER_LOOK_UP])
@settings(max_examples=100)
@given(
    st.permutations(GROUPS),
    st.sampled_from([4_000, 9_000, 60_000]),
    st.lists(STEPS, min_size=15, max_size=60),
)
def test_a_look_up_returns_the_last_cached_value_or_nothing(
    moved_at_once: int,
    groups: Sequence[FeatureGroup],
    max_bytes: int,
    steps: Sequence[tuple[Any, ...]],
) -> None:
    with patch.object(cache_module, "MOVED_PER_LOOK_UP", moved_at_once):
        compared = Compared(groups[:3], max_bytes)
        for name, *arguments in steps:
            getattr(compared, name)(*arguments)
            if moved_at_once > len(KEYS):
                compared.check_bytes()
        for group_index in [0, 1, 2] * len(KEYS):
            compared.look_up(group_index, (0, len(KEYS)))
        compared.check_bytes()


# guarantees


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def cache(clock: Clock) -> FeatureCache:
    return FeatureCache(1 << 20, FRESH_S, clock=clock)


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_rows_are_cached_until_they_are_not_fresh(
    cache: FeatureCache, clock: Clock, group: FeatureGroup
) -> None:
    size = row_bytes(group) or 33
    rows = {"1": b"a" * size, "2": None, "3": b"b" * (size + 1), "4": b"c" * size, "5": b"d"}
    cache.fill(group, list(rows), list(rows.values()))
    clock.now += FRESH_S - 0.001
    assert read(cache, group, ["5", "9", *"4321"]) == rows
    clock.now += 0.001
    assert read(cache, group, list(rows)) == {}
    cache.fill(group, ["2"], [b"e" * size])
    assert read(cache, group, list(rows)) == {"2": b"e" * size}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.name)
def test_the_last_fill_wins_for_rows_of_any_length(
    cache: FeatureCache, group: FeatureGroup
) -> None:
    size = row_bytes(group) or 33
    lengths = [size, size + 1, 0, size, None, size - 1, size + 9, None, 0, size + 1, 0]
    for number, length in enumerate(lengths):
        value = None if length is None else bytes([number]) * length
        cache.fill(group, ["1"], [value])
        assert read(cache, group, ["1"]) == {"1": value}


def test_the_same_key_in_two_groups_is_two_rows(cache: FeatureCache) -> None:
    for number, group in enumerate(GROUPS):
        cache.fill(group, ["1", "2"], [bytes([number]) * 48, None])
    cache.forget("product.stats", ["1", "2"])
    cache.forget("product.other", ["1"])
    assert read(cache, GROUPS[0], ["1", "2"]) == {}
    for number, group in enumerate(GROUPS[1:], start=1):
        assert read(cache, group, ["1", "2"]) == {"1": bytes([number]) * 48, "2": None}


def test_returned_rows_do_not_change_with_later_fills(cache: FeatureCache) -> None:
    keys = ["1", "2", "3"]
    cache.fill(STATS, keys, [b"a" * ROW] * 3)
    answer = cache.look_up(STATS, keys)
    cache.fill(STATS, keys, [b"b" * ROW] * 3)
    cache.forget(STATS.name, keys)
    cache.fill(STATS, ["7", "8", "9"], [b"c" * ROW] * 3)
    assert b"".join(map(bytes, answer.table)) == b"a" * 3 * ROW


def test_looking_up_no_keys_returns_no_rows(cache: FeatureCache) -> None:
    cache.fill(STATS, [], [])
    cache.forget(STATS.name, [])
    assert read(cache, STATS, []) == {}
    cache.fill(STATS, ["1", "2"], [b"loose", b"a" * ROW])
    assert read(cache, STATS, []) == {}
    assert (cache.counts.hits, cache.counts.misses) == (0, 0)


def test_nothing_is_cached_if_fresh_s_is_0(clock: Clock) -> None:
    cache = FeatureCache(1 << 20, 0.0, clock=clock)
    cache.fill(STATS, ["1", "2"], [b"a" * ROW, None])
    assert read(cache, STATS, ["1", "2"]) == {}


def test_a_new_group_shrinks_the_others_to_their_most_used_rows(clock: Clock) -> None:
    cache = FeatureCache(100 * (ROW + SLOT_BYTES), FRESH_S, clock=clock)
    keys = [str(i) for i in range(90)]
    values = {key: key.encode().ljust(ROW) for key in keys}
    cache.fill(STATS, keys, list(values.values()))
    cache.fill(STATS, ["7"], [b"loose"])
    used = [*keys[1:50:2]]
    for _ in range(3):
        cache.look_up(STATS, used)
    cache.fill(SUMMED, ["1"], [b"x" * row_bytes(SUMMED)])
    cached = read(cache, STATS, keys)
    assert cached == {key: b"loose" if key == "7" else values[key] for key in cached}
    # The row of key 7 is kept outside the table, and there may be no room left for it.
    assert {*used} - {"7"} <= {*cached}
    assert 49 <= len(cached) <= 50
    assert read(cache, SUMMED, ["1"]) == {"1": b"x" * row_bytes(SUMMED)}


def test_an_idle_group_gives_its_bytes_to_the_others(clock: Clock) -> None:
    cache = FeatureCache(30 * (ROW + SLOT_BYTES), 2 * IDLE_S, clock=clock)
    for group in (ATTRS, SUMMED, STATS):
        cache.look_up(group, ["1"])
    keys = [str(i) for i in range(20)]
    cache.fill(STATS, keys, [b"a" * ROW] * 20)
    assert len(read(cache, STATS, keys)) == 10
    clock.now += IDLE_S + 1
    kept = read(cache, STATS, keys)
    # One group is added and the two idle ones are dropped, so the share of STATS grows.
    cache.fill(TEXT, ["1"], [b"x"])
    assert read(cache, STATS, keys) == kept
    cache.fill(STATS, keys, [b"b" * ROW] * 20)
    assert read(cache, STATS, keys) == dict.fromkeys(list(read(cache, STATS, keys)), b"b" * ROW)
    assert len(read(cache, STATS, keys)) == 15
    assert cache.nbytes <= 30 * (ROW + SLOT_BYTES) + 3 * SMALLEST_SKETCH


def test_a_new_schema_version_leaves_no_outdated_rows(cache: FeatureCache) -> None:
    grown = group_of(STATS.name, NUMBERS, GROWN)
    cache.fill(STATS, ["1", "2"], [b"a" * ROW, b"b" * ROW])
    cache.fill(grown, ["1"], [b"c" * row_bytes(grown)])
    assert read(cache, STATS, ["1", "2"]).get("2", b"b" * ROW) == b"b" * ROW
    for group in (grown, STATS):
        assert read(cache, group, ["1"]) == {"1": b"c" * row_bytes(grown)}
        cache.fill(group, ["2"], [b"d" * ROW])
        assert read(cache, group, ["2"]) == {"2": b"d" * ROW}
    # Only the row of the new length is in the table.
    assert cache.look_up(grown, ["2", "1"]).table_positions.tolist() == [1]


def test_a_row_keeps_its_age_when_its_group_shrinks(clock: Clock) -> None:
    cache = FeatureCache(20 * (ROW + SLOT_BYTES), FRESH_S, clock=clock)
    keys = [str(i) for i in range(20)]
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


def test_a_refused_row_does_not_change_the_age_of_the_others(clock: Clock) -> None:
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


def test_a_row_that_replaces_another_is_returned_only_for_its_own_key(clock: Clock) -> None:
    """More keys than slots compete, with rows of two lengths."""
    cache = FeatureCache(3 * (ROW + SLOT_BYTES), FRESH_S, clock=clock)
    cache.fill(STATS, ["1", "2", "3"], [b"a" * ROW] * 3)
    for turn in range(60):
        keys = [f"{turn}.{i}" for i in range(6)]
        values: list[bytes | None] = [
            f"{key:4}".encode() * (ROW // 4 + i % 2) for i, key in enumerate(keys)
        ]
        for _ in range(turn + 2):
            cache.fill(STATS, keys, values)
            cached = read(cache, STATS, keys)
            assert cached == {key: v for key, v in zip(keys, values, strict=True) if key in cached}
