"""Where each feature of a schema version stands in the fixed part of a packed body."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any

import numpy as np

from kirana.codecs.rows import MatrixPlan
from kirana.schema import NUMERIC, Feature, FeatureGroup, SchemaVersion

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

HEADER_BYTES = HEADER.itemsize
LAYOUT_VERSION = 1

TOMBSTONE = 0x01
CHECKSUM = 0x02
KNOWN_FLAGS = TOMBSTONE | CHECKSUM

CHECKSUM_BYTES = 4
"""With the flag `CHECKSUM`, the CRC-32 of the body stands behind it, and is not of its length."""

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

    def joined(self, after: Run) -> Run | None:
        """Return both as one, where `after` follows at once in the row and in what is asked."""
        if (after.dtype, after.start, after.column) != (
            self.dtype,
            self.stop,
            self.column + self.width,
        ):
            return None
        return Run(self.start, after.stop, self.dtype, self.column, self.width + after.width)


@dataclass(frozen=True, slots=True)
class MatrixRuns:
    """Where the features of a `MatrixPlan` stand in rows of one layout.

    `stored` are their names in it, "" for what it lacks; `runs` the copies of the numeric ones,
    `width` columns in all; `block` is where they are one run of float32 that is all of the matrix.
    """

    stored: tuple[str, ...]
    runs: tuple[Run, ...]
    width: int
    block: slice | None


def _width(feature: Feature) -> int:
    return 4 if feature.dtype == "string" else NUMERIC[feature.dtype].itemsize


class Layout:
    """Widest first, so that all is aligned; then the null bitmap, then the booleans' bits.

    `stride` is the size of the fixed part, rounded up to the widest element. Feature i of the
    schema version is bit i of the null bitmap, the j-th boolean is bit j, least bit first.
    """

    def __init__(self, version: SchemaVersion) -> None:
        self.version = version
        in_order = sorted(
            (f for f in version.features if f.dtype != "bool"), key=_width, reverse=True
        )
        self.offsets: dict[str, int] = {}
        at = 0
        for feature in in_order:
            self.offsets[feature.name] = at
            at += _width(feature) * feature.size * (2 if feature.dtype == "string" else 1)
        self.null_start = at
        self.null_bytes = (len(version.features) + 7) // 8
        self.booleans = [f.name for f in version.features if f.dtype == "bool"]
        self.boolean_start = self.null_start + self.null_bytes
        self.boolean_bytes = (len(self.booleans) + 7) // 8
        align = _width(in_order[0]) if in_order else 1
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

    def matrix_runs(self, plan: MatrixPlan) -> MatrixRuns:
        found: MatrixRuns | None = plan.runs.get(self)
        if found is None:
            stored = tuple(self.stored_name(plan.version, name) for name in plan.names)
            runs = self.runs(stored, plan.sizes)
            whole = len(runs) == 1 and runs[0].width == sum(plan.sizes)
            block = slice(runs[0].start, runs[0].stop) if whole else None
            if whole and runs[0].dtype != np.float32:
                block = None
            found = MatrixRuns(stored, runs, sum(run.width for run in runs), block)
            plan.runs[self] = found
        return found

    def runs(self, names: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[Run, ...]:
        """Plan the copies of numeric features into columns side by side; booleans are not here.

        `sizes` are the columns that each takes. A feature that this version lacks is left out:
        its columns keep what they hold.
        """
        runs: list[Run] = []
        column = 0
        for name, size in zip(names, sizes, strict=True):
            at = self.version.index.get(name)
            if at is not None and self.version.features[at].dtype in NUMERIC:
                dtype = NUMERIC[self.version.features[at].dtype]
                start = self.offsets[name]
                run = Run(start, start + dtype.itemsize * size, dtype, column, size)
                joined = runs[-1].joined(run) if runs else None
                if joined is None:
                    runs.append(run)
                else:
                    runs[-1] = joined
            column += size
        return tuple(runs)

    @cache  # noqa: B019 - a layout lives as long as its schema version
    def stored_name(self, reader: SchemaVersion, name: str) -> str:
        """Return what this version calls a feature of a newer one, "" for what it lacks."""
        return name if self.version is reader else self._stored_name(reader.feature(name))

    def _stored_name(self, feature: Feature) -> str:
        known = self.version.index
        found = next((name for name in (feature.name, *feature.aliases) if name in known), "")
        at = self.version.aliases.get(feature.name)
        # a reader that is older than the row knows the feature by an old name
        return self.version.features[at].name if not found and at is not None else found

    @cached_property
    def leading_word(self) -> int:
        """The first 8 bytes of the header of a plain row of this version, as a number."""
        header = np.zeros(1, dtype=HEADER)
        header["layout"] = LAYOUT_VERSION
        header["version"] = self.version.number
        header["fingerprint"] = self.version.fingerprint
        return int(header.view("<u8")[0])


def row_bytes(group: FeatureGroup) -> int:
    """Return the size of a packed row of the newest version, 0 where strings make it differ."""
    layout = layout_of(group.current)
    if group.codec != "packed" or layout.strings:
        return 0
    return HEADER_BYTES + layout.stride + (CHECKSUM_BYTES if group.checksum else 0)


@cache
def layout_of(version: SchemaVersion) -> Layout:
    return Layout(version)
