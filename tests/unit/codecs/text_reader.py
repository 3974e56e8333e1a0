"""A reader of text rows, written from docs/formats.md in plain Python without Kirana's code."""

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
    """The sections of a text row, and the values of its fields."""

    version: int
    fingerprint: int | None
    expiry_s: int
    event_time_ms: int
    values: dict[str, Any]
    """By feature name: None for a null, and a flat tuple for a vector. Empty for a deleted row."""


def read_text(row: bytes, features: Sequence[Spec]) -> ReadText:
    """Read a row by the features of its schema version, in their order."""
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
        return tuple(number(dtype, element) for element in field.strip("[]").split(" "))
    return number(dtype, field)


def number(dtype: str, text: str) -> Any:
    if dtype == "bool":
        return text == "1"
    if dtype not in FLOATS:
        return int(text)
    (rounded,) = struct.unpack(FLOATS[dtype], struct.pack(FLOATS[dtype], float(text)))
    return rounded
