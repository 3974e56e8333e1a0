"""Say which package to install where a database's driver is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kirana.errors import ConfigurationError


@contextmanager
def driver_of(scheme: str, *packages: str, setting: str) -> Iterator[None]:
    """Raise `ConfigurationError` in the stead of the error that one of `packages` is missing."""
    try:
        yield
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in packages:
            raise
        raise ConfigurationError(
            f"{setting}: {scheme}:// needs the package '{missing}', which is not installed: run "
            "pip install 'kirana[serve]'",
            field=setting,
        ) from None
