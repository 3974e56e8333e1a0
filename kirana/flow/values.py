"""The values of nodes: candidates and interactions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from kirana.interactions import Interactions


@dataclass(frozen=True, slots=True)
class Candidates:
    """Candidate ids, and columns with one float32 per id.

    The columns are weights of generators, outputs of models, and `score`.
    """

    ids: list[str] = field(default_factory=list)
    columns: Mapping[str, npt.NDArray[np.float32]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def take(self, index: npt.NDArray[np.intp]) -> Candidates:
        """Return the candidates at the positions in `index`, in that order."""
        ids = self.ids
        return Candidates(
            [ids[i] for i in index.tolist()],
            {name: column[index] for name, column in self.columns.items()},
        )


Value = Candidates | Interactions


@dataclass(frozen=True, slots=True)
class Shape:
    """The type of a value and the names of its columns, known before the value is computed."""

    type: type[Candidates] | type[Interactions]
    columns: frozenset[str] = frozenset()

    def empty(self) -> Value:
        """Return an empty value of this shape.

        It is the value of a node that is skipped, or that fails with the fallback `empty`.
        """
        if self.type is Interactions:
            return Interactions.empty()
        return Candidates([], {name: np.empty(0, dtype=np.float32) for name in self.columns})
