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
class Section:
    """The rows of a batch that follow one schema version."""

    rows: npt.NDArray[np.intp] | slice
    layout: Layout
    fixed: npt.NDArray[np.uint8] | native.rows.Bodies
    """The fixed part of each body; as `Bodies`, they lie where they came to."""
    bodies: Sequence[bytes] | None
    has_nulls: bool
    """Whether any cell is null."""

    def cells(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return some bytes of each fixed part, (section rows, bytes)."""
        if isinstance(self.fixed, np.ndarray):
            return self.fixed[:, start:stop]
        return self.fixed.cells(start, stop)

    def table(self) -> npt.NDArray[np.uint8]:
        """Return the fixed parts, (section rows, stride), for who reads many features in turn."""
        if not isinstance(self.fixed, np.ndarray):
            self.fixed = self.fixed.cells(0, self.layout.stride)
        return self.fixed

    def nulls(self, name: str) -> npt.NDArray[np.bool_] | None:
        """Return (section rows,), True where null; None where no row is."""
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
        sections: Sequence[Section],
        unknown_versions: frozenset[int],
    ) -> None:
        self.group = group
        self.status = status
        self.event_time_ms = event_time_ms
        self.unknown_versions = unknown_versions
        self.sections = sections

    @property
    def any_nulls(self) -> bool:
        return any(section.has_nulls for section in self.sections)

    def column(self, name: str) -> Column:
        feature = self.group.current.feature(name)
        default = feature.default_array()
        shape = (len(self.status), *feature.shape)
        values: Array = np.empty(shape, dtype=default.dtype)
        values[...] = default
        nulls: npt.NDArray[np.bool_] | None = None
        for section in self.sections:
            stored = section.layout.stored_name(self.group.current, name)
            if not stored:
                continue
            if feature.dtype == "string":
                values[section.rows] = section.texts(stored)
            elif feature.dtype == "bool":
                values[section.rows] = section.booleans(stored)
            else:
                start = section.layout.offsets[stored]
                stop = start + NUMERIC[feature.dtype].itemsize * feature.size
                cells = section.table()[:, start:stop].view(NUMERIC[feature.dtype])
                values[section.rows] = cells.reshape(len(cells), *feature.shape)
            section_nulls = section.nulls(stored)
            if section_nulls is not None:
                if nulls is None:
                    nulls = np.zeros(len(self.status), dtype=np.bool_)
                nulls[section.rows] = section_nulls
        if nulls is not None:
            values[nulls] = default
        return Column(values, nulls)

    def provenance(self, name: str) -> npt.NDArray[np.uint8]:
        codes = np.full(len(self.status), Provenance.NO_ROW, dtype=np.uint8)
        for section in self.sections:
            stored = section.layout.stored_name(self.group.current, name)
            if not stored:
                codes[section.rows] = Provenance.NOT_IN_VERSION
                continue
            nulls = section.nulls(stored)
            codes[section.rows] = Provenance.STORED if nulls is None else nulls.astype(np.uint8)
        return codes

    def fill(self, out: npt.NDArray[np.float32], plan: MatrixPlan) -> None:
        copied = [(section, section.layout.matrix_runs(plan)) for section in self.sections]
        if sum(len(section.fixed) * where.width for section, where in copied) < out.size:
            out[...] = plan.defaults
        for section, where in copied:
            for run in where.runs:
                cells = section.cells(run.start, run.stop).view(run.dtype)
                out[section.rows, run.column : run.column + run.width] = cells
            if section.layout.booleans or section.has_nulls:
                self._fill_bits(out, section, plan, where.stored)

    def view(self, plan: MatrixPlan) -> npt.NDArray[np.float32] | None:
        if len(self.sections) != 1:
            return None
        section = self.sections[0]
        block = section.layout.matrix_runs(plan).block
        if block is None or section.has_nulls or not isinstance(section.rows, slice):
            return None
        matrix = section.cells(block.start, block.stop).view(np.float32)
        matrix.flags.writeable = False
        return matrix

    def _fill_bits(
        self,
        out: npt.NDArray[np.float32],
        section: Section,
        plan: MatrixPlan,
        stored_names: Sequence[str],
    ) -> None:
        rows = np.arange(len(self.status))[section.rows]
        column = 0
        for name, stored, size in zip(plan.names, stored_names, plan.sizes, strict=True):
            if stored:
                if stored in section.layout.booleans:
                    out[rows, column] = section.booleans(stored)
                nulls = section.nulls(stored)
                if nulls is not None:
                    default = plan.version.feature(name).default_array()
                    out[rows[nulls], column : column + size] = np.ravel(default)
            column += size
