"""The tables that a publish makes, or needs."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.catalog.snapshot import Catalog
from kirana.errors import Conflict
from kirana.serving.settings import Settings
from kirana.serving.tables import StoreTables, store_tables
from tests.support import publish, write_shop

ALL = {"user", "product", "category", "user_category", "kirana"}


class Tables:
    """Tables in memory. Implements `EntityTables`."""

    def __init__(self, *entities: str) -> None:
        self.entities = set(entities)
        self.looked_up: list[set[str]] = []

    def missing(self, entities: Collection[str]) -> list[str]:
        self.looked_up.append(set(entities))
        return sorted(set(entities) - self.entities)

    def create(self, entities: Collection[str]) -> list[str]:
        missing = self.missing(entities)
        self.entities |= set(missing)
        return missing


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    folder = write_shop(tmp_path / "shop")
    publish(folder)
    backend = DirectoryCatalog(folder)
    return backend.load(backend.current())


def test_all_missing_tables_are_made(catalog: Catalog) -> None:
    tables = Tables("user")
    StoreTables({"features": tables}, create=True).ensure(catalog, catalog)
    assert tables.entities == ALL


def test_without_the_right_to_make_tables_a_missing_one_is_a_conflict(catalog: Catalog) -> None:
    tables = Tables(*ALL - {"product"})
    with pytest.raises(Conflict, match=r"no table for entity 'product'.*kirana apply"):
        StoreTables({"features": tables}, create=False).ensure(None, catalog)
    assert "product" not in tables.entities


def test_only_new_entities_are_looked_up_if_no_table_may_be_made(catalog: Catalog) -> None:
    tables = Tables()
    StoreTables({"features": tables}, create=False).ensure(catalog, catalog)
    assert tables.looked_up == []


def test_stores_without_tables_need_none(tmp_path: Path) -> None:
    settings = Settings(
        catalog=f"dir://{tmp_path}",
        models=f"file://{tmp_path}",
        features="redis://127.0.0.1:6379",
        interactions=f"lmdb://{tmp_path}",
    )
    assert store_tables(settings, create=True) is None
