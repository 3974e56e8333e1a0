"""The identity of a revision: its catalog, and its number in this catalog."""

from __future__ import annotations

from typing import NamedTuple


class Revision(NamedTuple):
    """One published state of one catalog.

    `catalog` is the identity that a catalog gets with its first revision. The number alone does not
    identify a revision: if a catalog is lost and published again, its numbers begin at 1 again.
    """

    catalog: str
    number: int

    def __str__(self) -> str:
        return str(self.number)


NO_REVISION = Revision("", 0)
"""The revision of a catalog that has nothing published."""
