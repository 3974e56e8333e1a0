"""The packed codec: a header of 24 bytes, one fixed stride a schema version, then the strings.

A batch of one schema version decodes as one view over the joined rows, a mixed batch as one a
version; nothing here loops over cells, and over rows only where strings are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from operator import itemgetter
from zlib import crc32

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.codecs.packed.batch import Batch, table_of
from kirana.codecs.packed.checksum import crc32_rows
from kirana.codecs.packed.layout import (
    CHECKSUM,
    CHECKSUM_BYTES,
    HEADER,
    HEADER_BYTES,
    LAYOUT_VERSION,
    TOMBSTONE,
    Layout,
    layout_of,
)
from kirana.codecs.packed.plain import sort_plain
from kirana.codecs.packed.rows import PackedRows, Section
from kirana.codecs.rows import Column, Piece, Status, Texts
from kirana.errors import TooLarge
from kirana.ragged import Bytes, positions_of, table_of_equal
from kirana.schema import Array, FeatureGroup, SchemaVersion

MAX_BODY_BYTES = 1 << 20

_MAX_LENGTHS = 8
"""Rows of up to so many lengths are decoded length by length: of more, strings are the reason."""


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
        rows = self._fixed_columns(group, version, columns, event_time_ms)
        tails = [b""] * count
        for name in layout.strings:
            tails = self._place_strings(rows, layout, name, columns[name], tails)
        if layout.strings:
            length = rows["header"]["length"]
            length += np.fromiter(map(len, tails), dtype=np.uint32, count=count)
            require_fits(group, int(length.max(initial=0)))
        size = rows.itemsize
        joined = rows.tobytes()
        values = [joined[at : at + size] for at in range(0, size * count, size)]
        if layout.strings:
            values = [a + b for a, b in zip(values, tails, strict=True)]
        return [_summed(value) for value in values] if group.checksum else values

    def encode_block(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column | Texts],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> tuple[Bytes, npt.NDArray[np.int64]]:
        layout = layout_of(version)
        rows = self._fixed_columns(group, version, columns, event_time_ms)
        count, head = len(rows), rows.itemsize
        texts = [columns[name] for name in layout.strings]
        sizes = np.zeros((count, len(texts)), dtype=np.int64)
        for at, (name, text) in enumerate(zip(layout.strings, texts, strict=True)):
            assert isinstance(text, Texts)
            sizes[:, at] = text.sizes if text.nulls is None else np.where(text.nulls, 0, text.sizes)
            rows[f"f.{name}"]["offset"] = layout.stride + sizes[:, :at].sum(axis=1)
            rows[f"f.{name}"]["length"] = sizes[:, at]
        bodies = layout.stride + sizes.sum(axis=1)
        require_fits(group, int(bodies.max(initial=0)))
        rows["header"]["length"] = bodies
        fixed = rows.view(np.uint8).reshape(count, head)
        sums = CHECKSUM_BYTES if group.checksum else 0
        if not texts and not sums:
            return fixed.reshape(-1), np.arange(1, count + 1) * head
        whole = bodies + (HEADER_BYTES + sums)
        ends = np.cumsum(whole)
        starts = ends - whole
        data = np.empty(int(ends[-1]) if count else 0, dtype=np.uint8)
        data[positions_of(starts, np.full(count, head))] = fixed.reshape(-1)
        for at, text in enumerate(texts):
            assert isinstance(text, Texts)
            before = starts + head + sizes[:, :at].sum(axis=1)
            source = positions_of(text.starts, sizes[:, at])
            data[positions_of(before, sizes[:, at])] = text.data[source]
        if sums:
            _add_checksums(data, starts, whole)
        return data, ends

    def _fixed_columns(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column] | Mapping[str, Column | Texts],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> Array:
        """Return headers and all that is not a string, as one structured array."""
        layout = layout_of(version)
        count = len(event_time_ms)
        require_fits(group, layout.stride)
        rows = np.zeros(count, dtype=layout.row_dtype)
        nulls = np.zeros((count, len(version.features)), dtype=np.bool_)
        for at, feature in enumerate(version.features):
            column = columns[feature.name]
            if column.nulls is not None:
                nulls[:, at] = column.nulls
            if feature.dtype not in ("bool", "string"):
                assert isinstance(column, Column)
                rows[f"f.{feature.name}"] = column.values
                if column.nulls is not None:
                    rows[f"f.{feature.name}"][column.nulls] = 0
        if layout.booleans:
            flags = [columns[name] for name in layout.booleans]
            bits = np.stack([each.values for each in flags if isinstance(each, Column)], axis=1)
            rows["booleans"] = np.packbits(bits.astype(np.bool_), axis=1, bitorder="little")
        rows["nulls"] = np.packbits(nulls, axis=1, bitorder="little")
        header = rows["header"]
        header["layout"] = LAYOUT_VERSION
        header["flags"] = CHECKSUM if group.checksum else 0
        header["version"] = version.number
        header["fingerprint"] = version.fingerprint
        header["expiry"] = group.expiry_s(event_time_ms)
        header["event_time"] = event_time_ms
        header["length"] = layout.stride
        return rows

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
        if len(value) < HEADER_BYTES or value[0] != LAYOUT_VERSION:
            return (0, False)
        return int.from_bytes(value[16:24], "little"), bool(value[1] & TOMBSTONE)

    def expiry_s(self, value: bytes) -> int:
        return int.from_bytes(value[8:12], "little") if len(value) >= HEADER_BYTES else 0

    def decode(
        self,
        values: Sequence[bytes | None] | npt.NDArray[np.uint8],
        group: FeatureGroup,
        now_s: float,
    ) -> PackedRows:
        """Read a batch, which may also be a table with a row a value."""
        # of these, no row is plain
        special = group.checksum or layout_of(group.current).strings
        if special or not native.COMPILED or not len(values):
            return _decode_any(_as_table(values), group, now_s)
        rows, odd = sort_plain(values, group, now_s)
        if not odd:
            return rows
        if len(odd) == len(values):
            return _decode_any(_as_table(values), group, now_s)
        if isinstance(values, np.ndarray):
            others = _decode_any(values[odd], group, now_s)
        else:
            others = _decode_any([values[at] for at in odd], group, now_s)
        return _laid_over(rows, np.array(odd, dtype=np.intp), others)

    def decode_pieces(
        self, count: int, pieces: Sequence[Piece], group: FeatureGroup, now_s: float
    ) -> PackedRows:
        decoded = []
        for piece in pieces:
            rows = self.decode(piece.values, group, now_s)
            if piece.positions is None:
                return rows
            decoded.append((piece.positions, rows))
        return _merge(group, count, decoded)


def _as_table(values: Sequence[bytes | None] | Bytes) -> Sequence[bytes | None] | Bytes:
    """Return a table of rows that are borrowed, anything else as it is."""
    borrowed = native.COMPILED and isinstance(values, native.borrowed.Borrowed)
    return values.rows() if borrowed else values  # type: ignore[union-attr]


def _decode_any(
    values: Sequence[bytes | None] | npt.NDArray[np.uint8], group: FeatureGroup, now_s: float
) -> PackedRows:
    """Decode whatever rows there are, by arrays."""
    if not len(values):
        nothing = np.zeros(0, dtype=np.uint8)
        return PackedRows(group, nothing, nothing.astype(np.uint64), (), frozenset())
    if isinstance(values, np.ndarray):
        if values.shape[1] >= HEADER_BYTES:
            return Batch((), values, group, now_s).decoded(group)
        values = [row.tobytes() for row in values]
    try:
        table = table_of(values)  # type: ignore[arg-type]
    except TypeError:
        # put what is there among the rows that are missing
        found = np.array([at for at, v in enumerate(values) if v is not None], dtype=np.intp)
        there = [values[at] for at in found.tolist()]
        return _merge(group, len(values), [(found, _decode_any(there, group, now_s))])
    if table is None:
        lengths = np.fromiter(map(len, values), np.int64, len(values))  # type: ignore[arg-type]
        order = np.argsort(lengths, kind="stable")
        sizes = lengths[order]
        starts = np.flatnonzero(np.append(True, sizes[1:] != sizes[:-1]))
        if 1 < len(starts) <= _MAX_LENGTHS and sizes[0] >= HEADER_BYTES:
            return _decode_by_length(values, order, starts.tolist(), group, now_s)  # type: ignore[arg-type]
    return Batch(values, table, group, now_s).decoded(group)  # type: ignore[arg-type]


def _decode_by_length(
    values: Sequence[bytes],
    order: npt.NDArray[np.intp],
    starts: Sequence[int],
    group: FeatureGroup,
    now_s: float,
) -> PackedRows:
    """Decode rows of several schema versions, which are of one length each, as a table each.

    `order` sorts them by length; each length's rows begin at one of `starts` in it.
    """
    chosen: tuple[bytes, ...] = itemgetter(*order.tolist())(values)
    joined = b"".join(chosen)
    decoded = []
    offset = 0
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        size = len(chosen[start])
        table = np.ndarray((stop - start, size), np.uint8, joined, offset)
        rows = Batch(chosen[start:stop], table, group, now_s).decoded(group)
        decoded.append((order[start:stop], rows))
        offset += size * (stop - start)
    return _merge(group, len(values), decoded)


def _merge(
    group: FeatureGroup,
    count: int,
    decoded: Sequence[tuple[npt.NDArray[np.intp], PackedRows]],
) -> PackedRows:
    """Put rows to their positions; a position that none has is missing."""
    status = np.full(count, Status.MISSING, dtype=np.uint8)
    event_time = np.zeros(count, dtype=np.uint64)
    sections: list[Section] = []
    unknown: frozenset[int] = frozenset()
    for positions, rows in decoded:
        status[positions] = rows.status
        event_time[positions] = rows.event_time_ms
        sections += _moved(rows.sections, positions)
        unknown |= rows.unknown_versions
    return PackedRows(group, status, event_time, sections, unknown)


def _laid_over(rows: PackedRows, positions: npt.NDArray[np.intp], others: PackedRows) -> PackedRows:
    """Put other rows to positions where `rows` has none."""
    status, event_time = rows.status, rows.event_time_ms
    status[positions] = others.status
    event_time[positions] = others.event_time_ms
    sections = [*rows.sections, *_moved(others.sections, positions)]
    return PackedRows(rows.group, status, event_time, sections, others.unknown_versions)


def _moved(sections: Sequence[Section], positions: npt.NDArray[np.intp]) -> list[Section]:
    return [Section(positions[p.rows], p.layout, p.fixed, p.bodies, p.has_nulls) for p in sections]


def _add_checksums(
    data: Bytes, starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> None:
    """Write the checksum of each value's body behind it; values of one size at once."""
    for size in np.unique(sizes).tolist():
        of_size = starts[sizes == size]
        values = table_of_equal(data, of_size, size - CHECKSUM_BYTES)
        sums = crc32_rows(values[:, HEADER_BYTES:]).astype("<u4").view(np.uint8)
        positions = (of_size + size - CHECKSUM_BYTES)[:, None] + np.arange(CHECKSUM_BYTES)
        data[positions] = sums.reshape(-1, CHECKSUM_BYTES)


def require_fits(group: FeatureGroup, body_bytes: int) -> None:
    """Raise `TooLarge` for a row of so many bytes, if it is."""
    if body_bytes > MAX_BODY_BYTES:
        raise TooLarge(
            f"a row of '{group.name}' takes {body_bytes} bytes, the limit is {MAX_BODY_BYTES}"
        )


def _summed(value: bytes) -> bytes:
    return value + crc32(value[HEADER_BYTES:]).to_bytes(CHECKSUM_BYTES, "little")
