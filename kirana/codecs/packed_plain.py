"""Plain packed rows by the compiled loop; what is not plain is left to `packed_batch`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from kirana import native
from kirana.codecs.layout import Layout, layout_of
from kirana.codecs.packed_rows import PackedRows, Part
from kirana.schema import FeatureGroup, SchemaVersion

_EVERYWHERE = slice(None)


@dataclass(frozen=True, slots=True)
class _Versions:
    """What tells a plain row of each schema version, as arrays with an entry a version."""

    layouts: tuple[Layout, ...]
    leading: npt.NDArray[np.uint64]
    strides: npt.NDArray[np.uint32]
    null_starts: npt.NDArray[np.uint32]
    null_bytes: npt.NDArray[np.uint32]


@lru_cache(maxsize=1_024)
def _versions(versions: tuple[SchemaVersion, ...]) -> _Versions:
    layouts = tuple(map(layout_of, versions))
    return _Versions(
        layouts,
        np.array([each.leading_word for each in layouts], dtype=np.uint64),
        np.array([0 if each.strings else each.stride for each in layouts], dtype=np.uint32),
        np.array([each.null_start for each in layouts], dtype=np.uint32),
        np.array([each.null_bytes for each in layouts], dtype=np.uint32),
    )


def sort_plain(
    values: Sequence[bytes | None] | npt.NDArray[np.uint8], group: FeatureGroup, now_s: float
) -> tuple[PackedRows, list[int]]:
    """Decode the plain rows of a batch; return them, and the places of those that are not."""
    versions = _versions(group.versions)
    found = native.rows.sort_rows(
        values if isinstance(values, list | np.ndarray) else list(values),
        versions.leading,
        versions.strides,
        versions.null_starts,
        versions.null_bytes,
        int(now_s),
    )
    parts = [
        Part(
            _EVERYWHERE if places is None else places,
            versions.layouts[number - 1],
            fixed,
            None,
            has_nulls,
        )
        for number, places, fixed, has_nulls in found.parts
    ]
    rows = PackedRows(group, found.status, found.event_time_ms, parts, frozenset())
    return rows, found.odd
