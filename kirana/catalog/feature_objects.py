"""Convert the features of catalog objects to the features of `kirana.schema`."""

from __future__ import annotations

from typing import Any

import numpy as np

from kirana.catalog.objects import FeatureObject
from kirana.schema import NON_FINITE, NUMERIC, Feature, fits_float


def feature_of(declared: FeatureObject) -> Feature:
    """Return the `Feature` that a catalog object declares.

    Raise `ValueError` for a default that the dtype and shape can't hold.
    """
    shape = tuple(declared.shape)
    default: Any = declared.default
    aliases = tuple(declared.aliases)
    if default is None:
        return Feature(declared.name, declared.dtype, shape, None, aliases)
    if declared.dtype == "string":
        if not isinstance(default, str):
            raise ValueError(f"the default of a string must be a string, not {default!r}")
    elif declared.dtype == "bool":
        if not isinstance(default, bool):
            raise ValueError(f"the default of a bool must be true or false, not {default!r}")
    else:
        default = NON_FINITE.get(default, default) if isinstance(default, str) else default
        values = default if isinstance(default, list) else [default]
        if isinstance(default, list) and np.shape(default) != shape:
            raise ValueError(
                f"the default must have the shape {declared.shape}, not {list(np.shape(default))}"
            )
        dtype = NUMERIC[declared.dtype]
        for value in values:
            if isinstance(value, bool | str):
                raise ValueError(f"the default of {declared.dtype} must be a number, not {value!r}")
            if dtype.kind in "iu" and not (
                isinstance(value, int) and np.iinfo(dtype).min <= value <= np.iinfo(dtype).max
            ):
                raise ValueError(f"the default {value!r} does not fit {declared.dtype}")
            if dtype.kind == "f" and not fits_float(value, dtype):
                raise ValueError(f"the default {value!r} does not fit {declared.dtype}")
        if isinstance(default, list):
            default = tuple(_canonical(value, declared.dtype) for value in default)
        default = _canonical(default, declared.dtype)
    return Feature(declared.name, declared.dtype, shape, default, aliases)


def _canonical(value: Any, dtype: str) -> Any:
    """Convert a default, or one element of it, so that equal defaults compare equal.

    If the dtype is a float, an integer becomes a float. All NaNs become one object, because two
    tuples with NaNs are equal only if their NaNs are the same object.
    """
    if dtype.startswith("float") and isinstance(value, int):
        value = float(value)
    return NON_FINITE["NaN"] if isinstance(value, float) and value != value else value
