"""The functions of expressions, and the operators that are more than numpy's."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sized
from typing import Any

import numpy as np

MAX_ID_BYTES = 1_024
_WHOLE = re.compile(r"-?[0-9]{1,16}", re.ASCII)
_LARGEST = 2**53
"""Up to here every whole number is a float64."""


def _size(value: object) -> float:
    return float(len(value)) if isinstance(value, Sized) else 0.0


def number(value: object) -> float:
    """Return the whole number that an id spells.

    Decimal digits, with a `-` before them for a negative one, from -2^53 to 2^53. Raises
    `ValueError` for any other text.
    """
    text = id_text(value)
    if not _WHOLE.fullmatch(text) or abs(int(text)) > _LARGEST:
        raise ValueError(f"{text[:40]!r} is not a whole number from -2^53 to 2^53")
    return float(text)


def hash_of(value: object, salt: str, buckets: float) -> float:
    """Return the bucket of an id: a whole number from 0 to `buckets` - 1.

    The first eight bytes of the SHA-256 of salt, one zero byte and id, both in UTF-8, as an
    unsigned little-endian number, modulo `buckets`.
    """
    digest = hashlib.sha256(salt.encode() + b"\0" + id_text(value).encode()).digest()
    return float(int.from_bytes(digest[:8], "little") % int(buckets))


def id_text(value: object) -> str:
    """Return an id as text: `7` and `"7"` are the same. Raises `TypeError` if it is none."""
    if isinstance(value, str):
        text = value
    elif isinstance(value, int) and not isinstance(value, bool):
        text = str(value)
    else:
        raise TypeError(f"an id is text or a whole number, not {type(value).__name__}")
    if len(text.encode(errors="replace")) > MAX_ID_BYTES:
        raise ValueError(f"an id has at most {MAX_ID_BYTES} bytes")
    return text


def equal(left: Any, right: Any) -> Any:
    """Compare two values; a whole number is the text that spells it, so `1` equals `"1"`."""
    if isinstance(left, str) or isinstance(right, str):
        return _spelled(left) == _spelled(right)
    return left == right


def _spelled(value: object) -> object:
    if isinstance(value, np.ndarray):
        raise TypeError("a column holds numbers, and can't be compared with text")
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


def not_equal(left: Any, right: Any) -> Any:
    """Return the opposite of `equal`."""
    return np.logical_not(equal(left, right))


def power(base: Any, exponent: Any) -> Any:
    """Return NaN where there is no real power; `**` would make a complex number of it."""
    if isinstance(base, np.ndarray) or isinstance(exponent, np.ndarray):
        return np.float_power(base, exponent)
    # whole numbers of any size would make powers that never end
    found = float(base) ** float(exponent)
    return float("nan") if isinstance(found, complex) else found


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
"""By name: how many arguments, and what is called."""
