"""Plain packed rows by the compiled loop; what is not plain is left to `batch`."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.codecs.packed.layout import Layout, layout_of
from kirana.codecs.packed.rows import PackedRows, Section
from kirana.schema import FeatureGroup, SchemaVersion

_EVERYWHERE = slice(None)
_AS_THEY_ARE = (
    list,
    np.ndarray,
    *((native.replies.Values, native.borrowed.Borrowed) if native.COMPILED else ()),
)


@lru_cache(maxsize=1_024)
def _versions(
    versions: tuple[SchemaVersion, ...],
) -> tuple[tuple[Layout, ...], native.rows.Versions]:
    layouts = tuple(map(layout_of, versions))
    told = [
        (each.leading_word, 0 if each.strings else each.stride, each.null_start, each.null_bytes)
        for each in layouts
    ]
    return layouts, native.rows.Versions(told)


def sort_plain(
    values: Sequence[bytes | None] | npt.NDArray[np.uint8], group: FeatureGroup, now_s: float
) -> tuple[PackedRows, list[int]]:
    """Decode the plain rows of a batch; return them, and the positions of those that are not."""
    layouts, versions = _versions(group.versions)
    found = native.rows.sort_rows(
        values if isinstance(values, _AS_THEY_ARE) else list(values), versions, int(now_s)
    )
    sections = [
        Section(_EVERYWHERE if rows is None else rows, layouts[number - 1], bodies, None, nulls)
        for number, rows, bodies, nulls in found.sections
    ]
    rows = PackedRows(group, found.status, found.event_time_ms, sections, frozenset())
    return rows, found.odd
