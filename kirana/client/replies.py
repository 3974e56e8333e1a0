"""What calls return: columns and matrices as numpy arrays, no Python object a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from kirana.codecs.rows import PROVENANCE_NAMES, STATUS_NAMES, TIER_NAMES, Column
from kirana.errors import InvalidInput
from kirana.schema import Array


@dataclass(frozen=True)
class Features:
    """Rows of features, one a key. `dtypes` are like `float32` or `float16[32]`.

    `codes` holds a status a row for each group, an index into `STATUS_NAMES`. `provenance`
    (an index into `PROVENANCE_NAMES`), `age_ms` (-1 where there is no row) and `tier` (an index
    into `TIER_NAMES`) are there if they were asked for.
    """

    features: Sequence[str]
    dtypes: Sequence[str]
    blocks: Sequence[tuple[Sequence[str], Column]]
    codes: Mapping[str, npt.NDArray[np.uint8]]
    revision: int
    provenance_codes: Mapping[str, npt.NDArray[np.uint8]]
    age_ms: Mapping[str, npt.NDArray[np.int64]]
    tier_codes: Mapping[str, npt.NDArray[np.uint8]]

    def __len__(self) -> int:
        return len(next(iter(self.codes.values()), ()))

    def column(self, name: str) -> Column:
        """Return one feature: values [rows, *shape], and where they are null (the default)."""
        for names, block in self.blocks:
            if name in names:
                at = list(names).index(name)
                nulls = block.nulls
                if len(names) == 1 and block.values.ndim != 2:
                    return block
                if self.dtypes[list(self.features).index(name)].endswith("]"):
                    return block
                return Column(
                    block.values[:, at],
                    nulls if nulls is None or nulls.ndim == 1 else nulls[:, at],
                )
        raise InvalidInput(f"'{name}' was not asked for", field="features")

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """All features side by side as float32, vectors flattened: [rows, columns].

        Without a copy where all are float32 scalars. Raises `InvalidInput` for a string.
        """
        if len(self.blocks) == 1:
            names, block = self.blocks[0]
            if block.values.dtype == np.float32 and list(names) == list(self.features):
                return block.values.reshape(len(block.values), -1)
        parts = []
        for name in self.features:
            values = self.column(name).values
            if values.dtype == object:
                raise InvalidInput(f"'{name}' is a string: a matrix holds only numbers", field=name)
            parts.append(values.reshape(len(values), -1).astype(np.float32))
        return np.concatenate(parts, axis=1)

    def status(self, group: str) -> list[str]:
        """Return what became of each row of a group: ok, missing, expired, ..."""
        return [STATUS_NAMES[code] for code in self.codes[group].tolist()]

    def provenance(self, name: str) -> list[str]:
        """Return where each cell of a feature comes from: stored, null, no_row, ..."""
        return [PROVENANCE_NAMES[code] for code in self.provenance_codes[name].tolist()]

    def tier(self, group: str) -> list[str | None]:
        """Return who had each row of a group: cache, store, or None where there is no row."""
        return [TIER_NAMES[code] for code in self.tier_codes[group].tolist()]


@dataclass(frozen=True, slots=True)
class Written:
    """How many rows of a put are stored, were older than what was there, or past their TTL."""

    written: int
    stale: int
    expired: int = 0


@dataclass(frozen=True, slots=True)
class Deleted:
    deleted: int
    stale: int


@dataclass(frozen=True, slots=True)
class Accepted:
    """How many events are stored, and how many were past the TTL of their type as they came."""

    accepted: int
    expired: int = 0


@dataclass(frozen=True, slots=True)
class InteractionList:
    """Events of one user and type, newest first; `timestamps` in ms."""

    product_ids: Sequence[str]
    timestamps: npt.NDArray[np.int64]
    metadata: Sequence[dict[str, Any] | None]

    def __len__(self) -> int:
        return len(self.product_ids)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Scores [rows] of `ids`: in the order that was sent, or the best first with `top_k`.

    `outputs` [rows] of each model and `matrix` [rows, columns] are there if they were asked
    for; `defaults` counts for each group the rows that got defaults.
    """

    ids: Sequence[str]
    scores: npt.NDArray[np.float32]
    outputs: Mapping[str, npt.NDArray[np.float32]]
    columns: Sequence[str]
    matrix: npt.NDArray[np.float32] | None
    defaults: Mapping[str, int]
    revision: int


@dataclass(frozen=True, slots=True)
class FlowRun:
    """What a flow gave: ids, and columns of one value an id (`scores` among them)."""

    ids: Sequence[str]
    columns: Mapping[str, Array]
    trace: Sequence[Mapping[str, Any]]
    revision: int


@dataclass(frozen=True, slots=True)
class CatalogListing:
    """What is live: names by kind, and the newest revisions.

    `catalog` is the identity of the catalog. While it can't be read, `away_since` (ms) says since
    when, and `history` is empty.
    """

    revision: int
    objects: Mapping[str, Sequence[str]]
    history: Sequence[Mapping[str, Any]]
    catalog: str = ""
    away_since: int | None = None


@dataclass(frozen=True, slots=True)
class CatalogRecord:
    """One object as people write it; a feature group with its schema versions."""

    object: Mapping[str, Any]
    revision: int
    schema_versions: Sequence[Mapping[str, Any]]
