"""The functions of expressions, and those operators that differ from numpy's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sized
from typing import Any

import numpy as np

MAX_ID_BYTES = 1_024
"""The maximum number of bytes of an id in UTF-8."""

_INTEGER = re.compile(r"-?[0-9]{1,16}", re.ASCII)
_LARGEST = 2**53
"""Every integer up to this one is exact as a float64."""


def _size(value: object) -> float:
    """Return the length of a value, or 0 if it has none."""
    return float(len(value)) if isinstance(value, Sized) else 0.0


def number(value: object) -> float:
    """Return the integer that an id spells, as a float.

    The id must consist of 1 to 16 decimal digits, after an optional `-`, and must be from -2^53 to
    2^53. Raise `ValueError` for any other text, and `TypeError` for a value that is not an id.
    """
    text = id_text(value)
    if not _INTEGER.fullmatch(text) or abs(int(text)) > _LARGEST:
        raise ValueError(f"{text[:40]!r} is not an integer from -2^53 to 2^53")
    return float(text)


def hash_of(value: object, salt: str, buckets: float) -> float:
    """Return the bucket of an id: an integer from 0 to `buckets` - 1, as a float.

    The hash is the SHA-256 of the salt in UTF-8, one zero byte, and the id in UTF-8. The bucket is
    the first eight bytes of the hash, read as an unsigned little-endian number, modulo `buckets`.
    Raise `TypeError` or `ValueError` for a value that is not an id.
    """
    digest = hashlib.sha256(salt.encode() + b"\0" + id_text(value).encode()).digest()
    return float(int.from_bytes(digest[:8], "little") % int(buckets))


def id_text(value: object) -> str:
    """Return an id as text: `7` and `"7"` are the same id.

    Raise `TypeError` if the value is neither text nor an integer, and `ValueError` if it has more
    than `MAX_ID_BYTES`.
    """
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    else:
        raise TypeError(f"an id must be a string or an integer, not {type(value).__name__}")
    size = len(text.encode(errors="replace"))
    if size > MAX_ID_BYTES:
        raise ValueError(f"the id has {size} bytes, the limit is {MAX_ID_BYTES}")
    return text


def equal(left: Any, right: Any) -> Any:
    """Return whether two values are equal, per row for a column.

    A whole number equals its text: 1 and 1.0 equal "1". Raise `TypeError` if a column is compared
    with text.
    """
    if isinstance(left, str) or isinstance(right, str):
        return _spelled(left) == _spelled(right)
    return left == right


def _spelled(value: object) -> object:
    """Return a whole number as text, and any other value as it is.

    Raise `TypeError` for a column.
    """
    if isinstance(value, np.ndarray):
        raise TypeError("a column holds numbers: it can't be compared with text")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def not_equal(left: Any, right: Any) -> Any:
    """Return whether two values are not `equal`, per row for a column."""
    return np.logical_not(equal(left, right))


def power(base: Any, exponent: Any) -> Any:
    """Return a power as a float, per row for a column.

    Return NaN if the power is not a real number. Python's `**` would return a complex number. Raise
    `ArithmeticError` if the power of two single values is too large, or if it divides by 0.
    """
    if isinstance(base, np.ndarray) or isinstance(exponent, np.ndarray):
        return np.float_power(base, exponent)
    # Powers of integers can become too large to compute. Floats raise `OverflowError` instead.
    result = float(base) ** float(exponent)
    return float("nan") if isinstance(result, complex) else result


FUNCTIONS: dict[str, tuple[int, Callable[..., Any]]] = {
    "abs": (1, np.abs),
    "clip": (3, np.clip),
    "exp": (1, np.exp),
    "hash": (3, hash_of),
    "log": (1, np.log),
    "log1p": (1, np.log1p),
    "max": (2, np.maximum),
    "min": (2, np.minimum),
    "number": (1, number),
    "sigmoid": (1, lambda x: 1.0 / (1.0 + np.exp(-x))),
    "size": (1, _size),
    "sqrt": (1, np.sqrt),
    "where": (3, np.where),
}
"""The functions by name. Each entry is the number of arguments, and the function."""
