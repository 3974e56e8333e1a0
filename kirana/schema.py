"""Entities, feature groups, dtypes and schema versions: the meaning of stored values."""

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
"""No entity may have this name: `input.<name>` in an inferflow is a column of the request."""

EVENT_TIME = "event_time"
"""The column of a file of rows that holds event times: timestamps, or integer milliseconds."""

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
"""The numeric dtypes by name. Stored values are little-endian on every machine."""

NON_FINITE = {"NaN": float("nan"), "Infinity": float("inf"), "-Infinity": float("-inf")}
"""The floats that JSON can't represent as numbers, by their texts."""


def spelled(value: Any) -> Any:
    """Return a value for JSON: each NaN or infinity in it, however deep, becomes a string."""
    if isinstance(value, dict):
        return {name: spelled(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [spelled(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
    return value


DTYPES = (*NUMERIC, "bool", "string")
MAX_DIMENSIONS = 8
"""The maximum number of dimensions of a vector."""
KEY_DTYPES = ("string", "int32", "int64", "uint32", "uint64")


def fits_float(value: float, dtype: np.dtype[Any]) -> bool:
    """Return whether a number is in the range of a float `dtype`. Infinities and NaN fit, too."""
    try:
        number = float(value)
    except OverflowError:
        return False
    return not math.isfinite(number) or abs(number) <= float(np.finfo(dtype).max)


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of a group: a scalar, or a vector of fixed `shape` and numeric dtype."""

    name: str
    dtype: str
    shape: tuple[int, ...] = ()
    default: Scalar | tuple[Any, ...] = None
    """The declared default, or None. A scalar is the default of all elements of a vector."""
    aliases: tuple[str, ...] = ()
    """The names of the feature in older schema versions."""

    @property
    def size(self) -> int:
        """The number of elements: 1 for a scalar."""
        return prod(self.shape)

    @property
    def signature(self) -> str:
        """Name, dtype and shape as text. Stored bytes depend on them, but not on the default."""
        return f"{self.name}:{self.dtype}:{'x'.join(map(str, self.shape))}"

    def default_array(self) -> Array:
        """Return the default in the feature's dtype and shape, possibly as a read-only view.

        If no default is declared, it is 0, false or the empty string.
        """
        if self.dtype == "string":
            return np.array("" if self.default is None else self.default, dtype=object)
        dtype = np.dtype(bool) if self.dtype == "bool" else NUMERIC[self.dtype]
        value = 0 if self.default is None else self.default
        return np.broadcast_to(np.asarray(value, dtype=dtype), self.shape)


@dataclass(frozen=True, slots=True)
class Key:
    """A key of an entity."""

    name: str
    dtype: str = "string"


@dataclass(frozen=True, slots=True)
class Entity:
    """A thing that features describe. Several keys make a compound entity, such as user x genre."""

    name: str
    keys: tuple[Key, ...]


@dataclass(frozen=True)
class SchemaVersion:
    """A numbered list of a group's features, which never changes.

    Rows that hold values refer to it by its number.
    """

    group: str
    number: int
    features: tuple[Feature, ...]

    def __hash__(self) -> int:
        # Each read looks versions up in dicts, and hashing all features takes too long for that.
        return self.fingerprint

    @cached_property
    def fingerprint(self) -> int:
        """A 32-bit hash of the group's name and the signatures of its features.

        Rows that hold values are written with it. It shows whether a row comes from another
        catalog, where the schema version with the same number has different features.
        """
        text = "\n".join((self.group, *(feature.signature for feature in self.features)))
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "little")

    @cached_property
    def index(self) -> dict[str, int]:
        """The positions of the features, by name."""
        return {feature.name: position for position, feature in enumerate(self.features)}

    @cached_property
    def aliases(self) -> dict[str, int]:
        """The positions of the features, by their names in older versions."""
        return {
            alias: position
            for position, feature in enumerate(self.features)
            for alias in feature.aliases
        }

    def feature(self, name: str, *, field: str | None = None) -> Feature:
        """Return the feature called `name`. Raise `Unknown` if there is none."""
        try:
            return self.features[self.index[name]]
        except KeyError:
            known_names = [f"{self.group}.{feature_name}" for feature_name in self.index]
            raise Unknown("feature", f"{self.group}.{name}", known_names, field=field) from None

    def feature_or_alias(self, name: str, *, field: str | None = None) -> Feature:
        """Return the feature with this name or alias. Raise `Unknown` if there is none."""
        position = self.aliases.get(name)
        return self.feature(name, field=field) if position is None else self.features[position]


def expired(expiry_s: npt.NDArray[np.uint32], now_s: float) -> npt.NDArray[np.bool_]:
    """Return whether each expiry (Unix seconds, 0 for never) has passed: bool[rows]."""
    is_expired: npt.NDArray[np.bool_] = (expiry_s != 0) & (expiry_s <= now_s)
    return is_expired


@dataclass(frozen=True)
class FeatureGroup:
    """Features of one entity that are written together and expire together.

    `name` is `<entity>.<group>`. `ttl_ms` is 0 if rows never expire. `versions` are in order, and
    the last one is current.
    """

    name: str
    entity: Entity
    ttl_ms: int
    codec: str
    versions: tuple[SchemaVersion, ...] = field(repr=False)
    checksum: bool = False
    """Whether each packed row is written with a checksum."""

    @property
    def short_name(self) -> str:
        """The name without the name of the entity: `stats` for `product.stats`."""
        return self.name.removeprefix(self.entity.name + ".")

    @property
    def current(self) -> SchemaVersion:
        """The newest schema version."""
        return self.versions[-1]

    def version(self, number: int) -> SchemaVersion:
        """Return the schema version `number`. Raise `InvalidInput` if there is none."""
        if 1 <= number <= len(self.versions):
            return self.versions[number - 1]
        raise InvalidInput(
            f"group '{self.name}' has no schema version {number}: the newest is "
            f"{len(self.versions)}",
            field="schema_version",
        )

    def version_or_current(self, number: int | None) -> SchemaVersion:
        """Return the schema version `number`, or the newest if it is None or 0."""
        return self.version(number) if number else self.current

    def expired(self, event_time_ms: npt.NDArray[np.uint64], now_s: float) -> npt.NDArray[np.bool_]:
        """Return whether each row has expired at `now_s` (Unix seconds): bool[rows].

        The event times are in Unix milliseconds.
        """
        return expired(self.expiry_s(event_time_ms), now_s)

    def expiry_s(self, event_time_ms: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint32]:
        """Return when rows with these event times (Unix milliseconds) expire: uint32[rows].

        The results are in Unix seconds, rounded up and at most 2^32 - 1, or 0 for never.
        """
        if not self.ttl_ms:
            return np.zeros(len(event_time_ms), dtype=np.uint32)
        seconds = (event_time_ms + np.uint64(self.ttl_ms) + np.uint64(999)) // np.uint64(1000)
        capped: npt.NDArray[np.uint64] = np.minimum(seconds, np.uint64(0xFFFFFFFF))
        return capped.astype(np.uint32)
