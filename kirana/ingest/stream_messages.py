"""Messages of a feature stream: each is the body of a write over HTTP, as Protobuf."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from kirana.codecs import Column
from kirana.codecs.arrow import joined_of
from kirana.codecs.rows import Texts
from kirana.errors import TooLarge
from kirana.ingest.feature_batch import FeatureBatch
from kirana.kafka.partitions import partitions_of
from kirana.key_texts import split_key_text
from kirana.ragged import positions_of
from kirana.schema import FeatureGroup, SchemaVersion
from kirana.wire.blocks import STRING, fill_block
from kirana.wire.messages_pb2 import Block, FeaturesPut

OVERHEAD_BYTES = 1_024
"""What a record adds to its value at most: the headers and Kafka's own fields."""

MAX_ROWS = 10_000
"""The limit for the rows of a write over HTTP."""


@dataclass(frozen=True, slots=True)
class Message:
    """Some rows of one group, all of which belong to one partition."""

    partition: int
    value: bytes
    rows: int


def put_messages(
    batch: FeatureBatch,
    group: FeatureGroup,
    version: SchemaVersion,
    *,
    partitions: int,
    max_bytes: int,
) -> Iterator[Message]:
    """Yield the rows of a batch as messages, by partition, each with at most `max_bytes`.

    A row belongs to the partition of its key text. Raise `TooLarge` if a single row does not fit.
    """
    keys, ends = joined_of(batch.keys)
    of_rows = partitions_of(keys, ends, partitions)
    order = np.argsort(of_rows, kind="stable")
    used, starts = np.unique(of_rows[order], return_index=True)
    for partition, rows in zip(used.tolist(), np.split(order, starts[1:]), strict=True):
        part = batch.selected(rows)
        yield from _messages(part, group, version, partition, max_bytes)


def _messages(
    batch: FeatureBatch,
    group: FeatureGroup,
    version: SchemaVersion,
    partition: int,
    max_bytes: int,
) -> Iterator[Message]:
    count = len(batch.keys)
    if count <= MAX_ROWS:
        value = _put(batch, group, version).SerializeToString()
        if len(value) + OVERHEAD_BYTES <= max_bytes:
            yield Message(partition, value, count)
            return
        if count == 1:
            raise TooLarge(
                f"the row of the key '{batch.keys[0]}' has {len(value)} bytes as a message, and "
                f"Kafka takes {max_bytes - OVERHEAD_BYTES}: raise max.message.bytes of the topic"
            )
    rows = np.arange(count)
    for half in (rows[: count // 2], rows[count // 2 :]):
        yield from _messages(batch.selected(half), group, version, partition, max_bytes)


def _put(batch: FeatureBatch, group: FeatureGroup, version: SchemaVersion) -> FeaturesPut:
    put = FeaturesPut(group=group.name, schema_version=version.number)
    ids = _ids(batch.keys.to_pylist(), len(group.entity.keys))
    for key, texts in zip(group.entity.keys, ids, strict=True):
        put.keys[key.name].texts.extend(texts)
    for name, column in batch.columns.items():
        _fill(put.columns[name], column)
    put.event_time.ms.extend(batch.event_time_ms.tolist())
    return put


def _ids(key_texts: list[str], keys: int) -> list[list[str]]:
    """Return the ids of key texts, one list per key of the entity."""
    if keys == 1 and not any("\\" in text for text in key_texts):
        return [key_texts]
    return [list(column) for column in zip(*map(split_key_text, key_texts), strict=True)]


def _fill(block: Block, column: Column | Texts) -> None:
    if isinstance(column, Column):
        fill_block(block, column.values, column.nulls)
        return
    block.dtype = STRING
    block.shape.append(len(column.sizes))
    block.data = column.data[positions_of(column.starts, column.sizes)].tobytes()
    block.lengths.extend(column.sizes.tolist())
    if column.nulls is not None:
        block.nulls = column.nulls.astype(np.uint8).tobytes()
