"""Moves of a group's rows to a table of another size, a few rows per look-up."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kirana.codecs.packed.layout import row_bytes
from kirana.features.cache import feature_cache as cache_module
from kirana.features.cache.feature_cache import FeatureCache
from kirana.features.cache.group import SLOT_BYTES
from kirana.schema import FeatureGroup
from tests.unit.features.cache.cached import ATTRS, FRESH_S, GROUPS, ROW, STATS, SUMMED, TEXT, read

pytestmark = pytest.mark.usefixtures("inner_loops")

FEW_ROWS = 3
KEYS = [str(i) for i in range(40)]
ROOM = 60 * (ROW + SLOT_BYTES)


@pytest.fixture(autouse=True)
def _move_few_rows_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "MOVED_PER_LOOK_UP", FEW_ROWS)


def value(number: int) -> bytes:
    return number.to_bytes(4, "little") * (ROW // 4)


def filled(cache: FeatureCache) -> dict[str, bytes]:
    """Fill the cache with a row for each of `KEYS`; return the rows by key."""
    rows = {key: value(number) for number, key in enumerate(KEYS)}
    cache.fill(STATS, list(rows), list(rows.values()))
    return rows


def test_a_group_can_be_read_while_another_takes_its_share() -> None:
    cache = FeatureCache(ROOM, FRESH_S, clock=lambda: 0.0)
    rows = filled(cache)
    for _ in range(3):
        # Half of the keys are used more often than the others.
        cache.look_up(STATS, KEYS[:20])
    assert read(cache, ATTRS, ["x"]) == {}
    assert read(cache, STATS, KEYS) == rows
    for _ in range(len(KEYS)):
        # A look-up of any group moves rows.
        cache.look_up(ATTRS, [])
    assert read(cache, STATS, KEYS[:20]) == {key: rows[key] for key in KEYS[:20]}
    assert len(read(cache, STATS, KEYS)) == 30
    assert cache.nbytes <= ROOM + 4 * 1_024
    assert cache.counts.evicted == 10


def test_changes_during_a_move_are_kept_after_it() -> None:
    cache = FeatureCache(ROOM, FRESH_S, clock=lambda: 0.0)
    cache.fill(STATS, ["1", "2", "3", "4"], [value(0)] * 4)
    cache.look_up(ATTRS, ["x"])
    cache.fill(STATS, ["1", "new"], [value(7), value(8)])
    cache.fill(STATS, ["4", "no"], [None, None])
    cache.forget(STATS.name, ["2"])
    for _ in range(4):
        assert read(cache, STATS, ["1", "2", "3", "4", "new", "no"]) == {
            "1": value(7),
            "3": value(0),
            "4": None,
            "new": value(8),
            "no": None,
        }


@pytest.mark.parametrize("group", [ATTRS, TEXT, STATS], ids=lambda group: group.name)
def test_the_most_used_rows_are_kept_in_a_move(group: FeatureGroup) -> None:
    cache = FeatureCache(60 * (300 + SLOT_BYTES), FRESH_S, clock=lambda: 0.0)
    size = row_bytes(group) or 300
    cold, hot = [f"cold{i}" for i in range(30)], [f"hot{i}" for i in range(20)]
    for keys in (cold, hot):
        cache.fill(group, keys, [b"x" * size] * len(keys))
    for _ in range(5):
        cache.look_up(group, hot)
    cache.look_up(SUMMED, ["x"])
    for _ in range(len(cold)):
        cache.look_up(SUMMED, ["x"])
    assert len(read(cache, group, hot)) == len(hot)


def test_one_off_keys_do_not_take_the_room_of_rows_that_are_still_to_move() -> None:
    cache = FeatureCache(ROOM, FRESH_S, clock=lambda: 0.0)
    rows = filled(cache)
    hot = KEYS[:30]
    for _ in range(5):
        cache.look_up(STATS, hot)
    cache.look_up(ATTRS, ["x"])
    for turn in range(20):
        cache.fill(STATS, [f"once{turn}-{n}" for n in range(FEW_ROWS)], [value(99)] * FEW_ROWS)
    assert read(cache, STATS, hot) == {key: rows[key] for key in hot}


def test_a_move_keeps_the_time_when_a_group_was_last_read() -> None:
    now = [0.0]
    cache = FeatureCache(3 * ROOM, 1e6, clock=lambda: now[0])
    rows = filled(cache)
    cache.look_up(ATTRS, ["x"])
    now[0] = cache_module.IDLE_S - 10.0
    cache.look_up(STATS, KEYS)
    for _ in range(len(KEYS)):
        cache.look_up(ATTRS, ["x"])
    now[0] = cache_module.IDLE_S + 10.0
    cache.look_up(SUMMED, ["x"])
    assert read(cache, STATS, KEYS) == rows


def test_a_share_that_is_restored_during_a_move_ends_the_move() -> None:
    now = [0.0]
    cache = FeatureCache(ROOM, 1e6, clock=lambda: now[0])
    rows = filled(cache)
    cache.look_up(ATTRS, ["x"])
    now[0] = cache_module.IDLE_S
    cache.look_up(STATS, KEYS[:1])
    now[0] += 1.0
    # ATTRS, which took the share, is idle now.
    cache.look_up(SUMMED, ["x"])
    cache.look_up(GROUPS[1], ["x"])
    for _ in range(len(KEYS)):
        cached = read(cache, STATS, KEYS)
        assert cached.items() <= rows.items()
    assert len(cached) == ROOM // 3 // (ROW + SLOT_BYTES)


CHANGES = st.lists(
    st.tuples(
        st.sampled_from(["fill", "forget", "absent", "read", "add_group"]),
        st.lists(st.sampled_from(KEYS), max_size=8, unique=True),
    ),
    max_size=60,
)


@settings(max_examples=150)
@given(CHANGES, st.integers(1, 3))
def test_only_the_last_value_of_a_key_is_ever_read(
    changes: list[tuple[str, list[str]]], room: int
) -> None:
    cache = FeatureCache(room * ROOM, FRESH_S, clock=lambda: 0.0)
    expected: dict[str, bytes | None] = {}
    more_groups = iter(GROUPS[1:])
    for number, (change, keys) in enumerate(changes):
        if change == "fill":
            cache.fill(STATS, keys, [value(number)] * len(keys))
            expected |= dict.fromkeys(keys, value(number))
        elif change == "absent":
            cache.fill(STATS, keys, [None] * len(keys))
            expected |= dict.fromkeys(keys)
        elif change == "forget":
            cache.forget(STATS.name, keys)
            for key in keys:
                expected.pop(key, None)
        elif change == "add_group" and (group := next(more_groups, None)) is not None:
            cache.look_up(group, ["x"])
        assert read(cache, STATS, KEYS).items() <= expected.items()
