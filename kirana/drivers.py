"""The error for a database whose driver is not installed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from kirana.errors import ConfigurationError


@contextmanager
def driver_of(scheme: str, *packages: str, setting: str) -> Iterator[None]:
    """Replace the `ModuleNotFoundError` for one of `packages` with a `ConfigurationError`.

    The message names the missing package, the URL `scheme` that needs it, and the `setting` that
    holds the URL. Any other error is raised unchanged.
    """
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
