"""Packed rows as columns and matrices: views where they can be, defaults where a row lacks one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.codecs.packed.layout import STRING, Layout
from kirana.codecs.rows import Column, MatrixPlan, Provenance
from kirana.schema import NUMERIC, Array, FeatureGroup


@dataclass(slots=True)
class Part:
    """The rows of a batch that follow one schema version."""

    rows: npt.NDArray[np.intp] | slice
    layout: Layout
    fixed: npt.NDArray[np.uint8] | native.rows.Bodies
    """The fixed part of each body; as `Bodies`, they lie where they came to."""
    bodies: Sequence[bytes] | None
    has_nulls: bool
    """Whether any cell is null."""

    def cells(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return some bytes of each fixed part, (part rows, bytes)."""
        if isinstance(self.fixed, np.ndarray):
            return self.fixed[:, start:stop]
        return self.fixed.cells(start, stop)

    def table(self) -> npt.NDArray[np.uint8]:
        """Return the fixed parts, (part rows, stride), for who reads many features in turn."""
        if not isinstance(self.fixed, np.ndarray):
            self.fixed = self.fixed.cells(0, self.layout.stride)
        return self.fixed

    def nulls(self, name: str) -> npt.NDArray[np.bool_] | None:
        """Return (part rows,), True where null; None where no row is."""
        if not self.has_nulls:
            return None
        at = self.layout.version.index[name]
        bits = self.table()[:, self.layout.null_start + at // 8] >> np.uint8(at % 8) & np.uint8(1)
        return bits.astype(np.bool_) if bits.any() else None

    def booleans(self, name: str) -> npt.NDArray[np.bool_]:
        at = self.layout.booleans.index(name)
        bits = self.table()[:, self.layout.boolean_start + at // 8] >> np.uint8(at % 8)
        return (bits & np.uint8(1)).astype(np.bool_)

    def texts(self, name: str) -> list[str]:
        """Return the strings of one feature; what points out of the row is caught at decode."""
        start = self.layout.offsets[name]
        spans = self.table()[:, start : start + STRING.itemsize].view(STRING)[:, 0]
        bodies = self.bodies or ()
        return [
            body[offset : offset + length].decode()
            for body, offset, length in zip(
                bodies, spans["offset"].tolist(), spans["length"].tolist(), strict=True
            )
        ]


def any_nulls(layout: Layout, fixed: npt.NDArray[np.uint8]) -> bool:
    """Whether a bit of the bitmaps is set in fixed parts of a layout."""
    start, size = layout.null_start, layout.null_bytes
    bits = fixed[:, start : start + size]
    if size in (2, 4, 8):
        bits = bits.view(f"<u{size}")
    return bool(bits.any())


class PackedRows:
    """See `kirana.codecs.rows.Rows`."""

    def __init__(
        self,
        group: FeatureGroup,
        status: npt.NDArray[np.uint8],
        event_time_ms: npt.NDArray[np.uint64],
        parts: Sequence[Part],
        unknown_versions: frozenset[int],
    ) -> None:
        self.group = group
        self.status = status
        self.event_time_ms = event_time_ms
        self.unknown_versions = unknown_versions
        self.parts = parts

    @property
    def any_nulls(self) -> bool:
        return any(part.has_nulls for part in self.parts)

    def column(self, name: str) -> Column:
        feature = self.group.current.feature(name)
        default = feature.default_array()
        shape = (len(self.status), *feature.shape)
        values: Array = np.empty(shape, dtype=default.dtype)
        values[...] = default
        nulls: npt.NDArray[np.bool_] | None = None
        for part in self.parts:
            stored = part.layout.stored_name(self.group.current, name)
            if not stored:
                continue
            if feature.dtype == "string":
                values[part.rows] = part.texts(stored)
            elif feature.dtype == "bool":
                values[part.rows] = part.booleans(stored)
            else:
                start = part.layout.offsets[stored]
                stop = start + NUMERIC[feature.dtype].itemsize * feature.size
                cells = part.table()[:, start:stop].view(NUMERIC[feature.dtype])
                values[part.rows] = cells.reshape(len(cells), *feature.shape)
            part_nulls = part.nulls(stored)
            if part_nulls is not None:
                if nulls is None:
                    nulls = np.zeros(len(self.status), dtype=np.bool_)
                nulls[part.rows] = part_nulls
        if nulls is not None:
            values[nulls] = default
        return Column(values, nulls)

    def provenance(self, name: str) -> npt.NDArray[np.uint8]:
        codes = np.full(len(self.status), Provenance.NO_ROW, dtype=np.uint8)
        for part in self.parts:
            stored = part.layout.stored_name(self.group.current, name)
            if not stored:
                codes[part.rows] = Provenance.NOT_IN_VERSION
                continue
            nulls = part.nulls(stored)
            codes[part.rows] = Provenance.STORED if nulls is None else nulls.astype(np.uint8)
        return codes

    def fill(self, out: npt.NDArray[np.float32], plan: MatrixPlan) -> None:
        placed = [(part, part.layout.place(plan)) for part in self.parts]
        if sum(len(part.fixed) * where.width for part, where in placed) < out.size:
            out[...] = plan.defaults
        for part, where in placed:
            for run in where.runs:
                cells = part.cells(run.start, run.stop).view(run.dtype)
                out[part.rows, run.column : run.column + run.width] = cells
            if part.layout.booleans or part.has_nulls:
                self._fill_bits(out, part, plan, where.stored)

    def view(self, plan: MatrixPlan) -> npt.NDArray[np.float32] | None:
        if len(self.parts) != 1:
            return None
        part = self.parts[0]
        block = part.layout.place(plan).block
        if block is None or part.has_nulls or not isinstance(part.rows, slice):
            return None
        matrix = part.cells(block.start, block.stop).view(np.float32)
        matrix.flags.writeable = False
        return matrix

    def _fill_bits(
        self,
        out: npt.NDArray[np.float32],
        part: Part,
        plan: MatrixPlan,
        stored_names: Sequence[str],
    ) -> None:
        rows = np.arange(len(self.status))[part.rows]
        column = 0
        for name, stored, size in zip(plan.names, stored_names, plan.sizes, strict=True):
            if stored:
                if stored in part.layout.booleans:
                    out[rows, column] = part.booleans(stored)
                nulls = part.nulls(stored)
                if nulls is not None:
                    default = plan.version.feature(name).default_array()
                    out[rows[nulls], column : column + size] = np.ravel(default)
            column += size
