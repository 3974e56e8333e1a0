"""The tables of the stores that the settings name, which a publish needs."""

from __future__ import annotations

from collections.abc import Mapping

from kirana.catalog.checks import Tables
from kirana.catalog.snapshot import Catalog
from kirana.errors import Conflict
from kirana.serving.parts import PARTS, store_settings
from kirana.serving.settings import Settings
from kirana.stores.hot.generations import ENTITY
from kirana.stores.tables import EntityTables


class StoreTables:
    """The tables of stores, by setting. Implements `Tables`.

    If `create` is True, missing tables are made. Otherwise an object that needs one is refused.
    """

    def __init__(self, tables: Mapping[str, EntityTables], *, create: bool) -> None:
        self._tables = tables
        self._create = create

    def ensure(self, before: Catalog | None, after: Catalog) -> None:
        """See `Tables`. Unless tables are made, only entities that `before` lacks are looked up."""
        entities = {*after.entities, ENTITY}
        if not self._create and before is not None:
            entities -= {*before.entities, ENTITY}
        if not entities:
            return
        for setting, tables in self._tables.items():
            if self._create:
                tables.create(entities)
            elif missing := tables.missing(entities):
                raise Conflict(
                    f"the store in '{setting}' has no table for entity '{missing[0]}': publish the "
                    "entity with 'kirana apply', which makes the table"
                )


def store_tables(settings: Settings, *, create: bool) -> Tables | None:
    """Return the tables of the stores that have some, or None if no store has."""
    tables = {
        name: of_store
        for name, store in store_settings(PARTS).items()
        if store.tables is not None
        and (of_store := store.tables(getattr(settings, name))) is not None
    }
    return StoreTables(tables, create=create) if tables else None
