"""Arrow types of columns in files: the type of a feature, and predicates."""

from __future__ import annotations

from typing import Any

import pyarrow as pa

from kirana.schema import NUMERIC, Feature


def arrow_type(feature: Feature) -> Any:
    """Return the Arrow type of a column with the values of a feature.

    A feature with a shape has lists, whose elements are the flattened values.
    """
    if feature.dtype == "string":
        return pa.string()
    number = pa.bool_() if feature.dtype == "bool" else pa.from_numpy_dtype(NUMERIC[feature.dtype])
    return pa.list_(number) if feature.shape else number


def is_text(type_: Any) -> bool:
    """Return whether a type is text, or bytes that may be text."""
    kinds = pa.types
    checks = (kinds.is_string, kinds.is_large_string, kinds.is_binary, kinds.is_large_binary)
    return any(check(type_) for check in (*checks, kinds.is_string_view, kinds.is_binary_view))


def is_text_dictionary(type_: Any) -> bool:
    """Return whether a type is a dictionary whose values are text, or bytes that may be text."""
    return bool(pa.types.is_dictionary(type_) and is_text(type_.value_type))


def is_list(type_: Any) -> bool:
    """Return whether a type is a list, a large list, or a list of fixed size."""
    return bool(
        pa.types.is_list(type_)
        or pa.types.is_large_list(type_)
        or pa.types.is_fixed_size_list(type_)
    )


def is_full(column: Any) -> bool:
    """Return whether a column has at least one row, and no nulls."""
    return bool(len(column)) and not column.null_count


def is_view(type_: Any) -> bool:
    """Return whether a type is a view of text or bytes."""
    return bool(pa.types.is_string_view(type_) or pa.types.is_binary_view(type_))
