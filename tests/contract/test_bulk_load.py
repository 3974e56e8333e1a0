"""Bulk loads: they store the bytes of a block, and guarded loads compare event times."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import redis

from kirana.codecs import CODECS, Codec, Column
from kirana.codecs.packed.codec import Packed
from kirana.codecs.rows import Texts
from kirana.errors import Unavailable
from kirana.redis.slots import joined_slots
from kirana.schema import Entity, Feature, FeatureGroup, Key, SchemaVersion
from kirana.stores import FeatureStore, RowBlock, open_feature_store
from kirana.stores.row_keys import block_keys
from tests.redis_servers import RedisServers, execute
from tests.store_calls import counts_stale, load_rows, read_values

NOW_MS = int(time.time()) * 1_000
HOUR_MS = 3_600_000
FEATURES = (Feature("a", "float32"), Feature("b", "int32"))
PACKED = Packed()


def group_of(ttl_ms: int) -> FeatureGroup:
    version = SchemaVersion("product.g", 1, FEATURES)
    return FeatureGroup("product.g", Entity("product", (Key("id"),)), ttl_ms, "packed", (version,))


def block_of(
    keys: Sequence[str],
    times: Sequence[int],
    seed: int = 0,
    ttl_ms: int = HOUR_MS,
    codec: Codec = PACKED,
) -> RowBlock:
    group = group_of(ttl_ms)
    rng = np.random.default_rng(seed)
    columns = {
        "a": Column(rng.random(len(keys), dtype=np.float32)),
        "b": Column(rng.integers(0, 99, len(keys), dtype=np.int32)),
    }
    event_times = np.array(times, dtype=np.uint64)
    values, value_ends = codec.encode_block(group, group.current, columns, event_times)
    encoded = [key.encode() for key in keys]
    return RowBlock(
        "product.g",
        codec,
        np.frombuffer(b"".join(encoded), dtype=np.uint8),
        np.cumsum([len(key) for key in encoded], dtype=np.int64),
        values,
        value_ends,
        group.expiry_s(event_times),
        event_times,
    )


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("ttl_ms", [HOUR_MS, 0])
async def test_a_load_stores_the_bytes_of_the_block(
    store: FeatureStore, guarded: bool, ttl_ms: int
) -> None:
    keys = [str(n) for n in range(0, 3_000, 7)] + ["ünïcode", "with space", "x" * 300]
    block = block_of(keys, [NOW_MS + n for n in range(len(keys))], ttl_ms=ttl_ms)
    assert await load_rows(store, block, guarded=guarded) == len(keys)
    assert await read_values(store, block.key_list()) == block.value_list()
    rows = PACKED.decode(block.value_list(), group_of(ttl_ms), NOW_MS / 1000)
    assert set(rows.status.tolist()) == {0}


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_a_guarded_load_leaves_newer_rows_alone(store: FeatureStore, codec: Codec) -> None:
    keys = [str(n) for n in range(1_000)]
    first = block_of(keys, [NOW_MS] * len(keys), seed=1, codec=codec)
    await load_rows(store, first)
    times = [NOW_MS + (1 if n % 3 == 0 else -1) for n in range(len(keys))]
    second = block_of(keys, times, seed=2, codec=codec)
    newer = [time > NOW_MS for time in times]
    stored = await load_rows(store, second)
    assert stored == (sum(newer) if counts_stale(store) else len(keys))
    expected = [
        new if wins else old
        for new, old, wins in zip(second.value_list(), first.value_list(), newer, strict=True)
    ]
    assert await read_values(store, first.key_list()) == expected


async def test_an_unguarded_load_may_replace_newer_rows_of_its_keys_only(
    store: FeatureStore,
) -> None:
    keys = [str(i) for i in range(10)]
    first, second = block_of(keys, [NOW_MS] * 10, 1), block_of(keys[:5], [NOW_MS - 1] * 5, 2)
    await load_rows(store, first)
    await load_rows(store, second, guarded=False)
    values = await read_values(store, first.key_list())
    for i, value in enumerate(values):
        assert value in (first.value_list()[i], [*second.value_list(), *[None] * 5][i])
    assert values[5:] == first.value_list()[5:]


async def test_a_load_stores_rows_of_many_sizes_as_the_codec_encodes_them(
    store: FeatureStore,
) -> None:
    times = np.full(500, NOW_MS, dtype=np.uint64)
    sizes = np.arange(500) * 7 % 40
    texts = Texts(np.full(sizes.sum(), ord("x"), np.uint8), np.cumsum(sizes) - sizes, sizes)
    words = np.array(["x" * size for size in sizes.tolist()], dtype=object)
    version = SchemaVersion("product.g", 1, (Feature("a", "string"),))
    group = FeatureGroup("product.g", group_of(0).entity, HOUR_MS, "packed", (version,), True)
    values, value_ends = PACKED.encode_block(group, version, {"a": texts}, times)
    template = block_of([str(n) for n in range(500)], [NOW_MS] * 500)
    block = replace(template, values=values, value_ends=value_ends)
    for guarded in (True, False):
        assert await load_rows(store, block, guarded=guarded) == 500
        stored = await read_values(store, block.key_list())
        assert stored == PACKED.encode(group, version, {"a": Column(words)}, times)


async def test_a_load_of_no_rows_is_allowed(store: FeatureStore) -> None:
    assert await load_rows(store, block_of([], [])) == 0


async def test_the_newest_row_stays_if_a_load_repeats_a_key(store: FeatureStore) -> None:
    block = block_of(["1", "1", "1"], [NOW_MS, NOW_MS + 2, NOW_MS + 1])
    assert await load_rows(store, block) == (2 if counts_stale(store) else 3)
    assert await read_values(store, block.key_list()[:1]) == block.value_list()[1:2]


@pytest.mark.parametrize("guarded", [True, False])
async def test_the_newest_row_stays_if_rows_of_a_key_differ_in_size(
    store: FeatureStore, guarded: bool
) -> None:
    words = [b"a long one", b"short", b"between"]
    sizes = np.array([len(word) for word in words], dtype=np.int64)
    texts = Texts(np.frombuffer(b"".join(words), np.uint8), np.cumsum(sizes) - sizes, sizes)
    version = SchemaVersion("product.g", 1, (Feature("a", "string"),))
    group = FeatureGroup("product.g", group_of(0).entity, HOUR_MS, "packed", (version,))
    template = block_of(["1", "1", "1"], [NOW_MS, NOW_MS + 2, NOW_MS + 1])
    values, value_ends = PACKED.encode_block(group, version, {"a": texts}, template.event_time_ms)
    block = replace(template, values=values, value_ends=value_ends)
    await load_rows(store, block, guarded=guarded)
    assert await read_values(store, block.key_list()[:1]) == block.value_list()[1:2]


@pytest.mark.parametrize("guarded", [True, False])
@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
async def test_the_later_row_stays_if_rows_of_a_key_have_the_same_time(
    store: FeatureStore, codec: Codec, guarded: bool
) -> None:
    words = [b"a long one", b"b", b"b", b"a long one", b"between", b"b"]
    sizes = np.array([len(word) for word in words], dtype=np.int64)
    texts = Texts(np.frombuffer(b"".join(words), np.uint8), np.cumsum(sizes) - sizes, sizes)
    version = SchemaVersion("product.g", 1, (Feature("a", "string"),))
    group = FeatureGroup("product.g", group_of(0).entity, HOUR_MS, codec.name, (version,))
    template = block_of(["1", "1", "2", "2", "10", "1"], [NOW_MS] * 6)
    values, value_ends = codec.encode_block(group, version, {"a": texts}, template.event_time_ms)
    block = replace(template, values=values, value_ends=value_ends)
    assert await load_rows(store, block, guarded=guarded) == 6
    keys, rows = block.key_list(), block.value_list()
    assert await read_values(store, [keys[5], keys[3], keys[4]]) == [
        rows[5],
        rows[3],
        rows[4],
    ]


@pytest.mark.parametrize("guarded", [True, False])
async def test_redis_keeps_a_row_for_a_grace_period_after_its_expiry(
    servers: RedisServers, guarded: bool
) -> None:
    url = servers.empty("redis 7")
    store = open_feature_store(url)
    await load_rows(store, block_of(["1"], [NOW_MS]), guarded=guarded)
    await store.close()
    with redis.Redis.from_url(url) as client:
        assert client.pexpiretime("f:product.g:1") == NOW_MS + HOUR_MS + HOUR_MS // 10


@pytest.mark.parametrize("guarded", [True, False])
async def test_a_load_into_a_full_redis_is_an_error_until_rows_are_removed(
    servers: RedisServers, guarded: bool
) -> None:
    port = servers.start("--maxmemory", "3mb", "--maxmemory-policy", "noeviction")
    store = open_feature_store(f"redis://127.0.0.1:{port}")
    block = block_of([str(n) for n in range(50_000)], [NOW_MS] * 50_000)
    with pytest.raises(Unavailable, match="maxmemory"):
        await load_rows(store, block, guarded=guarded)
    with redis.Redis(port=port) as client:
        client.flushall()
    small = block_of(["1", "2"], [NOW_MS] * 2)
    assert await load_rows(store, small, guarded=guarded) == 2
    assert await read_values(store, small.key_list()) == small.value_list()
    await store.close()
    servers.kill(port)


async def test_a_load_into_a_dead_redis_is_an_error(servers: RedisServers) -> None:
    port = servers.start()
    store = open_feature_store(f"redis://127.0.0.1:{port}")
    block = block_of([str(n) for n in range(1_000)], [NOW_MS] * 1_000)
    assert await load_rows(store, block) == 1_000
    servers.kill(port)
    with pytest.raises(Unavailable, match=f"127.0.0.1:{port}"):
        await load_rows(store, block, guarded=False)
    await store.close()


@pytest.mark.parametrize(("guarded", "command"), [(True, "evalsha"), (False, "set")])
async def test_a_load_sends_each_row_directly_to_its_node(
    servers: RedisServers, guarded: bool, command: str
) -> None:
    url = servers.empty("redis cluster")
    for node in servers.cluster:
        execute(node, "CONFIG RESETSTAT")
    store = open_feature_store(url)
    block = block_of(
        [f"{{{n % 7}}}{n}" if n % 2 else str(n) for n in range(3_000)], [NOW_MS] * 3_000
    )
    assert await load_rows(store, block, guarded=guarded) == 3_000
    assert await read_values(store, block.key_list()) == block.value_list()
    await store.close()
    stats = [
        execute(node, "INFO", "commandstats")[f"cmdstat_{command}"] for node in servers.cluster
    ]
    assert sum(counts["calls"] for counts in stats) == 3_000
    assert all(counts["rejected_calls"] == counts["failed_calls"] == 0 for counts in stats)


@pytest.mark.parametrize("guarded", [True, False])
async def test_rows_of_a_moved_slot_are_written_to_its_new_node(
    own: RedisServers, guarded: bool
) -> None:
    nodes = own.start_cluster()
    store = open_feature_store(f"redis+cluster://127.0.0.1:{nodes[0]}")
    block = block_of([str(i) for i in range(1_000)], [NOW_MS] * 1_000)
    assert await load_rows(store, block, guarded=guarded) == 1_000
    slot = joined_slots(block.keys, block.key_ends, b"f:product.g:")[0]
    source = next(node for node in nodes if slot in slots_on(node))
    target = next(node for node in nodes if node != source)
    target_id = execute(target, "CLUSTER MYID")
    execute(target, "CLUSTER SETSLOT", int(slot), "IMPORTING", execute(source, "CLUSTER MYID"))
    execute(source, "CLUSTER SETSLOT", int(slot), "MIGRATING", target_id)
    slots = joined_slots(block.keys, block.key_ends, b"f:product.g:")
    keys = [block_keys(block)[i] for i in np.flatnonzero(slots == slot)]
    execute(source, "MIGRATE", "127.0.0.1", target, "", 0, 5_000, "KEYS", *keys)
    for node in (target, source, *nodes):
        execute(node, "CLUSTER SETSLOT", int(slot), "NODE", target_id)
    newer = block_of([str(i) for i in range(1_000)], [NOW_MS + 1] * 1_000, seed=1)
    assert await load_rows(store, newer, guarded=guarded) == 1_000
    assert await read_values(store, newer.key_list()) == newer.value_list()
    await store.close()


def slots_on(node: int) -> set[int]:
    nodes = execute(node, "CLUSTER NODES").values()
    ranges = next(entry for entry in nodes if "myself" in entry["flags"])["slots"]
    return {slot for low, high in ranges for slot in range(int(low), int(high) + 1)}
