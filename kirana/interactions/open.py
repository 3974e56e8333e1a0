"""From a URL to an interaction store."""

from __future__ import annotations

from kirana.drivers import driver_of
from kirana.errors import ConfigurationError
from kirana.interactions.store import InteractionStore
from kirana.urls import scheme_of


def open_interaction_store(url: str, *, setting: str = "interactions") -> InteractionStore:
    """Open what `url` names. Raises `ConfigurationError` if it can't be."""
    match scheme_of(url):
        case "lmdb":
            with driver_of("lmdb", "lmdb", setting=setting):
                from kirana.interactions.lmdb import LmdbInteractionStore

            return LmdbInteractionStore.open(url, setting=setting)
        case _:
            raise ConfigurationError(
                f"{setting}: '{url}' is not the URL of a store: use lmdb:///absolute/folder",
                field=setting,
            )
