"""What a read selects of an entity, worked out once a revision and not on every request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kirana.catalog.snapshot import Catalog
from kirana.schema import Entity, Feature

MAX_SELECTIONS = 256
"""Clients choose what they read; all are made anew if there are more."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Features of one entity, in the order in which they were asked for; `names` are distinct."""

    entity: Entity
    asked: tuple[str, ...]
    features: tuple[Feature, ...]
    dtypes: tuple[str, ...]
    names: tuple[str, ...]
    width: int
    """Values of one row."""
    plain: bool
    """Whether all are single float32: one block of a matrix, and no column by itself."""


class Selections:
    """Those of one revision of the catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._made: dict[tuple[str, tuple[str, ...]], Selection] = {}

    def of(self, entity: str, features: Sequence[str]) -> Selection:
        """Raises `Unknown` that names the field."""
        asked = tuple(features)
        found = self._made.get((entity, asked))
        if found is None:
            made = self._make(entity, asked)
            if len(self._made) >= MAX_SELECTIONS:
                self._made.clear()
            found = self._made[entity, asked] = made
        return found

    def _make(self, name: str, asked: tuple[str, ...]) -> Selection:
        entity = self.catalog.entity(name, field="entity")
        features = tuple(
            self.catalog.feature(f"{name}.{each}", field=f"features[{at}]")[1]
            for at, each in enumerate(asked)
        )
        return Selection(
            entity,
            asked,
            features,
            tuple(map(_dtype_text, features)),
            tuple(dict.fromkeys(asked)),
            sum(each.size for each in features),
            all(each.dtype == "float32" and not each.shape for each in features),
        )


def _dtype_text(feature: Feature) -> str:
    shape = ",".join(map(str, feature.shape))
    return f"{feature.dtype}[{shape}]" if shape else feature.dtype
