"""Open an interaction store by its URL."""

from __future__ import annotations

from kirana.drivers import driver_of
from kirana.errors import ConfigurationError
from kirana.interactions.store import InteractionStore
from kirana.urls import scheme_of, without_password


def open_interaction_store(url: str, *, setting: str = "interactions") -> InteractionStore:
    """Open the interaction store at `url`.

    Raise `ConfigurationError` with the field `setting` if the URL is not valid, if the driver of
    the database is not installed, or if the store can't be opened.
    """
    match scheme_of(url):
        case "lmdb":
            with driver_of("lmdb", "lmdb", setting=setting):
                from kirana.interactions.lmdb import LmdbInteractionStore

            return LmdbInteractionStore.open(url, setting=setting)
        case _:
            raise ConfigurationError(
                f"{setting}: '{without_password(url)}' is not the URL of an interaction store: use "
                "lmdb:///absolute/folder",
                field=setting,
            )
