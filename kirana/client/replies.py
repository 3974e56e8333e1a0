"""Return types of the clients. Columns and matrices are numpy arrays."""

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
    """Features of one entity, one row per key. `dtypes` are like `float32` or `float16[32]`.

    `blocks` holds the values: names of features, and their columns side by side. `codes` maps each
    feature group to the status of each row, as an index into `STATUS_NAMES`.

    The last three mappings are empty unless the call asked for provenance. `provenance_codes` maps
    each feature to the origin of each value, as an index into `PROVENANCE_NAMES`. `age_ms` maps
    each group to the age of each row, -1 unless its status is "ok" or "expired". `tier_codes` maps
    each group to the tier of each row, as an index into `TIER_NAMES`.
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
        """Return one feature: its values `[rows, *shape]`, and the mask of its nulls.

        A null has the feature's default as its value. Raise `InvalidInput` if the call did not ask
        for the feature.
        """
        for names, block in self.blocks:
            if name in names:
                position = list(names).index(name)
                nulls = block.nulls
                if len(names) == 1 and block.values.ndim != 2:
                    return block
                if self.dtypes[list(self.features).index(name)].endswith("]"):
                    return block
                return Column(
                    block.values[:, position],
                    nulls if nulls is None or nulls.ndim == 1 else nulls[:, position],
                )
        raise InvalidInput(f"'{name}' was not requested", field="features")

    @property
    def matrix(self) -> npt.NDArray[np.float32]:
        """All features side by side, as `float32[rows, columns]`; vectors are flattened.

        The matrix is a view of the reply if all features are in one float32 block, in the order of
        the request; otherwise it is a copy. Raise `InvalidInput` if a feature is a string.
        """
        if len(self.blocks) == 1:
            names, block = self.blocks[0]
            if block.values.dtype == np.float32 and list(names) == list(self.features):
                return block.values.reshape(len(block.values), -1)
        columns = []
        for name in self.features:
            values = self.column(name).values
            if values.dtype == object:
                raise InvalidInput(f"'{name}' is a string: a matrix holds only numbers", field=name)
            columns.append(values.reshape(len(values), -1).astype(np.float32))
        return np.concatenate(columns, axis=1)

    def status(self, group: str) -> list[str]:
        """Return the status of each row of a feature group: "ok", "missing", "expired", ..."""
        return [STATUS_NAMES[code] for code in self.codes[group].tolist()]

    def provenance(self, name: str) -> list[str]:
        """Return the origin of each value of a feature: "stored", "null", "no_row", ...

        Raise `KeyError` if the call did not ask for provenance.
        """
        return [PROVENANCE_NAMES[code] for code in self.provenance_codes[name].tolist()]

    def tier(self, group: str) -> list[str | None]:
        """Return the tier of each row of a feature group: "cache", "hot", "durable" or None.

        Raise `KeyError` if the call did not ask for provenance.
        """
        return [TIER_NAMES[code] for code in self.tier_codes[group].tolist()]


@dataclass(frozen=True, slots=True)
class Written:
    """How many rows were written and are readable, and how many are not.

    `stale` rows were older than the stored ones. `expired` rows were already past their TTL. If the
    store can't tell whether a row was stale, the row counts as written. `accepted` rows are in
    Kafka, and not in the store yet: this is how a cluster answers that is set to do so.
    """

    written: int = 0
    stale: int = 0
    expired: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Deleted:
    """How many keys were deleted, and how many rows were kept because they are newer (`stale`).

    If the store can't tell whether a row was kept, its key counts as deleted. `accepted` keys are
    in Kafka, as in `Written`.
    """

    deleted: int = 0
    stale: int = 0
    accepted: int = 0


@dataclass(frozen=True, slots=True)
class Accepted:
    """How many events are within the TTL of their type, and how many were already past it."""

    accepted: int
    expired: int = 0


@dataclass(frozen=True, slots=True)
class InteractionList:
    """Events of one user and type, newest first. `timestamps` are in Unix milliseconds."""

    product_ids: Sequence[str]
    timestamps: npt.NDArray[np.int64]
    metadata: Sequence[dict[str, Any] | None]

    def __len__(self) -> int:
        return len(self.product_ids)


@dataclass(frozen=True, slots=True)
class Ranking:
    """Scores of an inferflow, in the order of the call, or best first if the call had `top_k`.

    `scores` and each of the `outputs` have one entry per id. `outputs` is empty unless the call
    asked for them. `matrix` is `float32[rows, columns]`, and `columns` names its columns. Unless
    the call asked for the matrix, it is None and `columns` is empty. `defaults` maps feature groups
    to the number of rows of the call that had the defaults of the group, because their stored row
    was missing, expired, unavailable or corrupt. Other groups are left out.
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
    """The candidates of a flow: ids, and columns with one value per id, for example `scores`.

    `trace` is empty unless the call asked for it.
    """

    ids: Sequence[str]
    columns: Mapping[str, Array]
    trace: Sequence[Mapping[str, Any]]
    revision: int


@dataclass(frozen=True, slots=True)
class CatalogListing:
    """The names of the live objects, by kind, and the newest revisions.

    `catalog` is the identity of the catalog. While the catalog can't be read, `history` is empty,
    and `away_since` is the start of that time in Unix milliseconds.
    """

    revision: int
    objects: Mapping[str, Sequence[str]]
    history: Sequence[Mapping[str, Any]]
    catalog: str = ""
    away_since: int | None = None


@dataclass(frozen=True, slots=True)
class CatalogRecord:
    """One live object, with its schema versions if it is a feature group."""

    object: Mapping[str, Any]
    revision: int
    schema_versions: Sequence[Mapping[str, Any]]
