"""Where each feature of a schema version stands in the fixed part of a packed body."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from kirana.schema import NUMERIC, Feature, SchemaVersion

HEADER = np.dtype(
    [
        ("layout", "u1"),
        ("flags", "u1"),
        ("version", "<u2"),
        ("fingerprint", "<u4"),
        ("expiry", "<u4"),
        ("length", "<u4"),
        ("event_time", "<u8"),
    ]
)
"""24 bytes before every body. `expiry` in Unix seconds (0 = never), `event_time` in ms."""

STRING = np.dtype([("offset", "<u4"), ("length", "<u4")])
"""Of a string: where its UTF-8 bytes start, counted from the start of the body, and how many."""


@dataclass(frozen=True, slots=True)
class Run:
    """Neighbouring features of one dtype, in the row and in what is asked for: one copy."""

    start: int
    stop: int
    dtype: np.dtype[Any]
    column: int
    width: int


def _width(feature: Feature) -> int:
    return 4 if feature.dtype == "string" else NUMERIC[feature.dtype].itemsize


class Layout:
    """Widest first, so that all is aligned; then the null bitmap, then the booleans' bits.

    `stride` is the size of the fixed part, rounded up to the widest element. Feature i of the
    schema version is bit i of the null bitmap, the j-th boolean is bit j, least bit first.
    """

    def __init__(self, version: SchemaVersion) -> None:
        self.version = version
        placed = sorted(
            (f for f in version.features if f.dtype != "bool"), key=_width, reverse=True
        )
        self.offsets: dict[str, int] = {}
        at = 0
        for feature in placed:
            self.offsets[feature.name] = at
            at += _width(feature) * feature.size * (2 if feature.dtype == "string" else 1)
        self.null_start = at
        self.null_bytes = (len(version.features) + 7) // 8
        self.booleans = [f.name for f in version.features if f.dtype == "bool"]
        self.boolean_start = self.null_start + self.null_bytes
        self.boolean_bytes = (len(self.booleans) + 7) // 8
        align = _width(placed[0]) if placed else 1
        self.stride = -(-(self.boolean_start + self.boolean_bytes) // align) * align
        self.strings = [f.name for f in version.features if f.dtype == "string"]

    @cached_property
    def row_dtype(self) -> np.dtype[Any]:
        """Header and fixed part as one structured dtype, the writer's view of a row."""
        names, formats, offsets = [], [], []
        for feature in self.version.features:
            if feature.dtype == "bool":
                continue
            base = STRING if feature.dtype == "string" else NUMERIC[feature.dtype]
            names.append(f"f.{feature.name}")
            formats.append(np.dtype((base, feature.shape)) if feature.shape else base)
            offsets.append(HEADER.itemsize + self.offsets[feature.name])
        names += ["header", "nulls", "booleans"]
        formats += [
            HEADER,
            np.dtype(("u1", (self.null_bytes,))),
            np.dtype(("u1", (self.boolean_bytes,))),
        ]
        offsets += [
            0,
            HEADER.itemsize + self.null_start,
            HEADER.itemsize + self.boolean_start,
        ]
        return np.dtype(
            {
                "names": names,
                "formats": formats,
                "offsets": offsets,
                "itemsize": HEADER.itemsize + self.stride,
            }
        )

    @cache  # noqa: B019 - a layout lives as long as its schema version
    def runs(self, names: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[Run, ...]:
        """Plan the copies of numeric features into columns side by side; booleans are not here.

        `sizes` are the columns that each takes. A feature that this version lacks, or has in
        another dtype family (bool), is left out: its columns keep what they hold.
        """
        runs: list[Run] = []
        column = 0
        for name, size in zip(names, sizes, strict=True):
            feature_at = self.version.index.get(name)
            feature = None if feature_at is None else self.version.features[feature_at]
            if feature is not None and feature.dtype in NUMERIC:
                start = self.offsets[name]
                dtype = NUMERIC[feature.dtype]
                stop = start + dtype.itemsize * size
                last = runs[-1] if runs else None
                if (
                    last is not None
                    and last.dtype == dtype
                    and last.stop == start
                    and last.column + last.width == column
                ):
                    runs[-1] = Run(last.start, stop, dtype, last.column, last.width + size)
                else:
                    runs.append(Run(start, stop, dtype, column, size))
            column += size
        return tuple(runs)


@cache
def layout_of(version: SchemaVersion) -> Layout:
    return Layout(version)


def sizes_of(features: Sequence[Feature]) -> tuple[int, ...]:
    return tuple(feature.size for feature in features)
