"""Values that were written as text: in CSV files, and in paths of partitioned files.

Each value is read by itself: whether it is right, and what it becomes, does not depend on others.
"""

from __future__ import annotations

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kirana.clock import first_wrong_unit, unit_problem
from kirana.errors import InvalidInput, shortened
from kirana.schema import NUMERIC, Feature

_INTEGER = r"^[+-]?\d+$"
_MILLISECONDS = r"^\d+(\.0*)?$"
_ZONE = r"(Z|[+-]\d\d:?\d\d)$"
_HOUR_ZONE = r"(:\d\d(?:\.\d+)?[+-]\d\d)$"
_NOTHING = pa.scalar(None, pa.string())


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
        return _floats(texts)
    # pandas writes integers as `1.0` if others are missing.
    integers = pc.replace_substring_regex(texts, r"^([+-]?\d+)\.0*$", r"\1")
    wanted = pa.from_numpy_dtype(NUMERIC[feature.dtype])
    # Arrow would also read hexadecimal numbers.
    _require(integers, pc.match_substring_regex(integers, _INTEGER), wanted)
    return _cast(pc.replace_substring_regex(integers, r"^\+", ""), wanted)


def parsed_times(texts: Any) -> Any:
    """Return event times as an Arrow column of timestamps.

    Texts are Unix milliseconds, or dates and times of ISO 8601. Without a zone they are in UTC.
    Digits after microseconds are cut. Raise `InvalidInput` for other texts.
    """
    texts = pc.utf8_trim_whitespace(texts)
    is_number = pc.fill_null(pc.match_substring_regex(texts, _MILLISECONDS), False)
    numbers = pc.if_else(is_number, pc.replace_substring_regex(texts, r"\.0*$", ""), _NOTHING)
    milliseconds = _cast(numbers, pa.int64())
    known = milliseconds.drop_null().to_numpy(zero_copy_only=False)
    position = first_wrong_unit(known)
    if position is not None:
        raise InvalidInput(str(unit_problem(int(known[position]))))
    iso = pc.if_else(is_number, _NOTHING, texts)
    iso = pc.replace_substring_regex(iso, r"(\.\d{6})\d+", r"\1")
    iso = pc.replace_substring_regex(iso, _HOUR_ZONE, r"\1:00")
    has_zone = pc.fill_null(pc.match_substring_regex(iso, _ZONE), False)
    zoned = _cast(pc.if_else(has_zone, iso, _NOTHING), pa.timestamp("us", "UTC"))
    plain = _cast(pc.if_else(has_zone, _NOTHING, iso), pa.timestamp("us"))
    moments = pc.coalesce(pc.cast(zoned, pa.timestamp("us")), plain)
    moments = pc.cast(moments, pa.timestamp("ms"), safe=False)
    return pc.coalesce(pc.cast(milliseconds, pa.timestamp("ms")), moments)


def _floats(texts: Any) -> Any:
    floats = _cast(texts, pa.float64())
    # Arrow reads a number that is out of range as infinity.
    named = pc.match_substring_regex(texts, r"(?i)^[+-]?inf(inity)?$")
    _require(texts, pc.or_(named, pc.invert(pc.is_inf(floats))), pa.float64())
    return floats


def _require(texts: Any, are_right: Any, wanted: Any) -> None:
    """Raise `InvalidInput` if one of `are_right` is false. Nulls are right."""
    if not pc.all(pc.fill_null(are_right, True), min_count=0).as_py():
        raise _refusal(texts, wanted)


def _cast(texts: Any, wanted: Any) -> Any:
    try:
        return pc.cast(texts, wanted)
    except pa.ArrowInvalid:
        raise _refusal(texts, wanted) from None


def _refusal(texts: Any, wanted: Any) -> InvalidInput:
    # Rows are checked together first, and then one by one.
    (text, *others) = texts.drop_null().to_pylist()
    reason = "some values are" if others else f"'{shortened(text)}' is"
    if pa.types.is_timestamp(wanted):
        kind = "a time: use Unix milliseconds, or ISO 8601 as in 2026-11-28T10:00:00Z"
    else:
        kind = f"a {wanted}" if pa.types.is_boolean(wanted) else f"a number ({wanted})"
    return InvalidInput(f"{reason} not {kind}")
