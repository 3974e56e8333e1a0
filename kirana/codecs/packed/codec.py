"""The packed codec: rows of a header, a fixed part, and the bytes of strings.

All fixed parts of one schema version have the same size, and decode as one array.
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
from kirana.codecs.packed.plain import decode_plain
from kirana.codecs.packed.rows import PackedRows, Section
from kirana.codecs.rows import Column, Piece, Status, Texts
from kirana.errors import TooLarge
from kirana.ragged import Bytes, gather_table, positions_of
from kirana.schema import Array, FeatureGroup, SchemaVersion

MAX_BODY_BYTES = 1 << 20
"""Maximum size of a row's body in bytes."""

_MAX_LENGTHS = 8
"""Maximum number of different row sizes in a batch that is decoded size by size."""


class Packed:
    """A `Codec` for binary rows. See docs/formats.md."""

    name = "packed"

    def encode(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> list[bytes]:
        """Return one packed row per event time."""
        layout = layout_of(version)
        count = len(event_time_ms)
        rows = self._fixed_rows(group, version, columns, event_time_ms)
        tails = [b""] * count
        for name in layout.strings:
            tails = self._append_strings(rows, layout, name, columns[name], tails)
        if layout.strings:
            length = rows["header"]["length"]
            length += np.fromiter(map(len, tails), dtype=np.uint32, count=count)
            require_fits(group, int(length.max(initial=0)))
        size = rows.itemsize
        joined = rows.tobytes()
        values = [joined[start : start + size] for start in range(0, size * count, size)]
        if layout.strings:
            values = [value + tail for value, tail in zip(values, tails, strict=True)]
        return [_with_checksum(value) for value in values] if group.checksum else values

    def encode_block(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column | Texts],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> tuple[Bytes, npt.NDArray[np.int64]]:
        """Return all packed rows, joined, and the position where each row ends."""
        layout = layout_of(version)
        rows = self._fixed_rows(group, version, columns, event_time_ms)
        count, head = len(rows), rows.itemsize
        texts = [columns[name] for name in layout.strings]
        sizes = np.zeros((count, len(texts)), dtype=np.int64)
        for i, (name, text) in enumerate(zip(layout.strings, texts, strict=True)):
            assert isinstance(text, Texts)
            sizes[:, i] = text.sizes if text.nulls is None else np.where(text.nulls, 0, text.sizes)
            rows[f"f.{name}"]["offset"] = layout.stride + sizes[:, :i].sum(axis=1)
            rows[f"f.{name}"]["length"] = sizes[:, i]
        body_sizes = layout.stride + sizes.sum(axis=1)
        require_fits(group, int(body_sizes.max(initial=0)))
        rows["header"]["length"] = body_sizes
        fixed = rows.view(np.uint8).reshape(count, head)
        checksum_size = CHECKSUM_BYTES if group.checksum else 0
        if not texts and not checksum_size:
            return fixed.reshape(-1), np.arange(1, count + 1) * head
        row_sizes = body_sizes + (HEADER_BYTES + checksum_size)
        ends = np.cumsum(row_sizes)
        starts = ends - row_sizes
        data = np.empty(int(ends[-1]) if count else 0, dtype=np.uint8)
        data[positions_of(starts, np.full(count, head))] = fixed.reshape(-1)
        for i, text in enumerate(texts):
            assert isinstance(text, Texts)
            target_starts = starts + head + sizes[:, :i].sum(axis=1)
            source = positions_of(text.starts, sizes[:, i])
            data[positions_of(target_starts, sizes[:, i])] = text.data[source]
        if checksum_size:
            _add_checksums(data, starts, row_sizes)
        return data, ends

    def _fixed_rows(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column] | Mapping[str, Column | Texts],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> Array:
        """Return the headers and fixed parts of all rows as a structured array.

        The caller must fill in the offsets and lengths of strings. The lengths in the headers do
        not include the strings yet.
        """
        layout = layout_of(version)
        count = len(event_time_ms)
        require_fits(group, layout.stride)
        rows = np.zeros(count, dtype=layout.row_dtype)
        nulls = np.zeros((count, len(version.features)), dtype=np.bool_)
        for i, feature in enumerate(version.features):
            column = columns[feature.name]
            if column.nulls is not None:
                nulls[:, i] = column.nulls
            if feature.dtype not in ("bool", "string"):
                assert isinstance(column, Column)
                rows[f"f.{feature.name}"] = column.values
                if column.nulls is not None:
                    rows[f"f.{feature.name}"][column.nulls] = 0
        if layout.booleans:
            flags = [columns[name] for name in layout.booleans]
            bits = np.stack([flag.values for flag in flags if isinstance(flag, Column)], axis=1)
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
    def _append_strings(
        rows: Array, layout: Layout, name: str, column: Column, tails: list[bytes]
    ) -> list[bytes]:
        """Set the offsets and lengths of the strings of one feature in `rows`.

        `tails` holds the joined strings of the earlier features, one element per row. Return the
        tails with the strings of this feature appended. Raise `TooLarge` if a string is longer than
        `MAX_BODY_BYTES`.
        """
        spans = rows[f"f.{name}"]
        nulls = column.nulls
        texts = [
            b"" if nulls is not None and nulls[i] else text.encode()
            for i, text in enumerate(column.values.tolist())
        ]
        lengths = list(map(len, texts))
        if max(lengths, default=0) > MAX_BODY_BYTES:
            raise TooLarge(
                f"a string of '{name}' has {max(lengths)} bytes, the limit is {MAX_BODY_BYTES}",
                field=name,
            )
        spans["offset"] = [layout.stride + len(tail) for tail in tails]
        spans["length"] = lengths
        return [tail + text for tail, text in zip(tails, texts, strict=True)]

    def tombstones(self, event_time_ms: npt.NDArray[np.uint64], expiry_s: int) -> list[bytes]:
        """Return rows that consist only of a header, with the flag `TOMBSTONE`."""
        header = np.zeros(len(event_time_ms), dtype=HEADER)
        header["layout"] = LAYOUT_VERSION
        header["flags"] = TOMBSTONE
        header["expiry"] = expiry_s
        header["event_time"] = event_time_ms
        return [row.tobytes() for row in header]

    def write_order(self, value: bytes) -> tuple[int, bool]:
        """Return the event time in Unix milliseconds, and whether the row is a tombstone.

        Return `(0, False)` for a value that is too short or has a different layout version.
        """
        if len(value) < HEADER_BYTES or value[0] != LAYOUT_VERSION:
            return (0, False)
        return int.from_bytes(value[16:24], "little"), bool(value[1] & TOMBSTONE)

    def expiry_s(self, value: bytes) -> int:
        """Return the expiry in Unix seconds, 0 for a value that is too short."""
        return int.from_bytes(value[8:12], "little") if len(value) >= HEADER_BYTES else 0

    def decode(
        self,
        values: Sequence[bytes | None] | npt.NDArray[np.uint8],
        group: FeatureGroup,
        now_s: float,
    ) -> PackedRows:
        """Decode a batch that is given as a sequence or as a table, `uint8[rows, bytes]`."""
        # The compiled loop handles neither checksums nor strings.
        special = group.checksum or layout_of(group.current).strings
        if special or not native.COMPILED or not len(values):
            return _decode_any(_as_table(values), group, now_s)
        rows, other_rows = decode_plain(values, group, now_s)
        if not other_rows:
            return rows
        if len(other_rows) == len(values):
            return _decode_any(_as_table(values), group, now_s)
        if isinstance(values, np.ndarray):
            others = _decode_any(values[other_rows], group, now_s)
        else:
            others = _decode_any([values[position] for position in other_rows], group, now_s)
        return _inserted(rows, np.array(other_rows, dtype=np.intp), others)

    def decode_pieces(
        self, count: int, pieces: Sequence[Piece], group: FeatureGroup, now_s: float
    ) -> PackedRows:
        """Decode each piece, and merge the results."""
        decoded = []
        for piece in pieces:
            rows = self.decode(piece.values, group, now_s)
            if piece.positions is None:
                return rows
            decoded.append((piece.positions, rows))
        return _merge(group, count, decoded)


def _as_table(values: Sequence[bytes | None] | Bytes) -> Sequence[bytes | None] | Bytes:
    """Return `Borrowed` rows as a table, and any other values unchanged."""
    borrowed = native.COMPILED and isinstance(values, native.borrowed.Borrowed)
    return values.rows() if borrowed else values  # type: ignore[union-attr]


def _decode_any(
    values: Sequence[bytes | None] | npt.NDArray[np.uint8], group: FeatureGroup, now_s: float
) -> PackedRows:
    """Decode a batch of any encoded rows with numpy, without the compiled loop."""
    if not len(values):
        empty = np.zeros(0, dtype=np.uint8)
        return PackedRows(group, empty, empty.astype(np.uint64), (), frozenset())
    if isinstance(values, np.ndarray):
        if values.shape[1] >= HEADER_BYTES:
            return Batch((), values, group, now_s).decoded(group)
        values = [row.tobytes() for row in values]
    try:
        table = table_of(values)  # type: ignore[arg-type]
    except TypeError:
        # Some values are None. Decode only the others. `_merge` marks the Nones as missing.
        positions = np.array([i for i, v in enumerate(values) if v is not None], dtype=np.intp)
        stored = [values[position] for position in positions.tolist()]
        return _merge(group, len(values), [(positions, _decode_any(stored, group, now_s))])
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
    """Decode rows of a few different lengths, with one table per length.

    `order` holds the positions of the rows, sorted by length. `starts` holds the positions in
    `order` where a new length begins.
    """
    by_length: tuple[bytes, ...] = itemgetter(*order.tolist())(values)
    joined = b"".join(by_length)
    decoded = []
    offset = 0
    for start, stop in zip(starts, [*starts[1:], len(values)], strict=True):
        size = len(by_length[start])
        table = np.ndarray((stop - start, size), np.uint8, joined, offset)
        rows = Batch(by_length[start:stop], table, group, now_s).decoded(group)
        decoded.append((order[start:stop], rows))
        offset += size * (stop - start)
    return _merge(group, len(values), decoded)


def _merge(
    group: FeatureGroup,
    count: int,
    decoded: Sequence[tuple[npt.NDArray[np.intp], PackedRows]],
) -> PackedRows:
    """Combine decoded rows into a batch of `count` rows. Rows at other positions are missing."""
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


def _inserted(rows: PackedRows, positions: npt.NDArray[np.intp], others: PackedRows) -> PackedRows:
    """Return `rows` with the rows of `others` at `positions`.

    `rows` has no decoded rows at these positions. Its status and event times are changed in place.
    """
    status, event_time = rows.status, rows.event_time_ms
    status[positions] = others.status
    event_time[positions] = others.event_time_ms
    sections = [*rows.sections, *_moved(others.sections, positions)]
    return PackedRows(rows.group, status, event_time, sections, others.unknown_versions)


def _moved(sections: Sequence[Section], positions: npt.NDArray[np.intp]) -> list[Section]:
    """Return the sections as part of a larger batch. Row i is row `positions[i]` there."""
    return [Section(positions[s.rows], s.layout, s.fixed, s.bodies, s.has_nulls) for s in sections]


def _add_checksums(
    data: Bytes, starts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> None:
    """Write the checksum of each body into the last bytes of its row.

    `data` holds the rows. All rows of one size are handled at once.
    """
    for size in np.unique(sizes).tolist():
        same_size = starts[sizes == size]
        values = gather_table(data, same_size, size - CHECKSUM_BYTES)
        sums = crc32_rows(values[:, HEADER_BYTES:]).astype("<u4").view(np.uint8)
        positions = (same_size + size - CHECKSUM_BYTES)[:, None] + np.arange(CHECKSUM_BYTES)
        data[positions] = sums.reshape(-1, CHECKSUM_BYTES)


def require_fits(group: FeatureGroup, body_bytes: int) -> None:
    """Raise `TooLarge` if `body_bytes`, the size of a body, exceeds `MAX_BODY_BYTES`.

    The text codec passes the size of a whole row, or of the longest string.
    """
    if body_bytes > MAX_BODY_BYTES:
        raise TooLarge(
            f"a row of '{group.name}' has {body_bytes} bytes, the limit is {MAX_BODY_BYTES}"
        )


def _with_checksum(value: bytes) -> bytes:
    """Return a packed row with the checksum of its body appended."""
    return value + crc32(value[HEADER_BYTES:]).to_bytes(CHECKSUM_BYTES, "little")
