"""Values that were written as text: in CSV files, and in paths of partitioned files."""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kirana.errors import InvalidInput, shortened
from kirana.schema import NUMERIC, Feature

_ZONE = r"(Z|[+-]\d\d:?\d\d)$"


def parsed(feature: Feature, texts: Any) -> Any:
    """Return values of a feature as an Arrow column, from a column of text.

    Raise `InvalidInput` if they can't be read as the dtype, or if the feature has a shape.
    """
    if feature.shape:
        raise InvalidInput(f"lists of {feature.dtype} can't be read from text: use Parquet")
    if feature.dtype == "string":
        return texts
    texts = pc.utf8_trim_whitespace(texts)
    if feature.dtype == "bool":
        return _cast(texts, pa.bool_())
    if NUMERIC[feature.dtype].kind == "f":
        return _cast(texts, pa.float64())
    # pandas writes integers as `1.0` if others are missing.
    integers = pc.replace_substring_regex(texts, r"\.0*$", "")
    return _cast(integers, pa.from_numpy_dtype(NUMERIC[feature.dtype]))


def parsed_times(texts: Any) -> Any:
    """Return event times as an Arrow column of integers (milliseconds) or timestamps.

    Texts are Unix milliseconds, or dates and times of ISO 8601. Without a zone they are in UTC.
    Raise `InvalidInput` for other texts.
    """
    texts = pc.utf8_trim_whitespace(texts)
    if pc.all(pc.match_substring_regex(texts, r"^\d+$")).as_py():
        return _cast(texts, pa.int64())
    with_zone = pc.fill_null(pc.match_substring_regex(texts, _ZONE), False)
    nothing = pa.scalar(None, pa.string())
    zoned = _cast(pc.if_else(with_zone, texts, nothing), pa.timestamp("us", "UTC"))
    plain = _cast(pc.if_else(with_zone, nothing, texts), pa.timestamp("us"))
    return pc.coalesce(pc.cast(zoned, pa.timestamp("us")), plain)


def _cast(texts: Any, wanted: Any) -> Any:
    try:
        return pc.cast(texts, wanted)
    except pa.ArrowInvalid:
        # Rows are checked together first, and then one by one.
        (text, *others) = texts.drop_null().to_pylist()
        reason = "some values are" if others else f"'{shortened(text)}' is"
        raise InvalidInput(f"{reason} not {_names(wanted)}") from None


def _names(wanted: Any) -> str:
    if pa.types.is_timestamp(wanted):
        return "a time: use Unix milliseconds, or ISO 8601 as in 2026-11-28T10:00:00Z"
    return f"a {wanted}" if pa.types.is_boolean(wanted) else f"a number ({wanted})"
