"""The tables of stores that need one per entity."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from kirana.drivers import driver_of
from kirana.urls import scheme_of, usable


class EntityTables(Protocol):
    """The tables of a store. Calls block.

    Each method raises `Unavailable` if the database does not answer or refuses a statement.
    """

    def missing(self, entities: Collection[str]) -> list[str]:
        """Return the entities that have no table, in order."""

    def create(self, entities: Collection[str]) -> list[str]:
        """Make the tables that are missing. Return the entities that got one."""


def tables_of(url: str, *, setting: str = "features") -> EntityTables | None:
    """Return the tables of the feature store at a URL, or None if such a store has no tables.

    Raise `ConfigurationError` for `setting` if the URL is not valid or the driver is not installed.
    """
    scheme = scheme_of(url)
    if scheme not in ("cassandra", "scylla"):
        return None
    with driver_of(scheme, "cassandra", setting=setting):
        from kirana.cassandra.url import CassandraUrl
        from kirana.stores.cassandra_tables import CassandraTables
    with usable(url, setting=setting):
        return CassandraTables(CassandraUrl.parse(url))
