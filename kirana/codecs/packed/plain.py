"""Decodes plain packed rows with the compiled loop.

A row is plain if its header is valid and has no flags, and its schema version is known and has no
strings. `kirana.codecs.packed.batch` decodes the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.codecs.packed.layout import Layout, layout_of
from kirana.codecs.packed.rows import PackedRows, Section
from kirana.schema import FeatureGroup, SchemaVersion

_ALL_ROWS = slice(None)
# The types of sequences that the compiled loop takes. Others are converted to a list.
_COMPILED_TYPES = (
    list,
    np.ndarray,
    *((native.replies.Values, native.borrowed.Borrowed) if native.COMPILED else ()),
)


@lru_cache(maxsize=1_024)
def _versions(
    versions: tuple[SchemaVersion, ...],
) -> tuple[tuple[Layout, ...], native.rows.Versions]:
    """Return the layouts of schema versions, and their data for the compiled loop."""
    layouts = tuple(map(layout_of, versions))
    parameters = [
        (
            layout.leading_word,
            0 if layout.strings else layout.stride,
            layout.null_start,
            layout.null_bytes,
        )
        for layout in layouts
    ]
    return layouts, native.rows.Versions(parameters)


def decode_plain(
    values: Sequence[bytes | None] | npt.NDArray[np.uint8], group: FeatureGroup, now_s: float
) -> tuple[PackedRows, list[int]]:
    """Decode the plain rows of a batch. Return them, and the positions of the other rows.

    Missing values (None) count as plain. `values` may be a table, `uint8[rows, bytes]`. The caller
    must not change `values` while the result is in use. Call this only if `native.COMPILED`.
    """
    layouts, versions = _versions(group.versions)
    decoded = native.rows.sort_rows(
        values if isinstance(values, _COMPILED_TYPES) else list(values), versions, int(now_s)
    )
    sections = [
        Section(_ALL_ROWS if rows is None else rows, layouts[number - 1], bodies, None, nulls)
        for number, rows, bodies, nulls in decoded.sections
    ]
    rows = PackedRows(group, decoded.status, decoded.event_time_ms, sections, frozenset())
    return rows, decoded.other_rows
