"""Messages of a feature stream: each is the body of a write over HTTP, as Protobuf."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from kirana.catalog.snapshot import Catalog
from kirana.codecs import Column
from kirana.codecs.arrow import joined_of
from kirana.codecs.rows import Texts, selected
from kirana.errors import TooLarge
from kirana.features.source import FeatureWrite
from kirana.kafka.partitions import partitions_of
from kirana.kafka.sending import Outgoing
from kirana.kafka.topics import Layout
from kirana.key_texts import split_key_text
from kirana.ragged import positions_of
from kirana.schema import FeatureGroup, SchemaVersion
from kirana.wire.blocks import STRING, fill_block
from kirana.wire.messages_pb2 import Block, FeaturesDelete, FeaturesPut, Ids

WRITE = "kirana-write"
"""The header that says what a message does: `PUT`, as without it, or `DELETE`."""

PUT, DELETE = b"put", b"delete"

OVERHEAD_BYTES = 1_024
"""What a record adds to its value at most: the headers and Kafka's own fields."""

MAX_ROWS = 10_000
"""The limit for the rows of a write over HTTP."""

MAX_CELLS = 2_000_000
"""The limit for the cells of a write over HTTP."""

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class PutRows:
    """Rows of one group to be sent.

    `keys` are key texts. `columns` has the values of each feature by its name. `event_time_ms` has
    one entry per row, in Unix milliseconds.
    """

    group: FeatureGroup
    version: SchemaVersion
    keys: pa.StringArray
    columns: Mapping[str, Column | Texts]
    event_time_ms: npt.NDArray[np.uint64]

    @classmethod
    def of(cls, write: FeatureWrite, catalog: Catalog) -> PutRows:
        """Return the rows of a write. Raise `Unknown` or `InvalidInput` as a write does."""
        group = catalog.group(write.group, field="group")
        version = group.version_or_current(write.schema_version)
        keys = pa.array(write.keys, pa.string())
        return cls(group, version, keys, write.columns, write.event_time_ms)

    def taken(self, rows: Rows) -> PutRows:
        """Return only the rows at these positions."""
        columns = {name: selected(column, rows) for name, column in self.columns.items()}
        keys = self.keys.take(pa.array(rows))
        return PutRows(self.group, self.version, keys, columns, self.event_time_ms[rows])

    def messages(self, layout: Layout) -> Iterator[Outgoing]:
        """Yield the rows as messages, by partition, each as large as the topic takes.

        A row belongs to the partition of its key text. Raise `TooLarge` if a single row does not
        fit.
        """
        rows = min(MAX_ROWS, max(1, MAX_CELLS // len(self.version.features)))
        yield from _by_partition(self.keys, self._body, layout, rows, {})

    def _body(self, rows: Rows) -> bytes:
        taken = self.taken(rows)
        put = FeaturesPut(group=self.group.name, schema_version=self.version.number)
        _fill_keys(put.keys, self.group, taken.keys)
        for name, column in taken.columns.items():
            _fill(put.columns[name], column)
        put.event_time.ms.extend(taken.event_time_ms.tolist())
        return put.SerializeToString()


@dataclass(frozen=True, slots=True)
class DeleteRows:
    """Rows of one group to be deleted. The fields are those of `PutRows`, and of a delete."""

    group: FeatureGroup
    keys: pa.StringArray
    event_time_ms: npt.NDArray[np.uint64]
    force: bool

    @classmethod
    def of(
        cls,
        group: str,
        keys: Sequence[str],
        event_time_ms: npt.NDArray[np.uint64],
        force: bool,
        catalog: Catalog,
    ) -> DeleteRows:
        """Return the rows of a delete. Raise `Unknown` for an unknown group."""
        of_group = catalog.group(group, field="group")
        return cls(of_group, pa.array(keys, pa.string()), event_time_ms, force)

    def messages(self, layout: Layout) -> Iterator[Outgoing]:
        """Yield the deletes as messages, as `PutRows.messages` does."""
        yield from _by_partition(self.keys, self._body, layout, MAX_ROWS, {WRITE: DELETE})

    def _body(self, rows: Rows) -> bytes:
        delete = FeaturesDelete(group=self.group.name, force=self.force)
        _fill_keys(delete.keys, self.group, self.keys.take(pa.array(rows)))
        delete.event_time.ms.extend(self.event_time_ms[rows].tolist())
        return delete.SerializeToString()


Body = Callable[[Rows], bytes]


def _by_partition(
    key_texts: pa.StringArray,
    body: Body,
    layout: Layout,
    max_rows: int,
    headers: Mapping[str, bytes],
) -> Iterator[Outgoing]:
    """Yield messages of at most `max_rows` rows. `body` returns the value for some of the rows."""
    keys, ends = joined_of(key_texts)
    of_rows = partitions_of(keys, ends, layout.partitions)
    order = np.argsort(of_rows, kind="stable")
    used, starts = np.unique(of_rows[order], return_index=True)

    def split(rows: Rows, partition: int) -> Iterator[Outgoing]:
        if len(rows) <= max_rows:
            value = body(rows)
            if len(value) + OVERHEAD_BYTES <= layout.max_message_bytes:
                yield Outgoing(partition, value, len(rows), headers)
                return
            if len(rows) == 1:
                raise TooLarge(
                    f"the row of the key '{key_texts[int(rows[0])]}' has {len(value)} bytes as a "
                    f"message, and Kafka takes {layout.max_message_bytes - OVERHEAD_BYTES}: raise "
                    "max.message.bytes of the topic"
                )
        middle = len(rows) // 2
        yield from split(rows[:middle], partition)
        yield from split(rows[middle:], partition)

    for partition, rows in zip(used.tolist(), np.split(order, starts[1:]), strict=True):
        yield from split(rows, partition)


def _fill_keys(keys: Mapping[str, Ids], group: FeatureGroup, key_texts: pa.StringArray) -> None:
    ids = _ids(key_texts.to_pylist(), len(group.entity.keys))
    for key, texts in zip(group.entity.keys, ids, strict=True):
        keys[key.name].texts.extend(texts)


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
