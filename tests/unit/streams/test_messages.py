"""Messages of a feature stream, read as the bodies of writes over HTTP."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from aiokafka.partitioner import DefaultPartitioner
from hypothesis import given
from hypothesis import strategies as st

from kirana.codecs import Column
from kirana.codecs.arrow import texts_of
from kirana.edge.limits import MAX_CELLS as HTTP_CELLS
from kirana.edge.limits import MAX_KEYS
from kirana.edge.messages import FeaturesDelete, FeaturesPut
from kirana.edge.protobuf import decode
from kirana.errors import TooLarge
from kirana.features.values import columns_of
from kirana.kafka.sending import Outgoing
from kirana.kafka.topics import Layout
from kirana.key_texts import join_ids, key_texts
from kirana.schema import Entity, Feature, FeatureGroup, Key, SchemaVersion
from kirana.streams.messages import (
    DELETE,
    MAX_CELLS,
    MAX_ROWS,
    OVERHEAD_BYTES,
    WRITE,
    DeleteRows,
    PutRows,
)

FEATURES = (Feature("n", "int32"), Feature("v", "float32", (2,)), Feature("s", "string"))
VERSION = SchemaVersion("user_genre.g", 3, FEATURES)
GROUP = FeatureGroup(
    "user_genre.g", Entity("user_genre", (Key("user_id"), Key("genre"))), 0, "packed", (VERSION,)
)

ids = st.text("ab|\\é", min_size=1, max_size=5)
rows = st.lists(
    st.tuples(ids, ids, st.integers(-5, 5), st.none() | st.text(max_size=5), st.integers(0, 9)),
    min_size=1,
    max_size=30,
)


def batch_of(values: list[tuple[str, str, int, str | None, int]]) -> PutRows:
    users, genres, numbers, texts, times = map(list, zip(*values, strict=True))
    nulls = np.array([text is None for text in texts])
    count = len(values)
    return PutRows(
        GROUP,
        VERSION,
        keys=pa.array(join_ids([users, genres]), pa.string()),
        columns={
            "n": Column(np.array(numbers, np.int32), nulls if nulls.any() else None),
            "v": Column(np.arange(2 * count, dtype=np.float32).reshape(count, 2)),
            "s": texts_of(pa.array([text or "" for text in texts], pa.string()), nulls),
        },
        event_time_ms=np.array(times, np.uint64),
    )


def rows_of(message: Outgoing) -> list[tuple[Any, ...]]:
    """Return the rows of a message, read as a request is."""
    put = decode(FeaturesPut, message.value)
    assert (put.group, put.schema_version) == (GROUP.name, 3)
    texts = key_texts(GROUP.entity, put.keys)
    columns = columns_of(VERSION, put.columns, len(texts))
    assert isinstance(put.event_time, list)
    cells = []
    for feature in FEATURES:
        column = columns[feature.name]
        nulls = [False] * len(texts) if column.nulls is None else column.nulls.tolist()
        values = column.values.tolist()
        cells.append([None if null else str(v) for v, null in zip(values, nulls, strict=True)])
    return list(zip(texts, *cells, put.event_time, strict=True))


@given(rows, st.integers(1, 8), st.integers(0, 2_000))
def test_the_rows_of_all_messages_are_those_of_the_batch(
    values: list[tuple[str, str, int, str | None, int]], partitions: int, room: int
) -> None:
    batch, most = batch_of(values), 500 + room + OVERHEAD_BYTES
    messages = list(batch.messages(Layout(partitions, most)))
    everything = list(range(partitions))
    found = []
    for message in messages:
        assert len(message.value) <= most - OVERHEAD_BYTES
        of_message = rows_of(message)
        assert len(of_message) == message.rows
        for key, *_ in of_message:
            assert DefaultPartitioner()(key.encode(), everything, everything) == message.partition
        found += of_message
    expected = [
        (
            key,
            None if text is None else str(number),
            str([2.0 * i, 2.0 * i + 1]),
            text,
            time,
        )
        for i, (key, (_, _, number, text, time)) in enumerate(
            zip(batch.keys.to_pylist(), values, strict=True)
        )
    ]
    assert sorted(found, key=str) == sorted(expected, key=str)


def test_a_row_that_is_too_large_is_named() -> None:
    batch = batch_of([("a", "b", 1, "x" * 5_000, 1)])
    with pytest.raises(TooLarge, match=r"the row of the key 'a\|b' has \d+ bytes .*max\.message"):
        list(batch.messages(Layout(4, 4_000)))


@given(st.lists(st.tuples(ids, ids, st.integers(0, 9)), min_size=1, max_size=30), st.booleans())
def test_the_rows_of_a_delete_are_those_of_its_messages(
    values: list[tuple[str, str, int]], force: bool
) -> None:
    users, genres, times = map(list, zip(*values, strict=True))
    keys = join_ids([users, genres])
    rows = DeleteRows(GROUP, pa.array(keys, pa.string()), np.array(times, np.uint64), force)
    found = []
    for message in rows.messages(Layout(3, 300 + OVERHEAD_BYTES)):
        assert message.headers == {WRITE: DELETE}
        delete = decode(FeaturesDelete, message.value)
        assert (delete.group, delete.force) == (GROUP.name, force)
        assert isinstance(delete.event_time, list)
        found += zip(key_texts(GROUP.entity, delete.keys), delete.event_time, strict=True)
    assert sorted(found) == sorted(zip(keys, times, strict=True))


def test_a_message_is_within_the_limits_of_a_write_over_http() -> None:
    assert (MAX_ROWS, MAX_CELLS) == (MAX_KEYS, HTTP_CELLS)
