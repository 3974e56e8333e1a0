"""Entities, feature groups, dtypes and schema versions: what a stored value means."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, field
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from kirana.errors import InvalidInput, Unknown

RESERVED_ENTITY = "input"
"""No entity has this name: an inferflow calls what comes with a request so."""

EVENT_TIME = "event_time"
"""In a file of rows, the column of their times (a timestamp, or whole milliseconds)."""

Array = npt.NDArray[Any]
Scalar = bool | int | float | str | None

NUMERIC: dict[str, np.dtype[Any]] = {
    name: np.dtype(name).newbyteorder("<")
    for name in (
        *("float16", "float32", "float64"),
        *("int8", "int16", "int32", "int64"),
        *("uint8", "uint16", "uint32", "uint64"),
    )
}
"""The dtypes that have a width of their own, little-endian wherever they are stored."""

NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""How floats are spelled that JSON has no number for."""


def spelled(value: Any) -> Any:
    """Return plain values with the floats spelled that JSON lacks, at any depth."""
    if isinstance(value, dict):
        return {name: spelled(each) for name, each in value.items()}
    if isinstance(value, list):
        return [spelled(each) for each in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


DTYPES = (*NUMERIC, "bool", "string")
MAX_DIMENSIONS = 8
"""Of a vector; numpy ends at 32 to 64, and people long before."""
KEY_DTYPES = ("string", "int32", "int64", "uint32", "uint64")


def fits_float(value: float, dtype: np.dtype[Any]) -> bool:
    """Whether a number, which may be infinite or NaN, does not become infinite in `dtype`."""
    try:
        number = float(value)
    except OverflowError:
        return False
    return not math.isfinite(number) or abs(number) <= float(np.finfo(dtype).max)


@dataclass(frozen=True, slots=True)
class Feature:
    """One value of a group: a scalar, or a vector of fixed `shape` of a numeric dtype."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    default: Scalar | tuple[Any, ...] = None
    aliases: tuple[str, ...] = ()
    """What it was called in older schema versions."""

    @property
    def size(self) -> int:
        """How many elements the feature has: 1 for a scalar."""
        return prod(self.shape)

    @property
    def signature(self) -> str:
        """Name, dtype and shape: what the bytes depend on (the default is not among it)."""
        return f"{self.name}:{self.dtype}:{'x'.join(map(str, self.shape))}"

    def default_array(self) -> Array:
        """Return the default in the feature's dtype and shape, zeros where none is declared."""
        if self.dtype == "string":
            return np.array("" if self.default is None else self.default, dtype=object)
        dtype = np.dtype(bool) if self.dtype == "bool" else NUMERIC[self.dtype]
        value = 0 if self.default is None else self.default
        return np.broadcast_to(np.asarray(value, dtype=dtype), self.shape)


@dataclass(frozen=True, slots=True)
class Key:
    name: str
    dtype: str = "string"


@dataclass(frozen=True, slots=True)
class Entity:
    """What features are about; with several keys it is a compound entity (user x genre)."""

    name: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class SchemaVersion:
    """One append-only record of a group's features; a stored value names the one it follows."""

    group: str
    number: int
    features: tuple[Feature, ...]

    def __hash__(self) -> int:
        # a version is looked up on every read: not over all of its features again
        return self.fingerprint

    @cached_property
    def fingerprint(self) -> int:
        """32 bits over the group and its features: bytes of another history don't carry it."""
        text = "\n".join((self.group, *(feature.signature for feature in self.features)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")

    @cached_property
    def index(self) -> dict[str, int]:
        return {feature.name: at for at, feature in enumerate(self.features)}

    @cached_property
    def aliases(self) -> dict[str, int]:
        """By the names that features had in older versions."""
        return {alias: at for at, each in enumerate(self.features) for alias in each.aliases}

    def feature(self, name: str, *, field: str | None = None) -> Feature:
        try:
            return self.features[self.index[name]]
        except KeyError:
            known = [f"{self.group}.{each}" for each in self.index]
            raise Unknown("feature", f"{self.group}.{name}", known, field=field) from None

    def renamed(self, name: str, *, field: str | None = None) -> Feature:
        """Return the feature that has the name, or had it in an older version."""
        at = self.aliases.get(name)
        return self.feature(name, field=field) if at is None else self.features[at]


def expired(expiry_s: npt.NDArray[np.uint32], now_s: float) -> npt.NDArray[np.bool_]:
    """Tell which expiries (Unix seconds, 0 = never) are over."""
    found: npt.NDArray[np.bool_] = (expiry_s != 0) & (expiry_s <= now_s)
    return found


@dataclass(frozen=True)
class FeatureGroup:
    """Features of one entity that are written, and expire, together.

    `ttl_ms` is 0 where values never expire; `versions` are in order, the last one is current.
    """

    name: str
    entity: Entity
    ttl_ms: int
    codec: str
    versions: tuple[SchemaVersion, ...] = field(repr=False)
    checksum: bool = False
    """Whether packed rows are written with a checksum of their own."""

    @property
    def short_name(self) -> str:
        return self.name.removeprefix(self.entity.name + ".")

    @property
    def current(self) -> SchemaVersion:
        return self.versions[-1]

    def version(self, number: int) -> SchemaVersion:
        if 1 <= number <= len(self.versions):
            return self.versions[number - 1]
        raise InvalidInput(
            f"group '{self.name}' has no schema version {number}, "
            f"the newest is {len(self.versions)}",
            field="schema_version",
        )

    def expired(self, event_time_ms: npt.NDArray[np.uint64], now_s: float) -> npt.NDArray[np.bool_]:
        """Tell which values of these event times have expired by now."""
        return expired(self.expiry_s(event_time_ms), now_s)

    def expiry_s(self, event_time_ms: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        """Unix seconds at which values of these event times expire (rounded up), 0 = never."""
        if not self.ttl_ms:
            return np.zeros(len(event_time_ms), dtype=np.uint32)
        seconds = (event_time_ms + np.uint64(self.ttl_ms) + np.uint64(999)) // np.uint64(1000)
        capped: npt.NDArray[np.uint64] = np.minimum(seconds, np.uint64(0xFFFFFFFF))
        return capped.astype(np.uint32)
