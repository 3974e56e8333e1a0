"""Encodes text rows for bulk loads with Arrow: column by column, no Python object per row."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kirana.codecs.arrow import joined_of, strings_of
from kirana.codecs.rows import Column, Texts
from kirana.ragged import Bytes
from kirana.schema import NUMERIC, Array, Feature, SchemaVersion


def encode_rows(
    version: SchemaVersion,
    columns: Mapping[str, Column | Texts],
    expiry_s: npt.NDArray[np.uint32],
    event_time_ms: npt.NDArray[np.uint64],
    empty: str,
) -> tuple[Bytes, npt.NDArray[np.int64]]:
    """Return the text of all rows, joined, and the position where each row ends.

    `empty` is the spelling of an empty string.
    """
    fields = [_spell(feature, columns[feature.name], empty) for feature in version.features]
    # A null becomes an empty field.
    body = pc.binary_join_element_wise(*fields, ",", null_handling="replace", null_replacement="")
    return joined_of(
        pc.binary_join_element_wise(
            body,
            pc.cast(pa.array(expiry_s), pa.string()),
            str(version.number),
            pc.cast(pa.array(event_time_ms), pa.string()),
            f"{version.fingerprint:08x}",
            ";",
        )
    )


def _spell(feature: Feature, column: Column | Texts, empty: str) -> pa.StringArray:
    """Return one field of text per row, null if the value is null."""
    if isinstance(column, Texts):
        fields = _strings(column, empty)
    elif feature.dtype == "bool":
        fields = pc.if_else(pa.array(column.values), "1", "0")
    elif not feature.shape:
        fields = _numbers(feature, column.values)
    else:
        starts = np.arange(len(column.values) + 1, dtype=np.int32) * feature.size
        vectors = pa.ListArray.from_arrays(starts, _numbers(feature, column.values))
        fields = pc.binary_join_element_wise("[", pc.binary_join(vectors, " "), "]", "")
    return fields if column.nulls is None else pc.if_else(pa.array(~column.nulls), fields, None)


def _numbers(feature: Feature, values: Array) -> pa.StringArray:
    """Return the text of each element of numeric values, row after row."""
    flat = values.astype(NUMERIC[feature.dtype], copy=False).ravel()
    if feature.dtype == "float16":
        # Arrow would write more digits than are needed to read back the same float.
        return pa.array(flat.astype(str), pa.string())
    return pc.cast(pa.array(flat), pa.string())


def _strings(texts: Texts, empty: str) -> pa.StringArray:
    """Return the spelling of strings: with escapes, and `empty` for empty strings."""
    escaped = pc.replace_substring_regex(
        strings_of(texts), pattern=r"([,;\\])", replacement=r"\\\1"
    )
    return pc.if_else(pc.equal(escaped, ""), empty, escaped)
