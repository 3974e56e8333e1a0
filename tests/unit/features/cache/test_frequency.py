"""The sketch of how often keys were asked for, against plain counts."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.features.cache.frequency import FrequencySketch, Hashes

FEW = settings(max_examples=50)
MOST = 255
HASHES = st.integers(0, 2**64 - 1)
BATCHES = st.lists(st.sets(HASHES, max_size=20), max_size=12)


def hashes(*numbers: int) -> Hashes:
    return np.array(numbers, dtype=np.uint64)


def random_hashes(count: int, seed: int) -> Hashes:
    return np.random.default_rng(seed).integers(0, 2**64, count, dtype=np.uint64)


@FEW
@given(BATCHES, st.integers(1, 40))
def test_a_count_is_never_too_low(batches: list[set[int]], keys: int) -> None:
    sketch = FrequencySketch(keys)
    counted: Counter[int] = Counter()
    for batch in map(sorted, batches):
        counted.update(batch)
        found = sketch.add(hashes(*batch))
        assert found.dtype == np.uint8
        assert len(found) == len(batch)
        assert all(count >= counted[key] for key, count in zip(batch, found.tolist(), strict=True))


@FEW
@given(BATCHES, st.integers(0, 3))
def test_a_halved_count_is_never_too_low_either(batches: list[set[int]], halvings: int) -> None:
    sketch = FrequencySketch(20)
    counted: Counter[int] = Counter()
    for batch in map(sorted, batches):
        counted.update(batch)
        sketch.add(hashes(*batch))
    for _ in range(halvings):
        sketch.halve()
    for key, count in counted.items():
        assert int(sketch.add(hashes(key))[0]) >= (count >> halvings) + 1


def test_a_key_alone_is_counted_exactly_and_no_further_than_a_byte() -> None:
    sketch = FrequencySketch(10)
    key = hashes(0x1234_5678_9ABC_DEF0)
    found = [int(sketch.add(key)[0]) for _ in range(300)]
    assert found == [*range(1, MOST + 1), *[MOST] * (300 - MOST)]
    sketch.halve()
    assert sketch.add(key).tolist() == [MOST // 2 + 1]


def test_no_keys_have_no_counts() -> None:
    sketch = FrequencySketch(10)
    assert sketch.add(hashes()).tolist() == []
    assert sketch.add(hashes(7)).tolist() == [1]


def test_counts_of_many_keys_are_seldom_too_high() -> None:
    keys = 4_000
    sketch = FrequencySketch(keys)
    asked = random_hashes(keys, seed=7)
    for _ in range(5):
        found = sketch.add(asked)
    assert np.count_nonzero(found > 5) < keys // 50
    strangers = sketch.add(random_hashes(keys, seed=8))
    assert np.count_nonzero(strangers > 1) < keys // 10


def test_neighbouring_hashes_do_not_share_their_counts() -> None:
    """Those of small integers are the integers."""
    sketch = FrequencySketch(1_000)
    assert int(sketch.add(hashes(*range(1_000))).max()) == 1
    strangers = sketch.add(hashes(*range(1_000, 2_000)))
    assert np.count_nonzero(strangers > 1) < 50


@pytest.mark.parametrize("keys", [1, 2, 63, 64, 65, 1_000, 100_000])
def test_it_is_small_beside_what_it_counts(keys: int) -> None:
    assert 16 * keys <= FrequencySketch(keys).nbytes <= max(32 * keys, 1_024)
