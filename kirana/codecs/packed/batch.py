"""Decodes a batch of packed rows: headers checked as arrays, rows sorted by schema version."""

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
_SEPARATOR_WORD = np.uint64(int.from_bytes(_SEPARATOR, "little"))

_NO_ROW = bytes(HEADER_BYTES)
"""Stands for what is too short to have a header; its layout version 0 makes it corrupt."""


def table_of(values: Sequence[bytes]) -> npt.NDArray[np.uint8] | None:
    """Return the values as the rows of one table, or None if their lengths differ.

    Told without a look at each: separators, which nobody could guess, stand at equal steps. Raises
    `TypeError` if a value is None.
    """
    joined = _SEPARATOR.join(values)
    count, size = len(values), len(values[0])
    step = size + len(_SEPARATOR)
    if size < HEADER_BYTES or len(joined) != count * step - len(_SEPARATOR):
        return None
    between = np.ndarray((count - 1,), "<u8", joined, size, (step,))
    if (between != _SEPARATOR_WORD).any():
        return None
    return np.ndarray((count, size), np.uint8, joined, 0, (step, 1))


class Batch:
    """The values that were found: headers checked as arrays, rows sorted by schema version."""

    def __init__(
        self,
        values: Sequence[bytes],
        table: npt.NDArray[np.uint8] | None,
        group: FeatureGroup,
        now_s: float,
    ) -> None:
        """`table` has the values as its rows if they are of one length; `values` can be empty
        then where no row has strings.
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
        plain = self._plain(group, now_s) if self.uniform else None
        if plain is not None:
            self.status = np.zeros(self.count, dtype=np.uint8)
            self.sections = [plain]
        else:
            self.status = self._check(now_s)
            self.sections = self._sort(group)

    def decoded(self, group: FeatureGroup) -> PackedRows:
        times = self.header["event_time"]
        return PackedRows(group, self.status, times, self.sections, self.unknown_versions)

    def _plain(self, group: FeatureGroup, now_s: float) -> Section | None:
        """The usual batch, told by few looks: one version, all alive, and nothing special."""
        number = int(self.header["version"][0])
        if not 1 <= number <= len(group.versions):
            return None
        layout = layout_of(group.versions[number - 1])
        words = self.joined[:, :HEADER_BYTES].view("<u8")
        if layout.strings or not (words[:, 0] == np.uint64(layout.leading_word)).all():
            return None
        if self.lengths != HEADER_BYTES + layout.stride:
            return None
        # the second word is the expiry, and above it the length: what is left of both beyond the
        # next second wraps round to something large if the length differs or the expiry is over
        next_second = np.uint64((layout.stride << 32) + int(now_s) + 1)
        left = words[:, 1] - next_second
        if int(left.max()) >= (1 << 32) - int(now_s) - 1:
            # 0 is never
            never = np.uint64(layout.stride << 32)
            if not (words[:, 1] == never).all():
                return None
        fixed = self.joined[:, HEADER_BYTES:]
        return Section(slice(None), layout, fixed, None, any_nulls(layout, fixed))

    def _check(self, now_s: float) -> npt.NDArray[np.uint8]:
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
            self._check_sums(status)
        return status

    def _checksum_bytes(self) -> npt.NDArray[np.int64]:
        return np.where(self.header["flags"] & CHECKSUM != 0, CHECKSUM_BYTES, 0)

    def _check_sums(self, status: npt.NDArray[np.uint8]) -> None:
        summed = (self.header["flags"] & CHECKSUM != 0) & (status == Status.OK)
        for at in np.flatnonzero(summed).tolist():
            value = self.values[at] if len(self.values) else self.joined[at].tobytes()
            body = value[HEADER_BYTES:-CHECKSUM_BYTES]
            if crc32(body) != int.from_bytes(value[-CHECKSUM_BYTES:], "little"):
                status[at] = Status.CORRUPT

    def _sort(self, group: FeatureGroup) -> list[Section]:
        alive = self.status == Status.OK
        if not alive.any():
            return []
        numbers = self.header["version"]
        sections = []
        for number in np.unique(numbers[alive]).tolist():
            section = self._section(group, number, np.flatnonzero(alive & (numbers == number)))
            if section:
                sections.append(section)
        return sections

    def _section(
        self, group: FeatureGroup, number: int, rows: npt.NDArray[np.intp] | slice
    ) -> Section | None:
        if not 1 <= number <= len(group.versions):
            self.status[rows] = Status.CORRUPT
            self.unknown_versions |= {number}
            return None
        layout = layout_of(group.versions[number - 1])
        lengths = self.header["length"][rows]
        fits = self.header["fingerprint"][rows] == np.uint32(layout.version.fingerprint)
        fits &= lengths >= layout.stride if layout.strings else lengths == layout.stride
        if not fits.all():
            everywhere = np.arange(self.count)[rows]
            self.status[everywhere[~fits]] = Status.CORRUPT
            rows = everywhere[fits]
        section = self._cut(layout, rows)
        if layout.strings:
            broken = self._broken_strings(section)
            if broken.any():
                everywhere = np.arange(self.count)[rows]
                self.status[everywhere[broken]] = Status.CORRUPT
                section = self._cut(layout, everywhere[~broken])
        return section if len(section.fixed) else None

    def _cut(self, layout: Layout, rows: npt.NDArray[np.intp] | slice) -> Section:
        stop = HEADER_BYTES + layout.stride
        bodies = None
        if self.uniform:
            fixed = self.joined[rows, HEADER_BYTES:stop]
            if not layout.strings:
                return Section(rows, layout, fixed, None, any_nulls(layout, fixed))
        if not len(self.values):
            # of a table alone: rows of a version that still had strings
            self.values = [row.tobytes() for row in self.joined]
        chosen = (
            self.values if isinstance(rows, slice) else [self.values[at] for at in rows.tolist()]
        )
        if layout.strings:
            ends = (self.header["length"][rows] + HEADER_BYTES).tolist()
            bodies = [v[HEADER_BYTES:end] for v, end in zip(chosen, ends, strict=True)]
            together = b"".join([body[: layout.stride] for body in bodies])
            fixed = np.frombuffer(together, dtype=np.uint8).reshape(-1, layout.stride)
        elif not self.uniform:
            # of one version and without strings: but for checksums all of one length
            together = b"".join([value[HEADER_BYTES:stop] for value in chosen])
            fixed = np.frombuffer(together, dtype=np.uint8).reshape(-1, layout.stride)
        return Section(rows, layout, fixed, bodies, any_nulls(layout, fixed))

    @staticmethod
    def _broken_strings(section: Section) -> npt.NDArray[np.bool_]:
        """True where a string points out of its body, into the fixed part, or isn't UTF-8."""
        bodies = section.bodies or ()
        sizes = np.fromiter(map(len, bodies), dtype=np.int64, count=len(bodies))
        broken = np.zeros(len(bodies), dtype=np.bool_)
        for name in section.layout.strings:
            start = section.layout.offsets[name]
            spans = section.table()[:, start : start + STRING.itemsize].view(STRING)[:, 0]
            offsets = spans["offset"].astype(np.int64)
            broken |= (offsets < section.layout.stride) | (offsets + spans["length"] > sizes)
            for at, body in enumerate(bodies):
                if not broken[at] and not body.isascii():
                    offset, length = spans[at].tolist()
                    broken[at] = not _is_utf8(body[offset : offset + length])
        return broken


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
