"""A reader of packed rows after docs/formats.md: plain Python, nothing of Kirana's."""

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
    layout: int
    flags: int
    version: int
    fingerprint: int
    expiry_s: int
    event_time_ms: int
    body: bytes
    values: dict[str, Any]
    """None where null, a flat tuple for a vector."""


def read_row(row: bytes, features: Sequence[Spec]) -> ReadRow:
    layout, flags, version, fingerprint, expiry, length, time = struct.unpack("<BBHIIIQ", row[:24])
    body = row[24:]
    assert len(body) == length
    widths = {
        name: 4 if dtype == "string" else struct.calcsize("<" + CODES[dtype])
        for name, dtype, _ in features
        if dtype != "bool"
    }
    values: dict[str, Any] = {}
    at = 0
    for name, dtype, shape in sorted(
        (each for each in features if each[1] != "bool"), key=lambda each: -widths[each[0]]
    ):
        if dtype == "string":
            start, size = struct.unpack_from("<II", body, at)
            values[name] = body[start : start + size].decode()
            at += 8
        else:
            count = prod(shape)
            cells = struct.unpack_from(f"<{count}{CODES[dtype]}", body, at)
            values[name] = cells if shape else cells[0]
            at += count * widths[name]
    nulls = int.from_bytes(body[at : at + (len(features) + 7) // 8], "little")
    at += (len(features) + 7) // 8
    booleans = [name for name, dtype, _ in features if dtype == "bool"]
    bits = int.from_bytes(body[at : at + (len(booleans) + 7) // 8], "little")
    values |= {name: bool(bits >> bit & 1) for bit, name in enumerate(booleans)}
    for bit, (name, _, _) in enumerate(features):
        if nulls >> bit & 1:
            values[name] = None
    return ReadRow(layout, flags, version, fingerprint, expiry, time, body, values)
