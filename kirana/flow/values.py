"""What travels along the edges of a flow: candidates as columns, and interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kirana.interactions import Interactions


@dataclass(frozen=True, slots=True)
class Candidates:
    """Ids, and columns of shape (len(ids),): a generator's weights, a model's outputs, `score`."""

    ids: list[str] = field(default_factory=list)
    columns: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: npt.NDArray[np.intp]) -> Candidates:
        """Return the candidates at `index`, in its order."""
        ids = self.ids
        return Candidates(
            [ids[at] for at in index.tolist()],
            {name: column[index] for name, column in self.columns.items()},
        )


Value = Candidates | Interactions


@dataclass(frozen=True, slots=True)
class Shape:
    """What is known of a value before it exists: its type, and the columns it will have."""

    type: type[Candidates] | type[Interactions]
    columns: frozenset[str] = frozenset()

    def empty(self) -> Value:
        """Return the value that a node gives when it is skipped, or falls back to empty."""
        if self.type is Interactions:
            return Interactions.empty()
        return Candidates([], {name: np.empty(0, dtype=np.float32) for name in self.columns})
