"""`FrequencySketch`, compared with exact counts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.features.cache.frequency import FrequencySketch, Hashes

FEWER_EXAMPLES = settings(max_examples=50)
MAX_COUNT = 255
HASHES = st.integers(0, 2**64 - 1)
BATCHES = st.lists(st.sets(HASHES, max_size=20), max_size=12)


def hashes(*numbers: int) -> Hashes:
    return np.array(numbers, dtype=np.uint64)


def random_hashes(count: int, seed: int) -> Hashes:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


@FEWER_EXAMPLES
@given(BATCHES, st.integers(1, 40))
def test_a_count_is_never_too_low(batches: list[set[int]], keys: int) -> None:
    sketch = FrequencySketch(keys)
    exact: Counter[int] = Counter()
    for batch in map(sorted, batches):
        exact.update(batch)
        counts = sketch.add(hashes(*batch))
        assert counts.dtype == np.uint8
        assert len(counts) == len(batch)
        assert all(count >= exact[key] for key, count in zip(batch, counts.tolist(), strict=True))


@FEWER_EXAMPLES
@given(BATCHES, st.integers(0, 3))
def test_a_halved_count_is_never_too_low(batches: list[set[int]], halvings: int) -> None:
    sketch = FrequencySketch(20)
    exact: Counter[int] = Counter()
    for batch in map(sorted, batches):
        exact.update(batch)
        sketch.add(hashes(*batch))
    for _ in range(halvings):
        sketch.halve()
    for key, count in exact.items():
        assert int(sketch.add(hashes(key))[0]) >= (count >> halvings) + 1


def test_a_lone_key_is_counted_exactly_up_to_255() -> None:
    sketch = FrequencySketch(10)
    key = hashes(0x1234_5678_9ABC_DEF0)
    counts = [int(sketch.add(key)[0]) for _ in range(300)]
    assert counts == [*range(1, MAX_COUNT + 1), *[MAX_COUNT] * (300 - MAX_COUNT)]
    sketch.halve()
    assert sketch.add(key).tolist() == [MAX_COUNT // 2 + 1]


def test_adding_no_keys_changes_no_counts() -> None:
    sketch = FrequencySketch(10)
    assert sketch.add(hashes()).tolist() == []
    assert sketch.add(hashes(7)).tolist() == [1]


def test_counts_of_many_keys_are_seldom_too_high() -> None:
    keys = 4_000
    sketch = FrequencySketch(keys)
    known = random_hashes(keys, seed=7)
    for _ in range(5):
        counts = sketch.add(known)
    assert np.count_nonzero(counts > 5) < keys // 50
    first_counts = sketch.add(random_hashes(keys, seed=8))
    assert np.count_nonzero(first_counts > 1) < keys // 10


def test_consecutive_hashes_seldom_share_counts() -> None:
    """Python's hash of a small integer is the integer itself."""
    sketch = FrequencySketch(1_000)
    assert int(sketch.add(hashes(*range(1_000))).max()) == 1
    first_counts = sketch.add(hashes(*range(1_000, 2_000)))
    assert np.count_nonzero(first_counts > 1) < 50


@pytest.mark.parametrize("keys", [1, 2, 63, 64, 65, 1_000, 100_000])
def test_a_sketch_takes_at_most_32_bytes_per_key_or_1_kib(keys: int) -> None:
    assert 16 * keys <= FrequencySketch(keys).nbytes <= max(32 * keys, 1_024)
