"""The layout of packed rows: the header, and the positions of the features in the fixed part."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
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
"""The header: the 24 bytes before each body.

`expiry` is in Unix seconds (0 = never), `event_time` in Unix milliseconds, and `length` is the
size of the body in bytes.
"""

HEADER_BYTES = HEADER.itemsize
LAYOUT_VERSION = 1
"""The value of `layout` in headers. Rows with any other value are corrupt."""

TOMBSTONE = 0x01
"""The flag of a deleted row. The row has no body."""

CHECKSUM = 0x02
"""The flag of a row with a checksum."""

KNOWN_FLAGS = TOMBSTONE | CHECKSUM

CHECKSUM_BYTES = 4
"""The size of a checksum in bytes.

The checksum is the CRC-32 of the body, which it follows. The `length` in the header does not
include it.
"""

STRING = np.dtype([("offset", "<u4"), ("length", "<u4")])
"""A string in the fixed part: the position of its UTF-8 bytes in the body, and their number."""


@dataclass(frozen=True, slots=True)
class Run:
    """Features that one copy moves from the rows to a matrix.

    They have one dtype. They stand side by side in the fixed part, from the byte `start` to the
    byte `stop`, and in the matrix, where they take `width` columns from `column` on.
    """

    start: int
    stop: int
    dtype: np.dtype[Any]
    column: int
    width: int

    def joined(self, after: Run) -> Run | None:
        """Return this run and `after` as one run, or None if they can't be joined.

        They can be joined if they have the same dtype, and `after` follows this run directly in
        both the row and the matrix.
        """
        if (after.dtype, after.start, after.column) != (
            self.dtype,
            self.stop,
            self.column + self.width,
        ):
            return None
        return Run(self.start, after.stop, self.dtype, self.column, self.width + after.width)


@dataclass(frozen=True, slots=True)
class MatrixRuns:
    """How to copy the features of a `MatrixPlan` from rows of one layout.

    `stored` holds the name of each feature in that layout, "" if the layout lacks it. `runs` are
    the copies of the numeric features, which take `width` columns in total. If one run of float32
    is the whole matrix, `block` is its range of bytes in the fixed part. Otherwise `block` is None.
    """

    stored: tuple[str, ...]
    runs: tuple[Run, ...]
    width: int
    block: slice | None


def _width(feature: Feature) -> int:
    """Return the size in bytes of an element, or of each of the two numbers of a string."""
    return 4 if feature.dtype == "string" else NUMERIC[feature.dtype].itemsize


class Layout:
    """The positions of the features of a schema version in the fixed part of a body.

    The fixed part begins with the features that are not booleans, sorted by the width of their
    elements, widest first, so that all are aligned. Then come the null bitmap and the booleans. Bit
    i of the null bitmap belongs to feature i of the schema version, and bit j of the booleans to
    boolean j, least significant bit first.

    `stride` is the size of the fixed part in bytes, rounded up to the width of the widest element.
    """

    def __init__(self, version: SchemaVersion) -> None:
        self.version = version
        in_order = sorted(
            (f for f in version.features if f.dtype != "bool"), key=_width, reverse=True
        )
        self.offsets: dict[str, int] = {}
        offset = 0
        for feature in in_order:
            self.offsets[feature.name] = offset
            offset += _width(feature) * feature.size * (2 if feature.dtype == "string" else 1)
        self.null_start = offset
        self.null_bytes = (len(version.features) + 7) // 8
        self.booleans = [f.name for f in version.features if f.dtype == "bool"]
        self.boolean_start = self.null_start + self.null_bytes
        self.boolean_bytes = (len(self.booleans) + 7) // 8
        align = _width(in_order[0]) if in_order else 1
        self.stride = -(-(self.boolean_start + self.boolean_bytes) // align) * align
        self.strings = [f.name for f in version.features if f.dtype == "string"]

    @cached_property
    def row_dtype(self) -> np.dtype[Any]:
        """The structured dtype of a header followed by a fixed part, for writing rows."""
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
        """Return how to copy the features of `plan` from rows of this layout.

        The result is computed once per layout and plan, and kept in `plan.runs`.
        """
        matrix_runs: MatrixRuns | None = plan.runs.get(self)
        if matrix_runs is None:
            stored = tuple(self.stored_name(plan.version, name) for name in plan.names)
            runs = self.runs(stored, plan.sizes)
            is_whole = len(runs) == 1 and runs[0].width == sum(plan.sizes)
            block = slice(runs[0].start, runs[0].stop) if is_whole else None
            if is_whole and runs[0].dtype != np.float32:
                block = None
            matrix_runs = MatrixRuns(stored, runs, sum(run.width for run in runs), block)
            plan.runs[self] = matrix_runs
        return matrix_runs

    def runs(self, names: tuple[str, ...], sizes: tuple[int, ...]) -> tuple[Run, ...]:
        """Return how to copy numeric features into the columns of a matrix.

        `names` are the names of the features in this schema version, and `sizes` the numbers of
        columns that they take. Booleans, and features that this version lacks, have columns too,
        but no run writes to their columns.
        """
        runs: list[Run] = []
        column = 0
        for name, size in zip(names, sizes, strict=True):
            position = self.version.index.get(name)
            if position is not None and self.version.features[position].dtype in NUMERIC:
                dtype = NUMERIC[self.version.features[position].dtype]
                start = self.offsets[name]
                run = Run(start, start + dtype.itemsize * size, dtype, column, size)
                joined = runs[-1].joined(run) if runs else None
                if joined is None:
                    runs.append(run)
                else:
                    runs[-1] = joined
            column += size
        return tuple(runs)

    @lru_cache(maxsize=65_536)  # noqa: B019 - `layout_of` keeps most layouts anyway
    def stored_name(self, reader: SchemaVersion, name: str) -> str:
        """Return the name that a feature of the schema version `reader` has in this version.

        `name` is its name in `reader`. Return "" if this version lacks the feature.
        """
        return name if self.version is reader else self._stored_name(reader.feature(name))

    def _stored_name(self, feature: Feature) -> str:
        known = self.version.index
        stored = next((name for name in (feature.name, *feature.aliases) if name in known), "")
        renamed = self.version.aliases.get(feature.name)
        # If the reader's version is older than this one, it has a renamed feature by an old name.
        return self.version.features[renamed].name if not stored and renamed is not None else stored

    @cached_property
    def leading_word(self) -> int:
        """The first 8 bytes of a header without flags, as a little-endian number."""
        header = np.zeros(1, dtype=HEADER)
        header["layout"] = LAYOUT_VERSION
        header["version"] = self.version.number
        header["fingerprint"] = self.version.fingerprint
        return int(header.view("<u8")[0])


def row_bytes(group: FeatureGroup) -> int:
    """Return the size in bytes of a row of a group's newest schema version.

    Tombstones are smaller. Return 0 if other rows differ in size, because they have strings or the
    codec is not `packed`.
    """
    layout = layout_of(group.current)
    if group.codec != "packed" or layout.strings:
        return 0
    return HEADER_BYTES + layout.stride + (CHECKSUM_BYTES if group.checksum else 0)


@lru_cache(maxsize=16_384)
def layout_of(version: SchemaVersion) -> Layout:
    """Return the layout of a schema version. The last layouts that were used are kept."""
    return Layout(version)
