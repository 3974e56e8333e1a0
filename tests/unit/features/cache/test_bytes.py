"""Memory of the cache: its limit, and how much the process grows."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from kirana.codecs.packed.layout import row_bytes
from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.cache.group import ABSENT_SHARE, SLOT_BYTES
from kirana.schema import Feature
from tests.clock import Clock
from tests.unit.features.cache.cached import (
    ATTRS,
    FRESH_S,
    GROUPS,
    NUMBERS,
    ROW,
    SMALLEST_SKETCH,
    STATS,
    TEXT,
    read,
)
from tests.unit.features.counted_store import group_of

pytestmark = pytest.mark.usefixtures("inner_loops")

MANY = [str(i) for i in range(5_000)]


def rows_that_grow(cache: FeatureCache) -> None:
    """Cache small rows, then much larger rows for the same keys."""
    cache.fill(ATTRS, MANY, [b"x" * 30] * len(MANY))
    cache.fill(ATTRS, MANY, [b"x" * 10_000] * len(MANY))


def large_rows_that_replace_small_ones(cache: FeatureCache) -> None:
    cache.fill(ATTRS, MANY, [b"x" * 30] * len(MANY))
    for turn in range(3):
        for _ in range(3):
            cache.fill(ATTRS, [f"{key}.{turn}" for key in MANY], [b"x" * 5_000] * len(MANY))


def large_rows_one_by_one(cache: FeatureCache) -> None:
    for key in MANY:
        cache.fill(ATTRS, [key], [b"x" * 2_000])


def small_rows_of_text(cache: FeatureCache) -> None:
    for start in range(0, len(MANY), 500):
        cache.fill(TEXT, MANY[start : start + 500], [b"x" * 300] * 500)


def rows_of_an_older_version(cache: FeatureCache) -> None:
    """Cache rows whose length is not that of the newest schema version."""
    grown = group_of(STATS.name, NUMBERS, [*NUMBERS, Feature("v", "float32", (200,))])
    for start in range(0, len(MANY), 500):
        cache.fill(grown, MANY[start : start + 500], [b"x" * 400] * 500)


def rows_of_every_group(cache: FeatureCache) -> None:
    for start in range(0, len(MANY), 500):
        for group in GROUPS:
            size = row_bytes(group) or 300
            cache.fill(group, MANY[start : start + 500], [b"x" * size] * 500)


def rows_that_are_forgotten(cache: FeatureCache) -> None:
    """Cache rows and forget them; assert that their bytes are free immediately."""
    for group in (ATTRS, TEXT):
        cache.fill(group, ["1"], [b"y"])
        before = cache.nbytes
        for start in range(0, len(MANY), 100):
            cache.fill(group, MANY[start : start + 100], [b"x" * 4_000] * 100)
            cache.forget(group.name, MANY)
        assert cache.nbytes < before + 100_000
        cache.fill(group, ["1"], [b"y" * 4_000])
        assert read(cache, group, ["1"]) == {"1": b"y" * 4_000}


def keys_without_a_row(cache: FeatureCache) -> None:
    for start in range(0, 100_000, 500):
        cache.fill(STATS, [f"none{n}" for n in range(start, start + 500)], [None] * 500)


@pytest.mark.parametrize(
    "fill",
    [
        rows_that_grow,
        large_rows_that_replace_small_ones,
        large_rows_one_by_one,
        small_rows_of_text,
        rows_of_an_older_version,
        rows_of_every_group,
        rows_that_are_forgotten,
        keys_without_a_row,
    ],
    ids=lambda fill: fill.__name__,
)
def test_the_cache_exceeds_its_bytes_only_by_sketches_and_absent_keys(
    fill: Callable[[FeatureCache], None],
) -> None:
    max_bytes = 1 << 20
    cache = FeatureCache(max_bytes, FRESH_S, clock=Clock())
    fill(cache)
    # A sketch takes 16 to 32 bytes per slot.
    slack = max_bytes * 32 // SLOT_BYTES + len(GROUPS) * SMALLEST_SKETCH
    if fill is keys_without_a_row:
        slack += max_bytes // ABSENT_SHARE
    assert cache.nbytes <= max_bytes + slack


def test_a_flood_of_keys_without_rows_does_not_evict_a_row() -> None:
    cache = FeatureCache(1 << 20, FRESH_S, clock=Clock())
    cache.fill(STATS, ["1"], [b"a" * ROW])
    flood = [f"none{i}" for i in range(100_000)]
    cache.fill(STATS, flood, [None] * len(flood))
    assert read(cache, STATS, ["1"]) == {"1": b"a" * ROW}
    cache.fill(STATS, ["none1"], [None])
    assert read(cache, STATS, ["none1"]) == {"none1": None}


# the memory of a process

MEASURE = """
import os, sys
import numpy as np
from kirana.codecs.packed.layout import row_bytes
from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.cache.group import SLOT_BYTES
from kirana.schema import Entity, Feature, FeatureGroup, Key, SchemaVersion

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

count, step = int(sys.argv[1]), 500
version = SchemaVersion("product.wide", 1, (Feature("v", "float32", (59,)),))
entity = Entity("product", (Key("product_id"),))
group = FeatureGroup("product.wide", entity, 0, "packed", (version,))
size = row_bytes(group)
assert size == 264, size
random = np.random.default_rng(0)

def load(cache, first):
    keys = [str(number) for number in range(first, first + step)]
    assert len(cache.look_up(group, keys).missing) == step
    cache.fill(group, keys, [random.bytes(size) for _ in keys])

load(FeatureCache(1 << 20, 60.0), 100_000)
cache = FeatureCache(count * (size + SLOT_BYTES), 3600.0)
before = resident()
for first in range(100_000, 100_000 + count, step):
    load(cache, first)
grown = resident() - before
all_keys = [str(number) for number in range(100_000, 100_000 + count)]
assert not len(cache.look_up(group, all_keys).missing)
print(grown / (count * (6 + size)), cache.nbytes / grown)
"""


def test_a_process_grows_by_less_than_twice_the_bytes_of_keys_and_rows() -> None:
    """The frequency sketch doubles above 131,072 keys, so its size per key is large here."""
    command = [sys.executable, "-c", MEASURE, "135000"]
    repository = Path(__file__).parents[4]
    completed = subprocess.run(
        command, cwd=repository, capture_output=True, text=True, check=True, timeout=120
    )
    growth_ratio, reported_ratio = map(float, completed.stdout.split())
    assert 1.0 < growth_ratio < 2.0
    # The `nbytes` of the cache is close to the growth of the process.
    assert 0.75 < reported_ratio < 1.4
