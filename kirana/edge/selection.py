"""The features that a request selects, with a cache of selections for each revision."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kirana.catalog.snapshot import Catalog
from kirana.schema import Entity, Feature

MAX_SELECTIONS = 256
"""The maximum number of selections in a cache. It is limited because clients choose them."""


@dataclass(frozen=True, slots=True)
class Selection:
    """Features of one entity, in the order of the request.

    `requested`, `features` and `dtypes` have one entry per name in the request. `names` has each
    name once.
    """

    entity: Entity
    requested: tuple[str, ...]
    features: tuple[Feature, ...]
    dtypes: tuple[str, ...]
    names: tuple[str, ...]
    width: int
    """The number of elements in a row: one per scalar, several per vector."""
    plain: bool
    """Whether all features are float32 scalars, so that one matrix can hold them."""
    texts: tuple[str, ...]
    """The strings among `requested`."""


class Selections:
    """The selections of one catalog revision. Each is resolved at its first use, and cached."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._cached: dict[tuple[str, tuple[str, ...]], Selection] = {}

    def of(self, entity: str, features: Sequence[str]) -> Selection:
        """Return the selection of these features, whose names are like `group.feature`.

        Raise `Unknown` with the field if the entity or a feature does not exist.
        """
        requested = tuple(features)
        selection = self._cached.get((entity, requested))
        if selection is None:
            selection = self._resolve(entity, requested)
            if len(self._cached) >= MAX_SELECTIONS:
                self._cached.clear()
            self._cached[entity, requested] = selection
        return selection

    def _resolve(self, name: str, requested: tuple[str, ...]) -> Selection:
        entity = self.catalog.entity(name, field="entity")
        features = tuple(
            self.catalog.feature(f"{name}.{feature}", field=f"features[{i}]")[1]
            for i, feature in enumerate(requested)
        )
        return Selection(
            entity,
            requested,
            features,
            tuple(map(_dtype_text, features)),
            tuple(dict.fromkeys(requested)),
            sum(feature.size for feature in features),
            all(feature.dtype == "float32" and not feature.shape for feature in features),
            tuple(
                name
                for name, feature in zip(requested, features, strict=True)
                if feature.dtype == "string"
            ),
        )


def _dtype_text(feature: Feature) -> str:
    """Return a dtype with its shape, like `float32` or `float16[32]`."""
    shape = ",".join(map(str, feature.shape))
    return f"{feature.dtype}[{shape}]" if shape else feature.dtype
