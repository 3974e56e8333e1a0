"""The packed codec: a header of 24 bytes, one fixed stride a schema version, then the strings.

A batch of one schema version decodes as one view over the joined rows, a mixed batch as one a
version; nothing here loops over cells, and over rows only where strings are.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana.codecs.layout import HEADER, LAYOUT_VERSION, STRING, Layout, layout_of
from kirana.codecs.rows import Column, Provenance, Status
from kirana.errors import TooLarge
from kirana.schema import NUMERIC, Array, FeatureGroup, SchemaVersion

TOMBSTONE = 0x01
KNOWN_FLAGS = TOMBSTONE
MAX_BODY_BYTES = 1 << 20

_HEADER_BYTES = HEADER.itemsize
_SEPARATOR = os.urandom(8)
_SEPARATOR_WORD = np.uint64(int.from_bytes(_SEPARATOR, "little"))
_NO_ROW = bytes(_HEADER_BYTES)
"""Stands for what is too short to have a header; its layout version 0 makes it corrupt."""

_MAX_LENGTHS = 8
"""Rows of up to so many lengths are decoded length by length: of more, strings are the reason."""


@dataclass(frozen=True, slots=True)
class _Part:
    """The rows of a batch that follow one schema version."""

    rows: npt.NDArray[np.intp] | slice
    layout: Layout
    fixed: npt.NDArray[np.uint8]
    bodies: Sequence[bytes] | None

    def nulls(self, name: str) -> npt.NDArray[np.bool_] | None:
        """Return (part rows,), True where null; None where no row is."""
        at = self.layout.version.index[name]
        bits = self.fixed[:, self.layout.null_start + at // 8] >> np.uint8(at % 8) & np.uint8(1)
        return bits.astype(np.bool_) if bits.any() else None

    def any_nulls(self) -> bool:
        start, size = self.layout.null_start, self.layout.null_bytes
        bits = self.fixed[:, start : start + size]
        if size in (2, 4, 8):
            bits = bits.view(f"<u{size}")
        return bool(bits.any())

    def booleans(self, name: str) -> npt.NDArray[np.bool_]:
        at = self.layout.booleans.index(name)
        bits = self.fixed[:, self.layout.boolean_start + at // 8] >> np.uint8(at % 8)
        return (bits & np.uint8(1)).astype(np.bool_)

    def texts(self, name: str) -> list[str]:
        """Return the strings of one feature; what points out of the row is caught at decode."""
        start = self.layout.offsets[name]
        spans = self.fixed[:, start : start + STRING.itemsize].view(STRING)[:, 0]
        bodies = self.bodies or ()
        return [
            body[offset : offset + length].decode()
            for body, offset, length in zip(
                bodies, spans["offset"].tolist(), spans["length"].tolist(), strict=True
            )
        ]


class PackedRows:
    """See `kirana.codecs.rows.Rows`."""

    def __init__(
        self,
        group: FeatureGroup,
        status: npt.NDArray[np.uint8],
        event_time_ms: npt.NDArray[np.uint64],
        parts: Sequence[_Part],
        unknown_versions: frozenset[int],
    ) -> None:
        self.group = group
        self.status = status
        self.event_time_ms = event_time_ms
        self.unknown_versions = unknown_versions
        self.parts = parts

    @property
    def any_nulls(self) -> bool:
        return any(part.any_nulls() for part in self.parts)

    def column(self, name: str) -> Column:
        feature = self.group.current.feature(name)
        default = feature.default_array()
        shape = (len(self.status), *feature.shape)
        values: Array = np.empty(shape, dtype=default.dtype)
        values[...] = default
        nulls: npt.NDArray[np.bool_] | None = None
        for part in self.parts:
            if name not in part.layout.version.index:
                continue
            if feature.dtype == "string":
                values[part.rows] = part.texts(name)
            elif feature.dtype == "bool":
                values[part.rows] = part.booleans(name)
            else:
                start = part.layout.offsets[name]
                stop = start + NUMERIC[feature.dtype].itemsize * feature.size
                cells = part.fixed[:, start:stop].view(NUMERIC[feature.dtype])
                values[part.rows] = cells.reshape(len(cells), *feature.shape)
            part_nulls = part.nulls(name)
            if part_nulls is not None:
                if nulls is None:
                    nulls = np.zeros(len(self.status), dtype=np.bool_)
                nulls[part.rows] = part_nulls
        if nulls is not None:
            values[nulls] = default
        return Column(values, nulls)

    def provenance(self, name: str) -> npt.NDArray[np.uint8]:
        codes = np.full(len(self.status), Provenance.NO_ROW, dtype=np.uint8)
        for part in self.parts:
            if name not in part.layout.version.index:
                codes[part.rows] = Provenance.NOT_IN_VERSION
                continue
            nulls = part.nulls(name)
            stored = np.uint8(Provenance.STORED)
            codes[part.rows] = stored if nulls is None else nulls.astype(np.uint8)
        return codes

    def fill(self, out: npt.NDArray[np.float32], names: tuple[str, ...]) -> None:
        columns = layout_of(self.group.current).columns(names)
        whole = len(self.parts) == 1 and isinstance(self.parts[0].rows, slice)
        runs = self.parts[0].layout.runs(names, columns.sizes) if whole else ()
        if not whole or sum(run.width for run in runs) < out.shape[1]:
            out[...] = columns.defaults
        for part in self.parts:
            for run in part.layout.runs(names, columns.sizes):
                cells = part.fixed[:, run.start : run.stop].view(run.dtype)
                out[part.rows, run.column : run.column + run.width] = cells
            if part.layout.booleans or part.any_nulls():
                self._fill_bits(out, part, names, columns.sizes)

    def view(self, names: tuple[str, ...]) -> npt.NDArray[np.float32] | None:
        if len(self.parts) != 1 or not isinstance(self.parts[0].rows, slice):
            return None
        part = self.parts[0]
        sizes = layout_of(self.group.current).columns(names).sizes
        runs = part.layout.runs(names, sizes)
        if len(runs) != 1 or runs[0].width != sum(sizes) or part.any_nulls():
            return None
        if runs[0].dtype != np.float32:
            return None
        return part.fixed[:, runs[0].start : runs[0].stop].view(np.float32)

    def _fill_bits(
        self,
        out: npt.NDArray[np.float32],
        part: _Part,
        names: Sequence[str],
        sizes: Sequence[int],
    ) -> None:
        rows = np.arange(len(self.status))[part.rows]
        column = 0
        for name, size in zip(names, sizes, strict=True):
            if name in part.layout.version.index:
                if name in part.layout.booleans:
                    out[rows, column] = part.booleans(name)
                nulls = part.nulls(name)
                if nulls is not None:
                    default = self.group.current.feature(name).default_array()
                    out[rows[nulls], column : column + size] = np.ravel(default)
            column += size


class Packed:
    """See `kirana.codecs.rows.Codec`."""

    name = "packed"

    def encode(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> list[bytes]:
        layout = layout_of(version)
        count = len(event_time_ms)
        rows = np.zeros(count, dtype=layout.row_dtype)
        nulls = np.zeros((count, len(version.features)), dtype=np.bool_)
        tails = [b""] * count
        for at, feature in enumerate(version.features):
            column = columns[feature.name]
            if column.nulls is not None:
                nulls[:, at] = column.nulls
            if feature.dtype == "string":
                tails = self._place_strings(rows, layout, feature.name, column, tails)
            elif feature.dtype != "bool":
                rows[f"f.{feature.name}"] = column.values
                if column.nulls is not None:
                    rows[f"f.{feature.name}"][column.nulls] = 0
        if layout.booleans:
            bits = np.stack([columns[name].values for name in layout.booleans], axis=1)
            rows["booleans"] = np.packbits(bits.astype(np.bool_), axis=1, bitorder="little")
        rows["nulls"] = np.packbits(nulls, axis=1, bitorder="little")
        header = rows["header"]
        header["layout"] = LAYOUT_VERSION
        header["version"] = version.number
        header["fingerprint"] = version.fingerprint
        header["expiry"] = group.expiry_s(event_time_ms)
        header["event_time"] = event_time_ms
        header["length"] = layout.stride
        if layout.strings:
            header["length"] += np.fromiter(map(len, tails), dtype=np.uint32, count=count)
        longest = int(header["length"].max(initial=0))
        if longest > MAX_BODY_BYTES:
            raise TooLarge(
                f"a row of '{group.name}' takes {longest} bytes, the limit is {MAX_BODY_BYTES}"
            )
        stride = rows.itemsize
        joined = rows.tobytes()
        fixed = [joined[at : at + stride] for at in range(0, stride * count, stride)]
        return [a + b for a, b in zip(fixed, tails, strict=True)] if layout.strings else fixed

    @staticmethod
    def _place_strings(
        rows: Array, layout: Layout, name: str, column: Column, tails: list[bytes]
    ) -> list[bytes]:
        spans = rows[f"f.{name}"]
        nulls = column.nulls
        texts = [
            b"" if nulls is not None and nulls[at] else text.encode()
            for at, text in enumerate(column.values.tolist())
        ]
        lengths = list(map(len, texts))
        if max(lengths, default=0) > MAX_BODY_BYTES:
            raise TooLarge(f"a string of '{name}' is over {MAX_BODY_BYTES} bytes", field=name)
        spans["offset"] = [layout.stride + len(tail) for tail in tails]
        spans["length"] = lengths
        return [tail + text for tail, text in zip(tails, texts, strict=True)]

    def tombstones(self, event_time_ms: npt.NDArray[np.uint64], expiry_s: int) -> list[bytes]:
        header = np.zeros(len(event_time_ms), dtype=HEADER)
        header["layout"] = LAYOUT_VERSION
        header["flags"] = TOMBSTONE
        header["expiry"] = expiry_s
        header["event_time"] = event_time_ms
        return [each.tobytes() for each in header]

    def order(self, value: bytes) -> tuple[int, bool]:
        if len(value) < _HEADER_BYTES or value[0] != LAYOUT_VERSION:
            return (0, False)
        return int.from_bytes(value[16:24], "little"), bool(value[1] & TOMBSTONE)

    def expiry_s(self, value: bytes) -> int:
        return int.from_bytes(value[8:12], "little") if len(value) >= _HEADER_BYTES else 0

    def decode(
        self, values: Sequence[bytes | None], group: FeatureGroup, now_s: float
    ) -> PackedRows:
        try:
            joined = _SEPARATOR.join(values)  # type: ignore[arg-type]
        except TypeError:
            return self._decode_found(values, group, now_s)
        if not values:
            nothing = np.zeros(0, dtype=np.uint8)
            return PackedRows(group, nothing, nothing.astype(np.uint64), (), frozenset())
        table = _of_one_length(values, joined)  # type: ignore[arg-type]
        if table is None:
            lengths = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
            distinct = np.unique(lengths)
            if 1 < len(distinct) <= _MAX_LENGTHS:
                # rows without strings are of one length a schema version
                return self._decode_each(
                    [np.flatnonzero(lengths == length) for length in distinct], values, group, now_s
                )
        batch = _Batch(values, table, group, now_s)  # type: ignore[arg-type]
        times = batch.header["event_time"]
        return PackedRows(group, batch.status, times, batch.parts, batch.unknown_versions)

    def _decode_found(
        self, values: Sequence[bytes | None], group: FeatureGroup, now_s: float
    ) -> PackedRows:
        """Decode what is there, and put it among the rows that are missing."""
        found = np.array([at for at, v in enumerate(values) if v is not None], dtype=np.intp)
        return self._decode_each([found], values, group, now_s)

    def _decode_each(
        self,
        pieces: Sequence[npt.NDArray[np.intp]],
        values: Sequence[bytes | None],
        group: FeatureGroup,
        now_s: float,
    ) -> PackedRows:
        """Decode each piece of the rows by itself; what is in none is missing."""
        status = np.full(len(values), Status.MISSING, dtype=np.uint8)
        event_time = np.zeros(len(values), dtype=np.uint64)
        parts: list[_Part] = []
        unknown: frozenset[int] = frozenset()
        for piece in pieces:
            rows = self.decode([values[at] for at in piece.tolist()], group, now_s)
            status[piece] = rows.status
            event_time[piece] = rows.event_time_ms
            parts += [_Part(piece[p.rows], p.layout, p.fixed, p.bodies) for p in rows.parts]
            unknown |= rows.unknown_versions
        return PackedRows(group, status, event_time, parts, unknown)


def _of_one_length(values: Sequence[bytes], joined: bytes) -> npt.NDArray[np.uint8] | None:
    """Return the values as the rows of one table, or None if their lengths differ.

    Told without a look at each: the separators, which nobody could guess, stand at equal steps.
    """
    count, size = len(values), len(values[0])
    step = size + len(_SEPARATOR)
    if size < _HEADER_BYTES or len(joined) != count * step - len(_SEPARATOR):
        return None
    between = np.ndarray((count - 1,), "<u8", joined, size, (step,))
    if (between != _SEPARATOR_WORD).any():
        return None
    return np.ndarray((count, size), np.uint8, joined, 0, (step, 1))


class _Batch:
    """The values that were found: headers checked as arrays, rows sorted by schema version."""

    def __init__(
        self,
        values: Sequence[bytes],
        table: npt.NDArray[np.uint8] | None,
        group: FeatureGroup,
        now_s: float,
    ) -> None:
        self.values = values
        self.lengths: npt.NDArray[np.int64] | int
        self.uniform = table is not None
        if table is not None:
            self.lengths = len(values[0])
            self.joined = table
            self.header = table[:, :_HEADER_BYTES].view(HEADER)[:, 0]
        else:
            self.values = values = [v if len(v) >= _HEADER_BYTES else _NO_ROW for v in values]
            self.lengths = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
            starts = np.cumsum(self.lengths) - self.lengths
            self.joined = np.frombuffer(b"".join(values), dtype=np.uint8)
            heads = self.joined[starts[:, None] + np.arange(_HEADER_BYTES)]
            self.header = heads.view(HEADER)[:, 0]
        self.unknown_versions: frozenset[int] = frozenset()
        plain = self._plain(group, now_s) if self.uniform else None
        if plain is not None:
            self.status = np.zeros(len(values), dtype=np.uint8)
            self.parts = [plain]
        else:
            self.status = self._check(now_s)
            self.parts = self._sort(group)

    def _plain(self, group: FeatureGroup, now_s: float) -> _Part | None:
        """The usual batch, told by few looks: one version, all alive, and nothing special."""
        number = int(self.header["version"][0])
        if not 1 <= number <= len(group.versions):
            return None
        layout = layout_of(group.versions[number - 1])
        words = self.joined[:, :_HEADER_BYTES].view("<u8")
        if layout.strings or not (words[:, 0] == np.uint64(layout.leading_word)).all():
            return None
        if self.lengths != _HEADER_BYTES + layout.stride:
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
        return _Part(slice(None), layout, self.joined[:, _HEADER_BYTES:], None)

    def _check(self, now_s: float) -> npt.NDArray[np.uint8]:
        header = self.header
        status = np.zeros(len(self.values), dtype=np.uint8)
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
            | (header["length"] + np.int64(_HEADER_BYTES) != self.lengths)
        )
        if bad.any():
            status[bad] = Status.CORRUPT
        return status

    def _sort(self, group: FeatureGroup) -> list[_Part]:
        alive = self.status == Status.OK
        if not alive.any():
            return []
        numbers = self.header["version"]
        parts = []
        for number in np.unique(numbers[alive]).tolist():
            part = self._part(group, number, np.flatnonzero(alive & (numbers == number)))
            if part:
                parts.append(part)
        return parts

    def _part(
        self, group: FeatureGroup, number: int, rows: npt.NDArray[np.intp] | slice
    ) -> _Part | None:
        if not 1 <= number <= len(group.versions):
            self.status[rows] = Status.CORRUPT
            self.unknown_versions |= {number}
            return None
        layout = layout_of(group.versions[number - 1])
        lengths = self.header["length"][rows]
        fits = self.header["fingerprint"][rows] == np.uint32(layout.version.fingerprint)
        fits &= lengths >= layout.stride if layout.strings else lengths == layout.stride
        if not fits.all():
            everywhere = np.arange(len(self.values))[rows]
            self.status[everywhere[~fits]] = Status.CORRUPT
            rows = everywhere[fits]
        part = self._cut(layout, rows)
        if layout.strings:
            broken = self._broken_strings(part)
            if broken.any():
                everywhere = np.arange(len(self.values))[rows]
                self.status[everywhere[broken]] = Status.CORRUPT
                part = self._cut(layout, everywhere[~broken])
        return part if len(part.fixed) else None

    def _cut(self, layout: Layout, rows: npt.NDArray[np.intp] | slice) -> _Part:
        stop = _HEADER_BYTES + layout.stride
        bodies = None
        if self.uniform:
            fixed = self.joined[rows, _HEADER_BYTES:stop]
            if not layout.strings:
                return _Part(rows, layout, fixed, None)
        chosen = (
            self.values if isinstance(rows, slice) else [self.values[at] for at in rows.tolist()]
        )
        if layout.strings:
            bodies = [value[_HEADER_BYTES:] for value in chosen]
            together = b"".join([body[: layout.stride] for body in bodies])
            fixed = np.frombuffer(together, dtype=np.uint8).reshape(-1, layout.stride)
        elif not self.uniform:
            # of one version and without strings, so all of one length
            table = np.frombuffer(b"".join(chosen), dtype=np.uint8).reshape(len(chosen), stop)
            fixed = table[:, _HEADER_BYTES:]
        return _Part(rows, layout, fixed, bodies)

    @staticmethod
    def _broken_strings(part: _Part) -> npt.NDArray[np.bool_]:
        """True where a string points out of its body, into the fixed part, or isn't UTF-8."""
        bodies = part.bodies or ()
        sizes = np.fromiter(map(len, bodies), dtype=np.int64, count=len(bodies))
        broken = np.zeros(len(bodies), dtype=np.bool_)
        for name in part.layout.strings:
            start = part.layout.offsets[name]
            spans = part.fixed[:, start : start + STRING.itemsize].view(STRING)[:, 0]
            offsets = spans["offset"].astype(np.int64)
            broken |= (offsets < part.layout.stride) | (offsets + spans["length"] > sizes)
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
