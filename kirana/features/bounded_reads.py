"""Reads of rows in batches, so that one call holds a limited number of bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kirana import byte_limit, native
from kirana.byte_limit import ReadBytes, check_bytes
from kirana.codecs.packed.layout import row_bytes
from kirana.codecs.rows import Piece
from kirana.schema import FeatureGroup
from kirana.stores import FeatureStore, RowKeys, StoredRows
from kirana.stores.rows import largest_bytes, stored_bytes

BATCH_SHARE = 4
"""A batch is expected to have at most 1 / `BATCH_SHARE` of the bytes that a call may read."""

FIRST_ROWS = 64
"""The number of rows in the first batch of a group whose rows have unknown sizes."""

MAX_ROWS = 512
"""The most rows with strings in a batch. Any of them may be much larger than expected."""

_NEW_SHARE = 0.05
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

    A cached row counts once per key of the request.
    """
    fixed = sum(
        row_bytes(group) * len(piece.values)
        for group, of_group in zip(groups, pieces, strict=True)
        for piece in of_group
    )
    check_bytes(fixed + text_bytes(groups, pieces), *_MESSAGE)


def text_bytes(groups: Sequence[FeatureGroup], pieces: Sequence[Sequence[Piece]]) -> int:
    """Return how many bytes the rows have that differ in size, because they have strings."""
    return sum(
        stored_bytes(piece.values)
        for group, of_group in zip(groups, pieces, strict=True)
        if not row_bytes(group)
        for piece in of_group
    )


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


@dataclass(slots=True)
class _Seen:
    """What one call has read: all bytes, and the size of the largest row by group."""

    bytes: ReadBytes = field(default_factory=lambda: ReadBytes(*_MESSAGE))
    largest: dict[str, int] = field(default_factory=dict)


class BoundedReads:
    """Reads rows of a store, in one batch if they are expected to be small.

    The size of the largest rows of a group with strings is learned from earlier reads.
    """

    def __init__(self, store: FeatureStore) -> None:
        self._store = store
        self._expected_bytes: dict[str, float] = {}
        """The expected size of a large row by group, for groups whose rows differ in size."""

    async def read(
        self, groups: Sequence[FeatureGroup], wanted: Sequence[RowKeys]
    ) -> Sequence[StoredRows]:
        """Return the rows as `FeatureStore.read` does. `groups` has the group of each entry.

        Raise `TooLarge` as soon as the rows that were read have more than `MAX_READ_BYTES`.
        """
        fixed = [row_bytes(group) for group in groups]
        seen = _Seen()
        expected = self._expected_total(groups, wanted, fixed)
        if expected is not None and expected <= byte_limit.MAX_READ_BYTES / BATCH_SHARE:
            answers: Sequence[StoredRows] = await self._store.read(wanted)
            self._count(groups, fixed, answers, seen)
        else:
            answers = await self._read_in_batches(groups, wanted, fixed, seen)
        self._forget(seen)
        return answers

    def _expected_total(
        self, groups: Sequence[FeatureGroup], wanted: Sequence[RowKeys], fixed: Sequence[int]
    ) -> float | None:
        """Return how many bytes the rows are expected to have at most.

        Return None if the rows of a group may be too many for one batch, whatever their size.
        """
        total = 0.0
        unknown = 0
        for group, rows, size in zip(groups, wanted, fixed, strict=True):
            expected = size or self._expected_bytes.get(group.name)
            if expected is None:
                unknown += len(rows.keys)
            elif not size and len(rows.keys) > MAX_ROWS:
                return None
            else:
                total += expected * len(rows.keys)
        return None if unknown > FIRST_ROWS else total

    async def _read_in_batches(
        self,
        groups: Sequence[FeatureGroup],
        wanted: Sequence[RowKeys],
        fixed: Sequence[int],
        seen: _Seen,
    ) -> Sequence[StoredRows]:
        parts: list[list[StoredRows]] = [[] for _ in wanted]
        entry = start = 0
        while entry < len(wanted):
            batch: list[_Part] = []
            budget = whole = byte_limit.MAX_READ_BYTES / BATCH_SHARE
            rows_left = MAX_ROWS
            while entry < len(wanted):
                left = len(wanted[entry].keys) - start
                row = fixed[entry] or self._expected_bytes.get(groups[entry].name)
                row = whole / FIRST_ROWS if row is None else max(row, 1)
                most = left if fixed[entry] else min(left, rows_left)
                count = min(most, int(budget // row))
                if left and not count:
                    if batch:
                        break
                    count = 1
                budget -= count * row
                if not fixed[entry]:
                    rows_left -= count
                batch.append(_Part(entry, start, start + count))
                entry, start = (entry + 1, 0) if count == left else (entry, start + count)
            answers = await self._store.read([part.of(wanted) for part in batch])
            read_groups = [groups[part.entry] for part in batch]
            self._count(read_groups, [fixed[part.entry] for part in batch], answers, seen)
            for part, answer in zip(batch, answers, strict=True):
                parts[part.entry].append(answer)
        return [StoredRows.joined(of_entry) for of_entry in parts]

    def _count(
        self,
        groups: Sequence[FeatureGroup],
        fixed: Sequence[int],
        answers: Sequence[StoredRows],
        seen: _Seen,
    ) -> None:
        """Count the bytes of `answers`, and learn from rows that are larger than expected.

        Raise `TooLarge` if the call has read more than `MAX_READ_BYTES`.
        """
        for group, size, answer in zip(groups, fixed, answers, strict=True):
            values = answer.values
            if not len(values):
                continue
            # A program other than Kirana may have written a large value to a server.
            counted = native.COMPILED and isinstance(values, native.replies.Values)
            # Rows that are missing or can't be read say nothing of the others.
            if not size and (largest := largest_bytes(values)):
                seen.largest[group.name] = max(seen.largest.get(group.name, 0), largest)
                expected = self._expected_bytes.get(group.name, 0.0)
                self._expected_bytes[group.name] = max(expected, largest)
            seen.bytes.add(size * len(values) if size and not counted else stored_bytes(values))

    def _forget(self, seen: _Seen) -> None:
        """Expect smaller rows, gradually, if a call has seen smaller ones only."""
        for group, largest in seen.largest.items():
            self._expected_bytes[group] += _NEW_SHARE * (largest - self._expected_bytes[group])
