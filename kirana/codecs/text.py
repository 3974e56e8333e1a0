"""The text codec, for people and other languages: `v1,v2,v3;expiry;version;event_time;fingerprint`.

What is read is translated to packed rows, so that defaults, nulls, statuses and schema versions
have one meaning; this file only knows how values are spelled. See docs/formats.md.
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
"""The empty string; an empty field is null."""

_CORRUPT = b"\0"
"""Too short for a packed row: whatever can't be read becomes this."""

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
class _Text:
    """A value taken apart; `body` is still as it was written."""

    body: str
    expiry_s: int = 0
    version: int = 1
    event_time_ms: int = 0
    fingerprint: int | None = None

    @property
    def tombstone(self) -> bool:
        return self.version == 0


class Text:
    """See `kirana.codecs.rows.Codec`."""

    name = "text"

    def encode(
        self,
        group: FeatureGroup,
        version: SchemaVersion,
        columns: Mapping[str, Column],
        event_time_ms: npt.NDArray[np.uint64],
    ) -> list[bytes]:
        fields = [_spell(each, columns[each.name]) for each in version.features]
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
        # here, so that who only serves does not load Arrow
        from kirana.codecs.text_block import spell_rows

        for column in columns.values():
            if isinstance(column, Texts):
                # before it is copied
                require_fits(group, int(column.sizes.max(initial=0)))
        expiry_s = group.expiry_s(event_time_ms)
        data, ends = spell_rows(version, columns, expiry_s, event_time_ms, EMPTY)
        require_fits(group, int(np.diff(ends, prepend=0).max(initial=0)))
        return data, ends

    def tombstones(self, event_time_ms: npt.NDArray[np.uint64], expiry_s: int) -> list[bytes]:
        return [f";{expiry_s};0;{time}".encode() for time in event_time_ms.tolist()]

    def order(self, value: bytes) -> tuple[int, bool]:
        # whether the fields are text is of no account here
        text = _taken_apart(value.decode("latin-1"))
        return (0, False) if text is None else (text.event_time_ms, text.tombstone)

    def expiry_s(self, value: bytes) -> int:
        text = _parse(value)
        return 0 if text is None else text.expiry_s

    def decode(self, values: Sequence[bytes | None], group: FeatureGroup, now_s: float) -> Rows:
        packed: list[bytes | None] = [None] * len(values)
        by_version: dict[int, list[tuple[int, _Text]]] = defaultdict(list)
        for at, value in enumerate(values):
            if value is None:
                continue
            text = _parse(value)
            if text is None:
                packed[at] = _CORRUPT
            elif text.tombstone or text.version > len(group.versions):
                packed[at] = _header(text, TOMBSTONE if text.tombstone else 0)
            else:
                by_version[text.version].append((at, text))
        for number, found in by_version.items():
            rows = _packed_rows(group, group.versions[number - 1], [text for _, text in found])
            for (at, _), row in zip(found, rows, strict=True):
                packed[at] = row
        return _PACKED.decode(packed, group, now_s)

    def decode_pieces(
        self, count: int, pieces: Sequence[Piece], group: FeatureGroup, now_s: float
    ) -> Rows:
        values: list[bytes | None] = [None] * count
        for piece in pieces:
            positions = range(count) if piece.positions is None else piece.positions.tolist()
            for at, value in zip(positions, piece.values, strict=True):
                values[at] = value.tobytes() if isinstance(value, np.ndarray) else value
        return self.decode(values, group, now_s)


def _parse(value: bytes) -> _Text | None:
    """Take a value apart; None for what is no text of this form."""
    try:
        return _taken_apart(value.decode())
    except UnicodeDecodeError:
        return None


def _taken_apart(text: str) -> _Text | None:
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
    return _Text(body, expiry, version, time, fingerprint)


def _split(pattern: re.Pattern[str], text: str, separator: str) -> list[str] | None:
    """Split at separators that are not escaped; None where a backslash escapes nothing."""
    if "\\" not in text:
        return text.split(separator)
    parts, at = [], 0
    while True:
        found = pattern.match(text, at)
        if found is None:
            return None
        parts.append(found[1])
        if found.end() == len(text):
            # a separator at the end stands before one more part
            return [*parts, ""] if len(found[0]) > len(found[1]) else parts
        at = found.end()


def _header(text: _Text, flags: int) -> bytes:
    """Return a packed row without a body: a tombstone, or of a version that is not known here."""
    header = np.zeros(1, dtype=HEADER)
    header["layout"] = LAYOUT_VERSION
    header["flags"] = flags
    header["version"] = text.version
    header["expiry"] = text.expiry_s
    header["event_time"] = text.event_time_ms
    return header.tobytes()


def _packed_rows(group: FeatureGroup, version: SchemaVersion, texts: list[_Text]) -> list[bytes]:
    """Return a packed row for each text of one version, `_CORRUPT` where it doesn't follow it."""
    good: list[int] = []
    rows: list[list[object]] = []
    for at, text in enumerate(texts):
        values = None
        if text.fingerprint in (None, version.fingerprint):
            values = _values(version, text.body)
        if values is not None:
            good.append(at)
            rows.append(values)
    found = [_CORRUPT] * len(texts)
    if not good:
        return found
    columns = {
        feature.name: _column(feature, [row[at] for row in rows])
        for at, feature in enumerate(version.features)
    }
    times = np.array([texts[at].event_time_ms for at in good], dtype=np.uint64)
    try:
        packed = _PACKED.encode(group, version, columns, times)
    except TooLarge:
        if len(texts) == 1:
            return found
        return [row for text in texts for row in _packed_rows(group, version, [text])]
    for at, row in zip(good, packed, strict=True):
        # what the text says counts, not what the group's ttl would make of its event time
        expiry = texts[at].expiry_s.to_bytes(4, "little")
        found[at] = row[:8] + expiry + row[12:]
    return found


def _values(version: SchemaVersion, body: str) -> list[object] | None:
    """Read the fields of a body, None for null; None for a body that is not of this version."""
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
    if feature.dtype == "string":
        if field == EMPTY:
            return ""
        plain = _ESCAPED.sub(r"\1", field)
        return None if "\\" in _ESCAPED.sub("", field) else plain
    if not feature.shape:
        return _number(feature, field)
    if not (field.startswith("[") and field.endswith("]")):
        return None
    numbers = [_number(feature, each) for each in field[1:-1].split(" ")]
    if len(numbers) != feature.size or any(each is None for each in numbers):
        return None
    return numbers


def _number(feature: Feature, text: str) -> bool | int | float | None:
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
    nulls = np.array([value is None for value in values], dtype=np.bool_)
    there = nulls if nulls.any() else None
    if feature.dtype == "string":
        texts: Array = np.empty(len(values), dtype=object)
        texts[:] = ["" if value is None else value for value in values]
        return Column(texts, there)
    dtype = np.dtype(np.bool_) if feature.dtype == "bool" else NUMERIC[feature.dtype]
    filler = [0] * feature.size if feature.shape else 0
    filled = [filler if value is None else value for value in values]
    return Column(np.array(filled, dtype=dtype).reshape(len(values), *feature.shape), there)


def _spell(feature: Feature, column: Column) -> list[str]:
    """Return one field a row."""
    values = column.values
    if feature.dtype == "string":
        fields = [_TO_ESCAPE.sub(r"\\\1", text) or EMPTY for text in values.tolist()]
    elif feature.dtype == "bool":
        fields = ["1" if value else "0" for value in values.tolist()]
    else:
        numbers = values.astype(NUMERIC[feature.dtype], copy=False)
        # numpy spells each float with the fewest digits that its own dtype reads back
        cells = numbers.reshape(len(numbers), feature.size).astype(str).tolist()
        if feature.shape:
            fields = [f"[{' '.join(row)}]" for row in cells]
        else:
            fields = [row[0] for row in cells]
    if column.nulls is not None:
        fields = ["" if null else f for f, null in zip(fields, column.nulls.tolist(), strict=True)]
    return fields
