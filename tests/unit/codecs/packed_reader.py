"""A reader of packed rows, written from docs/formats.md in plain Python without Kirana's code."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

DTYPES = "float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64"
CODES = dict(zip(DTYPES.split(), "efdbhiqBHIQ", strict=True))
Spec = tuple[str, str, tuple[int, ...]]
"""Name, dtype and shape of a feature."""


@dataclass
class ReadRow:
    """The header, body and values of a packed row."""

    layout: int
    flags: int
    version: int
    fingerprint: int
    expiry_s: int
    event_time_ms: int
    body: bytes
    values: dict[str, Any]
    """By feature name: None for a null, and a flat tuple for a vector."""


def read_row(row: bytes, features: Sequence[Spec]) -> ReadRow:
    """Read a row by the features of its schema version, in their order."""
    layout, flags, version, fingerprint, expiry, length, time = struct.unpack("<BBHIIIQ", row[:24])
    body = row[24:]
    assert len(body) == length
    widths = {
        name: 4 if dtype == "string" else struct.calcsize("<" + CODES[dtype])
        for name, dtype, _ in features
        if dtype != "bool"
    }
    values: dict[str, Any] = {}
    position = 0
    for name, dtype, shape in sorted(
        (spec for spec in features if spec[1] != "bool"), key=lambda spec: -widths[spec[0]]
    ):
        if dtype == "string":
            start, size = struct.unpack_from("<II", body, position)
            values[name] = body[start : start + size].decode()
            position += 8
        else:
            count = prod(shape)
            cells = struct.unpack_from(f"<{count}{CODES[dtype]}", body, position)
            values[name] = cells if shape else cells[0]
            position += count * widths[name]
    nulls = int.from_bytes(body[position : position + (len(features) + 7) // 8], "little")
    position += (len(features) + 7) // 8
    booleans = [name for name, dtype, _ in features if dtype == "bool"]
    bits = int.from_bytes(body[position : position + (len(booleans) + 7) // 8], "little")
    values |= {name: bool(bits >> bit & 1) for bit, name in enumerate(booleans)}
    for bit, (name, _, _) in enumerate(features):
        if nulls >> bit & 1:
            values[name] = None
    return ReadRow(layout, flags, version, fingerprint, expiry, time, body, values)
