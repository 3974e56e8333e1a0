"""Reads of rows in batches, so that one call holds a limited number of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kirana import byte_limit, native
from kirana.byte_limit import ReadBytes, check_bytes
from kirana.codecs.packed.layout import row_bytes
from kirana.codecs.rows import Piece
from kirana.schema import FeatureGroup
from kirana.stores import FeatureStore, RowKeys, StoredRows
from kirana.stores.rows import stored_bytes

BATCH_SHARE = 4
"""A batch is expected to have at most 1 / `BATCH_SHARE` of the bytes that a call may read."""

FIRST_ROWS = 64
"""The number of rows in the first batch of a group whose rows have unknown sizes."""

_NEW_SHARE = 0.25
"""The share of a new measurement in the expected size of a row, if the size has decreased."""

_MESSAGE = ("the rows", "read fewer keys, or features of fewer groups")
"""The subject and the advice of `TooLarge`."""


def check_fixed_bytes(groups: Sequence[FeatureGroup], rows: int) -> None:
    """Raise `TooLarge` if `rows` rows of each group have more than `MAX_READ_BYTES`.

    Only groups whose rows have a fixed size count. Nothing needs to be read for this.
    """
    check_bytes(rows * sum(map(row_bytes, groups)), *_MESSAGE)


def check_read_bytes(groups: Sequence[FeatureGroup], pieces: Sequence[Sequence[Piece]]) -> None:
    """Raise `TooLarge` if rows have more than `MAX_READ_BYTES`. `pieces` has those of each group.

    Only groups whose rows differ in size count. A cached row counts once per key of the request.
    """
    total = sum(
        stored_bytes(piece.values)
        for group, of_group in zip(groups, pieces, strict=True)
        if not row_bytes(group)
        for piece in of_group
    )
    check_bytes(total, *_MESSAGE)


@dataclass(slots=True)
class _Part:
    """Some consecutive rows of one entry of a read."""

    entry: int
    start: int
    stop: int

    def of(self, wanted: Sequence[RowKeys]) -> RowKeys:
        """Return the keys of these rows."""
        rows = wanted[self.entry]
        return RowKeys(rows.group, rows.keys[self.start : self.stop])


class BoundedReads:
    """Reads rows of a store, in one batch if they are expected to be small.

    The sizes of rows with strings are learned from earlier reads.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._expected_bytes: dict[str, float] = {}
        """The expected size of a row by group, for groups whose rows differ in size."""

    async def read(
        self, groups: Sequence[FeatureGroup], wanted: Sequence[RowKeys]
    ) -> Sequence[StoredRows]:
        """Return the rows as `FeatureStore.read` does. `groups` has the group of each entry.

        Raise `TooLarge` as soon as the rows that were read have more than `MAX_READ_BYTES`.
        """
        fixed = [row_bytes(group) for group in groups]
        expected = self._expected_total(groups, wanted, fixed)
        if expected is not None and expected <= byte_limit.MAX_READ_BYTES / BATCH_SHARE:
            answers = await self._store.read(wanted)
            self._count(groups, fixed, answers, ReadBytes(*_MESSAGE))
            return answers
        return await self._read_in_batches(groups, wanted, fixed)

    def _expected_total(
        self, groups: Sequence[FeatureGroup], wanted: Sequence[RowKeys], fixed: Sequence[int]
    ) -> float | None:
        """Return how many bytes the rows are expected to have, or None if that is unknown."""
        total = 0.0
        for group, rows, size in zip(groups, wanted, fixed, strict=True):
            expected = size or self._expected_bytes.get(group.name)
            if expected is None:
                if len(rows.keys) > FIRST_ROWS:
                    return None
                expected = 0.0
            total += expected * len(rows.keys)
        return total

    async def _read_in_batches(
        self, groups: Sequence[FeatureGroup], wanted: Sequence[RowKeys], fixed: Sequence[int]
    ) -> Sequence[StoredRows]:
        parts: list[list[StoredRows]] = [[] for _ in wanted]
        read_bytes = ReadBytes(*_MESSAGE)
        entry = start = 0
        while entry < len(wanted):
            batch: list[_Part] = []
            budget = byte_limit.MAX_READ_BYTES / BATCH_SHARE
            while entry < len(wanted) and budget > 0:
                left = len(wanted[entry].keys) - start
                expected = fixed[entry] or self._expected_bytes.get(groups[entry].name)
                if expected is None:
                    count = min(left, FIRST_ROWS)
                    budget -= budget * count / FIRST_ROWS
                else:
                    count = min(left, max(int(budget // max(expected, 1)), 1))
                    budget -= count * max(expected, 1)
                batch.append(_Part(entry, start, start + count))
                entry, start = (entry + 1, 0) if count == left else (entry, start + count)
            answers = await self._store.read([part.of(wanted) for part in batch])
            read_groups = [groups[part.entry] for part in batch]
            self._count(read_groups, [fixed[part.entry] for part in batch], answers, read_bytes)
            for part, answer in zip(batch, answers, strict=True):
                parts[part.entry].append(answer)
        return [StoredRows.joined(of_entry) for of_entry in parts]

    def _count(
        self,
        groups: Sequence[FeatureGroup],
        fixed: Sequence[int],
        answers: Sequence[StoredRows],
        read_bytes: ReadBytes,
    ) -> None:
        """Add the bytes of `answers` to `read_bytes`, and learn the sizes of rows.

        Raise `TooLarge` if the sum is more than `MAX_READ_BYTES`.
        """
        for group, size, answer in zip(groups, fixed, answers, strict=True):
            count = len(answer.values)
            if not count:
                continue
            # A program other than Kirana may have written a large value to a server.
            counted = native.COMPILED and isinstance(answer.values, native.replies.Values)
            total = size * count if size and not counted else stored_bytes(answer.values)
            if not size:
                self._learn(group.name, total / count)
            read_bytes.add(total)

    def _learn(self, group: str, mean_bytes: float) -> None:
        """Learn from a batch of rows with this mean size. A larger size counts in full."""
        expected = self._expected_bytes.get(group, 0.0)
        if mean_bytes < expected:
            mean_bytes = expected + _NEW_SHARE * (mean_bytes - expected)
        self._expected_bytes[group] = mean_bytes
