"""A reader of text rows after docs/formats.md: plain Python, nothing of Kirana's."""

from __future__ import annotations

import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

FLOATS = {"float16": "e", "float32": "f", "float64": "d"}
Spec = tuple[str, str, tuple[int, ...]]
"""Name, dtype and shape of a feature."""


@dataclass
class ReadText:
    version: int
    fingerprint: int | None
    expiry_s: int
    event_time_ms: int
    values: dict[str, Any]
    """None where null, a flat tuple for a vector; nothing of a row that was deleted."""


def read_text(row: bytes, features: Sequence[Spec]) -> ReadText:
    body, *rest = split(row.decode(), ";")
    expiry, version, time = map(int, [*rest[:3], *("0", "1", "0")[len(rest[:3]) :]])
    fingerprint = int(rest[3], 16) if len(rest) == 4 else None
    values: dict[str, Any] = {}
    if version:
        fields = split(body, ",")
        assert len(fields) == len(features)
        for (name, dtype, shape), field in zip(features, fields, strict=True):
            values[name] = value_of(dtype, shape, field) if field else None
    return ReadText(version, fingerprint, expiry, time, values)


def split(text: str, separator: str) -> list[str]:
    """Split at the separators that are not escaped."""
    parts, escaped = [""], False
    for character in text:
        if character == separator and not escaped:
            parts.append("")
        else:
            parts[-1] += character
        escaped = character == "\\" and not escaped
    return parts


def value_of(dtype: str, shape: tuple[int, ...], field: str) -> Any:
    if dtype == "string":
        return "" if field == "\\e" else re.sub(r"\\(.)", r"\1", field, flags=re.DOTALL)
    if shape:
        return tuple(number(dtype, each) for each in field.strip("[]").split(" "))
    return number(dtype, field)


def number(dtype: str, text: str) -> Any:
    if dtype == "bool":
        return text == "1"
    if dtype not in FLOATS:
        return int(text)
    (rounded,) = struct.unpack(FLOATS[dtype], struct.pack(FLOATS[dtype], float(text)))
    return rounded
