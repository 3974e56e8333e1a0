"""The packed codec: a header of 24 bytes, one fixed stride a schema version, then the strings.

A batch of one schema version decodes as one view over the joined rows, a mixed batch as one a
version; nothing here loops over cells, and over rows only where strings are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana.codecs.layout import HEADER, STRING, Layout, layout_of, sizes_of
from kirana.codecs.rows import Column, Provenance, Status
from kirana.errors import TooLarge
from kirana.schema import NUMERIC, Array, FeatureGroup, SchemaVersion

LAYOUT_VERSION = 1
TOMBSTONE = 0x01
KNOWN_FLAGS = TOMBSTONE
MAX_BODY_BYTES = 1 << 20

_HEADER_BYTES = HEADER.itemsize


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
        start = self.layout.null_start
        return bool(self.fixed[:, start : start + self.layout.null_bytes].any())

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
        self._parts = parts

    def column(self, name: str) -> Column:
        feature = self.group.current.feature(name)
        default = feature.default_array()
        shape = (len(self.status), *feature.shape)
        values: Array = np.empty(shape, dtype=default.dtype)
        values[...] = default
        nulls: npt.NDArray[np.bool_] | None = None
        for part in self._parts:
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
        for part in self._parts:
            if name not in part.layout.version.index:
                codes[part.rows] = Provenance.NOT_IN_VERSION
                continue
            nulls = part.nulls(name)
            stored = np.uint8(Provenance.STORED)
            codes[part.rows] = stored if nulls is None else nulls.astype(np.uint8)
        return codes

    def fill(self, out: npt.NDArray[np.float32], names: Sequence[str]) -> None:
        features = [self.group.current.feature(name) for name in names]
        sizes = sizes_of(features)
        whole = len(self._parts) == 1 and isinstance(self._parts[0].rows, slice)
        runs = self._parts[0].layout.runs(tuple(names), sizes) if whole else ()
        if not whole or sum(run.width for run in runs) < out.shape[1]:
            out[...] = np.concatenate(
                [np.ravel(feature.default_array()) for feature in features]
            ).astype(np.float32)
        for part in self._parts:
            for run in part.layout.runs(tuple(names), sizes):
                cells = part.fixed[:, run.start : run.stop].view(run.dtype)
                out[part.rows, run.column : run.column + run.width] = cells
            if part.layout.booleans or part.any_nulls():
                self._fill_bits(out, part, names, sizes)

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

    def tombstone(self, event_time_ms: int, expiry_s: int) -> bytes:
        header = np.zeros(1, dtype=HEADER)
        header["layout"] = LAYOUT_VERSION
        header["flags"] = TOMBSTONE
        header["expiry"] = expiry_s
        header["event_time"] = event_time_ms
        return header.tobytes()

    def order(self, value: bytes) -> tuple[int, bool]:
        if len(value) < _HEADER_BYTES or value[0] != LAYOUT_VERSION:
            return (0, False)
        return int.from_bytes(value[16:24], "little"), bool(value[1] & TOMBSTONE)

    def decode(
        self, values: Sequence[bytes | None], group: FeatureGroup, now_s: float
    ) -> PackedRows:
        status = np.zeros(len(values), dtype=np.uint8)
        event_time = np.zeros(len(values), dtype=np.uint64)
        found: npt.NDArray[np.intp] | None = None
        present: Sequence[bytes] = values  # type: ignore[assignment]
        if None in values:
            found = np.array([at for at, v in enumerate(values) if v is not None], dtype=np.intp)
            status[:] = Status.MISSING
            status[found] = Status.OK
            present = [value for value in values if value is not None]
        if not present:
            return PackedRows(group, status, event_time, (), frozenset())
        batch = _Batch(present, group, now_s)
        where: npt.NDArray[np.intp] | slice = slice(None) if found is None else found
        status[where] = batch.status
        event_time[where] = batch.header["event_time"]
        parts = (
            batch.parts
            if found is None
            else [
                _Part(found[part.rows], part.layout, part.fixed, part.bodies)
                for part in batch.parts
            ]
        )
        return PackedRows(group, status, event_time, parts, batch.unknown_versions)


class _Batch:
    """The values that were found: headers checked as arrays, rows sorted by schema version."""

    def __init__(self, values: Sequence[bytes], group: FeatureGroup, now_s: float) -> None:
        self.values = values
        self.lengths = np.fromiter(map(len, values), dtype=np.int64, count=len(values))
        first = int(self.lengths[0])
        self.uniform = first >= _HEADER_BYTES and bool((self.lengths == first).all())
        self.joined: npt.NDArray[np.uint8] | None = None
        if self.uniform:
            self.joined = np.frombuffer(b"".join(values), dtype=np.uint8).reshape(-1, first)
            self.header = self.joined[:, :_HEADER_BYTES].view(HEADER)[:, 0]
        else:
            heads = b"".join([v[:_HEADER_BYTES].ljust(_HEADER_BYTES, b"\0") for v in values])
            self.header = np.frombuffer(heads, dtype=HEADER)
        self.status = self._check(now_s)
        self.unknown_versions: frozenset[int] = frozenset()
        self.parts = self._sort(group)

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
        numbers = self.header["version"]
        alive = self.status == Status.OK
        if not alive.any():
            return []
        first = int(numbers[0])
        if alive.all() and (numbers == first).all():
            part = self._part(group, first, slice(None))
            return [part] if part else []
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
        chosen = (
            self.values if isinstance(rows, slice) else [self.values[at] for at in rows.tolist()]
        )
        if self.joined is not None:
            fixed = self.joined[rows, _HEADER_BYTES:stop]
        else:
            together = b"".join([value[_HEADER_BYTES:stop] for value in chosen])
            fixed = np.frombuffer(together, dtype=np.uint8).reshape(-1, layout.stride)
        if layout.strings:
            bodies = [value[_HEADER_BYTES:] for value in chosen]
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
