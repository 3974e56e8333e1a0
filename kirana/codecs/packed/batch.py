"""Decodes packed rows with numpy: checks all headers at once, and sorts rows by schema version."""

from __future__ import annotations

import os
from collections.abc import Sequence
from zlib import crc32

import numpy as np
import numpy.typing as npt

from kirana.codecs.packed.layout import (
    CHECKSUM,
    CHECKSUM_BYTES,
    HEADER,
    HEADER_BYTES,
    KNOWN_FLAGS,
    LAYOUT_VERSION,
    STRING,
    TOMBSTONE,
    Layout,
    layout_of,
)
from kirana.codecs.packed.rows import PackedRows, Section, any_nulls
from kirana.codecs.rows import Status
from kirana.schema import FeatureGroup

_SEPARATOR = os.urandom(8)
"""Separates joined values in `table_of`. It is random, so clients can't put it into values."""

_SEPARATOR_WORD = np.uint64(int.from_bytes(_SEPARATOR, "little"))

_NO_ROW = bytes(HEADER_BYTES)
"""Stands for a value that is too short for a header. Its layout version is 0, so it is corrupt."""


def table_of(values: Sequence[bytes]) -> npt.NDArray[np.uint8] | None:
    """Return the values as a table, `uint8[rows, bytes]`, or None if their lengths differ.

    Return None also if the values are too short for a header. Raise `TypeError` if a value is None.
    There must be at least one value.

    The lengths are not compared one by one, because that is slow. Instead, the values are joined
    with separators, which stand at equal distances only if all lengths are equal.
    """
    joined = _SEPARATOR.join(values)
    count, size = len(values), len(values[0])
    step = size + len(_SEPARATOR)
    if size < HEADER_BYTES or len(joined) != count * step - len(_SEPARATOR):
        return None
    separators = np.ndarray((count - 1,), "<u8", joined, size, (step,))
    if (separators != _SEPARATOR_WORD).any():
        return None
    return np.ndarray((count, size), np.uint8, joined, 0, (step, 1))


class Batch:
    """Encoded rows, with a status per row, and sections of the rows that are OK."""

    def __init__(
        self,
        values: Sequence[bytes],
        table: npt.NDArray[np.uint8] | None,
        group: FeatureGroup,
        now_s: float,
    ) -> None:
        """Check the rows, and sort them by schema version.

        If all values have one length, `table` must hold them, and `values` may then be empty.
        Otherwise `table` is None.
        """
        self.values = values
        self.lengths: npt.NDArray[np.int64] | int
        self.uniform = table is not None
        if table is not None:
            self.count, self.lengths = table.shape
            self.joined = table
            self.header = table[:, :HEADER_BYTES].view(HEADER)[:, 0]
        else:
            self.values = values = [v if len(v) >= HEADER_BYTES else _NO_ROW for v in values]
            self.count = len(values)
            self.lengths = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
            starts = np.cumsum(self.lengths) - self.lengths
            self.joined = np.frombuffer(b"".join(values), dtype=np.uint8)
            heads = self.joined[starts[:, None] + np.arange(HEADER_BYTES)]
            self.header = heads.view(HEADER)[:, 0]
        self.unknown_versions: frozenset[int] = frozenset()
        plain = self._plain_section(group, now_s) if self.uniform else None
        if plain is not None:
            self.status = np.zeros(self.count, dtype=np.uint8)
            self.sections = [plain]
        else:
            self.status = self._check(now_s)
            self.sections = self._sort(group)

    def decoded(self, group: FeatureGroup) -> PackedRows:
        """Return the decoded rows."""
        times = self.header["event_time"]
        return PackedRows(group, self.status, times, self.sections, self.unknown_versions)

    def _plain_section(self, group: FeatureGroup, now_s: float) -> Section | None:
        """Return the only section of the batch, or None if not all rows are OK and alike.

        This is the fast path for the usual batch: all rows have one schema version, which has no
        strings, and no row has flags or is expired. Either all rows have an expiry, or none has.
        """
        number = int(self.header["version"][0])
        if not 1 <= number <= len(group.versions):
            return None
        layout = layout_of(group.versions[number - 1])
        words = self.joined[:, :HEADER_BYTES].view("<u8")
        if layout.strings or not (words[:, 0] == np.uint64(layout.leading_word)).all():
            return None
        if self.lengths != HEADER_BYTES + layout.stride:
            return None
        # The second word of a header holds the length in its upper half and the expiry in its lower
        # half. Subtract from it the word with the right length and the next second as the expiry.
        # If the length is right and the expiry is in the future, the difference is at most the
        # largest expiry minus the next second. Otherwise it is larger, because a difference below 0
        # wraps around.
        next_second = np.uint64((layout.stride << 32) + int(now_s) + 1)
        difference = words[:, 1] - next_second
        if int(difference.max()) >= (1 << 32) - int(now_s) - 1:
            # Some row has no expiry in the future. The batch is usual only if no row ever expires:
            # the expiry is then 0.
            never = np.uint64(layout.stride << 32)
            if not (words[:, 1] == never).all():
                return None
        fixed = self.joined[:, HEADER_BYTES:]
        return Section(slice(None), layout, fixed, None, any_nulls(layout, fixed))

    def _check(self, now_s: float) -> npt.NDArray[np.uint8]:
        """Return one status per row, from the headers and checksums.

        `_section` checks schema versions, fingerprints and strings later.
        """
        header = self.header
        status = np.zeros(self.count, dtype=np.uint8)
        expiry = header["expiry"]
        expired = (expiry != 0) & (expiry <= now_s)
        if expired.any():
            status[expired] = Status.EXPIRED
        flags = header["flags"]
        if flags.any():
            status[flags & TOMBSTONE != 0] = Status.MISSING
        bad = (
            (header["layout"] != LAYOUT_VERSION)
            | (flags & ~np.uint8(KNOWN_FLAGS) != 0)
            | (header["length"] + (HEADER_BYTES + self._checksum_bytes()) != self.lengths)
        )
        if bad.any():
            status[bad] = Status.CORRUPT
        if flags.any():
            self._check_checksums(status)
        return status

    def _checksum_bytes(self) -> npt.NDArray[np.int64]:
        """Return the size in bytes of each row's checksum, 0 if it has none."""
        return np.where(self.header["flags"] & CHECKSUM != 0, CHECKSUM_BYTES, 0)

    def _check_checksums(self, status: npt.NDArray[np.uint8]) -> None:
        """Set the status of the rows whose checksum is wrong to `CORRUPT`."""
        has_checksum = (self.header["flags"] & CHECKSUM != 0) & (status == Status.OK)
        for row in np.flatnonzero(has_checksum).tolist():
            value = self.values[row] if len(self.values) else self.joined[row].tobytes()
            body = value[HEADER_BYTES:-CHECKSUM_BYTES]
            if crc32(body) != int.from_bytes(value[-CHECKSUM_BYTES:], "little"):
                status[row] = Status.CORRUPT

    def _sort(self, group: FeatureGroup) -> list[Section]:
        """Return one section per schema version, with the rows that are OK."""
        ok = self.status == Status.OK
        if not ok.any():
            return []
        numbers = self.header["version"]
        sections = []
        for number in np.unique(numbers[ok]).tolist():
            section = self._section(group, number, np.flatnonzero(ok & (numbers == number)))
            if section:
                sections.append(section)
        return sections

    def _section(
        self, group: FeatureGroup, number: int, rows: npt.NDArray[np.intp] | slice
    ) -> Section | None:
        """Return the section of the schema version `number`, or None if all its rows are corrupt.

        `rows` holds the positions of its rows. Set the status of those that are corrupt. If the
        group has no such schema version, add the number to `unknown_versions`.
        """
        if not 1 <= number <= len(group.versions):
            self.status[rows] = Status.CORRUPT
            self.unknown_versions |= {number}
            return None
        layout = layout_of(group.versions[number - 1])
        lengths = self.header["length"][rows]
        fits = self.header["fingerprint"][rows] == np.uint32(layout.version.fingerprint)
        fits &= lengths >= layout.stride if layout.strings else lengths == layout.stride
        if not fits.all():
            positions = np.arange(self.count)[rows]
            self.status[positions[~fits]] = Status.CORRUPT
            rows = positions[fits]
        section = self._cut(layout, rows)
        if layout.strings:
            invalid = self._invalid_strings(section)
            if invalid.any():
                positions = np.arange(self.count)[rows]
                self.status[positions[invalid]] = Status.CORRUPT
                section = self._cut(layout, positions[~invalid])
        return section if len(section.fixed) else None

    def _cut(self, layout: Layout, rows: npt.NDArray[np.intp] | slice) -> Section:
        """Return the section of the rows at the positions `rows`, which follow `layout`."""
        stop = HEADER_BYTES + layout.stride
        bodies = None
        if self.uniform:
            fixed = self.joined[rows, HEADER_BYTES:stop]
            if not layout.strings:
                return Section(rows, layout, fixed, None, any_nulls(layout, fixed))
        if not len(self.values):
            # The batch was given only as a table, but strings are cut out of values.
            self.values = [row.tobytes() for row in self.joined]
        values = (
            self.values if isinstance(rows, slice) else [self.values[row] for row in rows.tolist()]
        )
        if layout.strings:
            ends = (self.header["length"][rows] + HEADER_BYTES).tolist()
            bodies = [v[HEADER_BYTES:end] for v, end in zip(values, ends, strict=True)]
            joined = b"".join([body[: layout.stride] for body in bodies])
            fixed = np.frombuffer(joined, dtype=np.uint8).reshape(-1, layout.stride)
        elif not self.uniform:
            # The lengths differ at most by the checksums, which are after the fixed part.
            joined = b"".join([value[HEADER_BYTES:stop] for value in values])
            fixed = np.frombuffer(joined, dtype=np.uint8).reshape(-1, layout.stride)
        return Section(rows, layout, fixed, bodies, any_nulls(layout, fixed))

    @staticmethod
    def _invalid_strings(section: Section) -> npt.NDArray[np.bool_]:
        """Return a mask of the rows with an invalid string.

        A string must be UTF-8, and lie within the body but after the fixed part.
        """
        bodies = section.bodies or ()
        sizes = np.fromiter(map(len, bodies), dtype=np.int64, count=len(bodies))
        invalid = np.zeros(len(bodies), dtype=np.bool_)
        for name in section.layout.strings:
            start = section.layout.offsets[name]
            spans = section.table()[:, start : start + STRING.itemsize].view(STRING)[:, 0]
            offsets = spans["offset"].astype(np.int64)
            invalid |= (offsets < section.layout.stride) | (offsets + spans["length"] > sizes)
            for row, body in enumerate(bodies):
                if not invalid[row] and not body.isascii():
                    offset, length = spans[row].tolist()
                    invalid[row] = not _is_utf8(body[offset : offset + length])
        return invalid


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
