"""From a feature as people write it to the feature of a schema."""

from __future__ import annotations

from typing import Any

import numpy as np

from kirana.catalog.objects import FeatureObject
from kirana.schema import NON_FINITE, NUMERIC, Feature, fits_float


def feature_of(each: FeatureObject) -> Feature:
    """Raises `ValueError` for a default that the dtype and shape can't hold."""
    shape = tuple(each.shape)
    default: Any = each.default
    aliases = tuple(each.aliases)
    if default is None:
        return Feature(each.name, each.dtype, shape, None, aliases)
    if each.dtype == "string":
        if not isinstance(default, str):
            raise ValueError(f"the default of a string must be a string, not {default!r}")
    elif each.dtype == "bool":
        if not isinstance(default, bool):
            raise ValueError(f"the default of a bool must be true or false, not {default!r}")
    else:
        default = NON_FINITE.get(default, default) if isinstance(default, str) else default
        values = default if isinstance(default, list) else [default]
        if isinstance(default, list) and np.shape(default) != shape:
            raise ValueError(
                f"the default has the shape {list(np.shape(default))}, not {each.shape}"
            )
        dtype = NUMERIC[each.dtype]
        for value in values:
            if isinstance(value, bool | str):
                raise ValueError(f"the default of {each.dtype} must be a number, not {value!r}")
            if dtype.kind in "iu" and not (
                isinstance(value, int) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
            ):
                raise ValueError(f"the default {value!r} is not in the range of {each.dtype}")
            if dtype.kind == "f" and not fits_float(value, dtype):
                raise ValueError(f"the default {value!r} is not in the range of {each.dtype}")
        if isinstance(default, list):
            default = tuple(_canonical(value, each.dtype) for value in default)
        default = _canonical(default, each.dtype)
    return Feature(each.name, each.dtype, shape, default, aliases)


def _canonical(value: Any, dtype: str) -> Any:
    """A float where one is stored; and one NaN for all, because a default must equal itself."""
    if dtype.startswith("float") and isinstance(value, int):
        value = float(value)
    return NON_FINITE["NaN"] if isinstance(value, float) and value != value else value
