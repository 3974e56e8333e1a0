"""A revision by what tells it apart: the catalog that it is of, and its number there."""

from __future__ import annotations

from typing import NamedTuple


class Revision(NamedTuple):
    """One published state of one catalog.

    A catalog that was lost begins at 1 again, so the number alone does not name a revision.
    `catalog` is the identity that a catalog gets with its first revision.
    """

    catalog: str
    number: int

    def __str__(self) -> str:
        return str(self.number)


NO_REVISION = Revision("", 0)
"""Nothing was published yet."""
