"""Decoded packed rows, from which columns and matrices are read, without a copy if possible."""

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
    """Rows of a batch that have one schema version.

    `rows` holds their positions in the batch. A slice stands for all rows.
    """

    rows: npt.NDArray[np.intp] | slice
    layout: Layout
    fixed: npt.NDArray[np.uint8] | native.rows.Bodies
    """The fixed parts of the bodies, `uint8[section rows, stride]`.

    If this is a `Bodies`, the bytes are still in the values that were decoded, and are copied when
    they are needed.
    """
    bodies: Sequence[bytes] | None
    """The whole bodies if the schema version has strings, otherwise None."""
    has_nulls: bool
    """Whether any cell is null."""

    def cells(self, start: int, stop: int) -> npt.NDArray[np.uint8]:
        """Return the bytes from `start` to `stop` of all fixed parts, as a table."""
        if isinstance(self.fixed, np.ndarray):
            return self.fixed[:, start:stop]
        return self.fixed.cells(start, stop)

    def table(self) -> npt.NDArray[np.uint8]:
        """Return all fixed parts, `uint8[section rows, stride]`.

        If `fixed` is a `Bodies`, the first call copies the bytes, and later calls return the copy.
        """
        if not isinstance(self.fixed, np.ndarray):
            self.fixed = self.fixed.cells(0, self.layout.stride)
        return self.fixed

    def nulls(self, name: str) -> npt.NDArray[np.bool_] | None:
        """Return a mask of the section's rows whose value is null, or None if none is null."""
        if not self.has_nulls:
            return None
        bit = self.layout.version.index[name]
        bits = self.table()[:, self.layout.null_start + bit // 8] >> np.uint8(bit % 8) & np.uint8(1)
        return bits.astype(np.bool_) if bits.any() else None

    def booleans(self, name: str) -> npt.NDArray[np.bool_]:
        """Return the values of a boolean feature, `bool[section rows]`."""
        bit = self.layout.booleans.index(name)
        bits = self.table()[:, self.layout.boolean_start + bit // 8] >> np.uint8(bit % 8)
        return (bits & np.uint8(1)).astype(np.bool_)

    def texts(self, name: str) -> list[str]:
        """Return the values of a string feature. `Batch` has checked their offsets and lengths."""
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
    """Return whether any cell is null in these fixed parts, which follow `layout`."""
    start, size = layout.null_start, layout.null_bytes
    bits = fixed[:, start : start + size]
    if size in (2, 4, 8):
        bits = bits.view(f"<u{size}")
    return bool(bits.any())


class PackedRows:
    """Decoded `Rows`, in sections by schema version. Rows that are not OK are in no section."""

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
        """Whether any cell of any feature is a stored null."""
        return any(section.has_nulls for section in self.sections)

    def column(self, name: str) -> Column:
        """Return a copy of the values of one feature.

        The value is the default for nulls, and for rows that lack the feature or are not OK.
        """
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
        """Return the `Provenance` of each cell of one feature, `uint8[rows]`."""
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
        """Write the features of `plan` into `out`, with one copy per `Run` and section."""
        copies = [(section, section.layout.matrix_runs(plan)) for section in self.sections]
        if sum(len(section.fixed) * matrix.width for section, matrix in copies) < out.size:
            out[...] = plan.defaults
        for section, matrix in copies:
            for run in matrix.runs:
                cells = section.cells(run.start, run.stop).view(run.dtype)
                out[section.rows, run.column : run.column + run.width] = cells
            if section.layout.booleans or section.has_nulls:
                self._fill_booleans_and_nulls(out, section, plan, matrix.stored)

    def view(self, plan: MatrixPlan) -> npt.NDArray[np.float32] | None:
        """Return the matrix of `plan` as one read-only block of the rows' bytes.

        Return None unless all rows are OK and have one schema version, no cell of any feature is
        null, and the features of the plan are float32 and stand in the rows side by side, in order.
        """
        if len(self.sections) != 1:
            return None
        section = self.sections[0]
        block = section.layout.matrix_runs(plan).block
        if block is None or section.has_nulls or not isinstance(section.rows, slice):
            return None
        matrix = section.cells(block.start, block.stop).view(np.float32)
        matrix.flags.writeable = False
        return matrix

    def _fill_booleans_and_nulls(
        self,
        out: npt.NDArray[np.float32],
        section: Section,
        plan: MatrixPlan,
        stored_names: Sequence[str],
    ) -> None:
        """Write the booleans of a section, and the defaults for its nulls."""
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
