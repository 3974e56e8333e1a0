"""The text codec: `v1,v2,v3;expiry;version;event_time;fingerprint`.

People can read and write these rows, and programs in other languages can split them. Decoding
translates them to packed rows, so that only the packed codec handles defaults, nulls, statuses and
schema versions. See docs/formats.md.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana.codecs.packed.codec import Packed, require_fits
from kirana.codecs.packed.layout import HEADER, LAYOUT_VERSION, TOMBSTONE
from kirana.codecs.rows import Column, Piece, Rows, Texts
from kirana.errors import TooLarge
from kirana.ragged import Bytes
from kirana.schema import NUMERIC, Array, Feature, FeatureGroup, SchemaVersion

EMPTY = "\\e"
"""The spelling of an empty string. An empty field means null."""

_CORRUPT = b"\0"
"""Stands for a corrupt text row. As a packed row, it is too short, and so corrupt as well."""

_PACKED = Packed()
_SECTIONS = re.compile(r"((?:[^;\\]|\\.)*)(?:;|$)", re.DOTALL)
_FIELDS = re.compile(r"((?:[^,\\]|\\.)*)(?:,|$)", re.DOTALL)
_ESCAPED = re.compile(r"\\([,;\\])")
_TO_ESCAPE = re.compile(r"([,;\\])")
_INTEGER = re.compile(r"-?[0-9]{1,20}")
_FLOAT = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|nan|-?inf")
_NON_FINITE = ("nan", "inf", "-inf")
_DIGITS = re.compile(r"[0-9]{1,20}")
_FINGERPRINT = re.compile(r"[0-9a-f]{8}")


@dataclass(frozen=True, slots=True)
class _TextRow:
    """The sections of a text row. `body` holds its fields, which are not parsed yet."""

    body: str
    expiry_s: int = 0
    version: int = 1
    event_time_ms: int = 0
    fingerprint: int | None = None

    @property
    def tombstone(self) -> bool:
        """Whether the row is a tombstone."""
        return self.version == 0


class Text:
    """A `Codec` of rows that people can read."""

    name = "text"

    def encode(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> list[bytes]:
        """Return one text per row, in UTF-8."""
        fields = [_spell(feature, columns[feature.name]) for feature in version.features]
        expiry = group.expiry_s(event_time_ms).tolist()
        times = event_time_ms.tolist()
        values = []
        for row, expires, time in zip(zip(*fields, strict=True), expiry, times, strict=True):
            end = f"{expires};{version.number};{time};{version.fingerprint:08x}"
            values.append(f"{','.join(row)};{end}".encode())
        require_fits(group, max(map(len, values), default=0))
        return values

    def encode_block(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column | Texts],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> tuple[Bytes, npt.NDArray[np.int64]]:
        """Return the texts of all rows, joined, and the position where each text ends."""
        # Imported here, so that processes that only serve requests do not load Arrow.
        from kirana.codecs.text_block import encode_rows

        for column in columns.values():
            if isinstance(column, Texts):
                # Check this before Arrow copies the strings.
                require_fits(group, int(column.sizes.max(initial=0)))
        expiry_s = group.expiry_s(event_time_ms)
        data, ends = encode_rows(version, columns, expiry_s, event_time_ms, EMPTY)
        require_fits(group, int(np.diff(ends, prepend=0).max(initial=0)))
        return data, ends

    def tombstones(self, event_time_ms: npt.NDArray[np.uint64], expiry_s: int) -> list[bytes]:
        """Return rows with the version 0 and an empty body."""
        return [f";{expiry_s};0;{time}".encode() for time in event_time_ms.tolist()]

    def write_order(self, value: bytes) -> tuple[int, bool]:
        """Return the event time in Unix milliseconds, and whether the row is a tombstone.

        Return `(0, False)` for a value that can't be parsed.
        """
        # Latin-1 decodes any bytes. The script in Redis does not check for UTF-8 either, and both
        # must return the same order.
        row = _split_sections(value.decode("latin-1"))
        return (0, False) if row is None else (row.event_time_ms, row.tombstone)

    def expiry_s(self, value: bytes) -> int:
        """Return the expiry in Unix seconds, 0 for a value that can't be parsed."""
        row = _parse(value)
        return 0 if row is None else row.expiry_s

    def decode(self, values: Sequence[bytes | None], group: FeatureGroup, now_s: float) -> Rows:
        """Translate a batch to packed rows, and decode these."""
        packed: list[bytes | None] = [None] * len(values)
        by_version: dict[int, list[tuple[int, _TextRow]]] = defaultdict(list)
        for position, value in enumerate(values):
            if value is None:
                continue
            row = _parse(value)
            if row is None:
                packed[position] = _CORRUPT
            elif row.tombstone or row.version > len(group.versions):
                packed[position] = _header(row, TOMBSTONE if row.tombstone else 0)
            else:
                by_version[row.version].append((position, row))
        for number, rows in by_version.items():
            encoded = _packed_rows(group, group.versions[number - 1], [row for _, row in rows])
            for (position, _), packed_row in zip(rows, encoded, strict=True):
                packed[position] = packed_row
        return _PACKED.decode(packed, group, now_s)

    def decode_pieces(
        self, count: int, pieces: Sequence[Piece], group: FeatureGroup, now_s: float
    ) -> Rows:
        """Put the rows of all pieces into one batch, and decode it."""
        values: list[bytes | None] = [None] * count
        for piece in pieces:
            positions = range(count) if piece.positions is None else piece.positions.tolist()
            for position, value in zip(positions, piece.values, strict=True):
                values[position] = value.tobytes() if isinstance(value, np.ndarray) else value
        return self.decode(values, group, now_s)


def _parse(value: bytes) -> _TextRow | None:
    """Return the sections of an encoded row, or None if it is not a text row."""
    try:
        return _split_sections(value.decode())
    except UnicodeDecodeError:
        return None


def _split_sections(text: str) -> _TextRow | None:
    """Return the sections of a text, or None if it is not a text row."""
    sections = _split(_SECTIONS, text, ";")
    if sections is None or not 1 <= len(sections) <= 5:
        return None
    body, *rest = sections
    numbers, fingerprint = rest[:3], None
    if len(rest) == 4:
        if not _FINGERPRINT.fullmatch(rest[3]):
            return None
        fingerprint = int(rest[3], 16)
    if not all(map(_DIGITS.fullmatch, numbers)):
        return None
    expiry, version, time = [*map(int, numbers), *(0, 1, 0)[len(numbers) :]]
    if expiry > 0xFFFFFFFF or version > 0xFFFF or time >= 1 << 64 or (version == 0 and body):
        return None
    return _TextRow(body, expiry, version, time, fingerprint)


def _split(pattern: re.Pattern[str], text: str, separator: str) -> list[str] | None:
    """Split at separators that are not escaped.

    Return None if the last character is a backslash that is not escaped itself.
    """
    if "\\" not in text:
        return text.split(separator)
    parts, start = [], 0
    while True:
        match = pattern.match(text, start)
        if match is None:
            return None
        parts.append(match[1])
        if match.end() == len(text):
            # A separator at the end is followed by an empty part.
            return [*parts, ""] if len(match[0]) > len(match[1]) else parts
        start = match.end()


def _header(row: _TextRow, flags: int) -> bytes:
    """Return a packed row without a body, for a tombstone or a row of an unknown schema version."""
    header = np.zeros(1, dtype=HEADER)
    header["layout"] = LAYOUT_VERSION
    header["flags"] = flags
    header["version"] = row.version
    header["expiry"] = row.expiry_s
    header["event_time"] = row.event_time_ms
    return header.tobytes()


def _packed_rows(group: FeatureGroup, version: SchemaVersion, rows: list[_TextRow]) -> list[bytes]:
    """Return one packed row per text row, `_CORRUPT` for those that do not match `version`."""
    valid: list[int] = []
    values_of_rows: list[list[object]] = []
    for position, row in enumerate(rows):
        values = None
        if row.fingerprint in (None, version.fingerprint):
            values = _values(version, row.body)
        if values is not None:
            valid.append(position)
            values_of_rows.append(values)
    result = [_CORRUPT] * len(rows)
    if not valid:
        return result
    columns = {
        feature.name: _column(feature, [values[i] for values in values_of_rows])
        for i, feature in enumerate(version.features)
    }
    times = np.array([rows[position].event_time_ms for position in valid], dtype=np.uint64)
    try:
        packed = _PACKED.encode(group, version, columns, times)
    except TooLarge:
        # Only rows that are too large are corrupt. Translate each row by itself to find them.
        if len(rows) == 1:
            return result
        return [packed_row for row in rows for packed_row in _packed_rows(group, version, [row])]
    for position, packed_row in zip(valid, packed, strict=True):
        # `encode` has computed the expiry from the TTL of the group. The text row has its own.
        expiry = rows[position].expiry_s.to_bytes(4, "little")
        result[position] = packed_row[:8] + expiry + packed_row[12:]
    return result


def _values(version: SchemaVersion, body: str) -> list[object] | None:
    """Return the values of the fields in a body, None for nulls.

    Return None instead of a list if the body does not match `version`.
    """
    fields = _split(_FIELDS, body, ",")
    if fields is None or len(fields) != len(version.features):
        return None
    values: list[object] = []
    for feature, field in zip(version.features, fields, strict=True):
        value = None if field == "" else _value(feature, field)
        if value is None and field != "":
            return None
        values.append(value)
    return values


def _value(feature: Feature, field: str) -> object | None:
    """Return the value of a field that is not empty, or None if the field is not valid."""
    if feature.dtype == "string":
        if field == EMPTY:
            return ""
        # Every backslash must be part of an escape.
        return None if "\\" in _ESCAPED.sub("", field) else _ESCAPED.sub(r"\1", field)
    if not feature.shape:
        return _number(feature, field)
    if not (field.startswith("[") and field.endswith("]")):
        return None
    numbers = [_number(feature, text) for text in field[1:-1].split(" ")]
    if len(numbers) != feature.size or any(number is None for number in numbers):
        return None
    return numbers


def _number(feature: Feature, text: str) -> bool | int | float | None:
    """Return a number or boolean, or None if its spelling is wrong or it is out of range."""
    if feature.dtype == "bool":
        return {"0": False, "1": True}.get(text)
    dtype = NUMERIC[feature.dtype]
    if dtype.kind == "f":
        number = float(text) if _FLOAT.fullmatch(text) else None
        if number is None or not math.isfinite(number):
            return number if text in _NON_FINITE else None
        with np.errstate(over="ignore"):
            return number if np.isfinite(dtype.type(number)) else None
    if not _INTEGER.fullmatch(text):
        return None
    whole = int(text)
    return whole if np.iinfo(dtype).min <= whole <= np.iinfo(dtype).max else None


def _column(feature: Feature, values: list[object]) -> Column:
    """Return the values of one feature as a column. None means null."""
    is_null = np.array([value is None for value in values], dtype=np.bool_)
    nulls = is_null if is_null.any() else None
    if feature.dtype == "string":
        texts: Array = np.empty(len(values), dtype=object)
        texts[:] = ["" if value is None else value for value in values]
        return Column(texts, nulls)
    dtype = np.dtype(np.bool_) if feature.dtype == "bool" else NUMERIC[feature.dtype]
    filler = [0] * feature.size if feature.shape else 0
    filled = [filler if value is None else value for value in values]
    return Column(np.array(filled, dtype=dtype).reshape(len(values), *feature.shape), nulls)


def _spell(feature: Feature, column: Column) -> list[str]:
    """Return the text of one field per row."""
    values = column.values
    if feature.dtype == "string":
        fields = [_TO_ESCAPE.sub(r"\\\1", text) or EMPTY for text in values.tolist()]
    elif feature.dtype == "bool":
        fields = ["1" if value else "0" for value in values.tolist()]
    else:
        numbers = values.astype(NUMERIC[feature.dtype], copy=False)
        # numpy writes a float with the fewest digits that are read back as the same float.
        cells = numbers.reshape(len(numbers), feature.size).astype(str).tolist()
        if feature.shape:
            fields = [f"[{' '.join(row)}]" for row in cells]
        else:
            fields = [row[0] for row in cells]
    if column.nulls is not None:
        fields = ["" if null else f for f, null in zip(fields, column.nulls.tolist(), strict=True)]
    return fields
