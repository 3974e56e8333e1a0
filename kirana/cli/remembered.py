"""The memory of a catalog directory: how it was last served and published.

DIR/.kirana/stores.json      where the stores of the last `kirana up` are, without passwords
DIR/.kirana/published.json   the last revision published to each catalog that is not a folder
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kirana.catalog.durable import write_durably
from kirana.errors import ConfigurationError
from kirana.revision import Revision
from kirana.serving.parts import PARTS, store_settings
from kirana.serving.settings import PREFIX, Settings
from kirana.urls import without_password

LOCATIONS = ("catalog", *store_settings(PARTS), "models")
"""The settings whose values are URLs: the catalog, the stores and the models."""


def option_of(name: str) -> str:
    """Return the option of the command line for a setting."""
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class Remembered:
    """The URLs of the last `kirana up`, by setting, without passwords.

    `secret` lists the settings whose URL had a password.
    """

    urls: dict[str, str] = field(default_factory=dict)
    secret: list[str] = field(default_factory=list)


def remember(directory: Path, settings: Settings) -> None:
    """Record the URLs that a directory is served from, without passwords."""
    full_urls = {name: str(getattr(settings, name)) for name in LOCATIONS}
    urls = stores_without_passwords(settings)
    secret = [name for name in LOCATIONS if urls[name] != full_urls[name]]
    _write(_file(directory), Remembered(urls, secret))


def recall(directory: Path) -> Remembered:
    """Return what `remember` recorded. It is empty if the file is missing or damaged."""
    try:
        return msgspec.json.decode(_file(directory).read_bytes(), type=Remembered)
    except (FileNotFoundError, msgspec.DecodeError):
        return Remembered()


def stores_without_passwords(settings: Settings) -> dict[str, str]:
    """Return the URLs of the catalog, the stores and the models, by setting, without passwords."""
    return {name: without_password(str(getattr(settings, name))) for name in LOCATIONS}


def require_password(remembered: Remembered, name: str) -> None:
    """Raise `ConfigurationError` if the remembered URL of a setting lacks its password."""
    if name in remembered.secret:
        raise ConfigurationError(
            f"{name}: the password of {remembered.urls[name]}, which the last 'kirana up' used, is "
            f"not stored: give the whole URL with {option_of(name)} or {PREFIX}{name.upper()}",
            field=name,
        )


def require_same_stores(
    directory: Path, serving: Mapping[str, str], settings: Settings, *names: str
) -> None:
    """Raise `ConfigurationError` if the Kirana that serves a directory uses other URLs.

    `serving` is what `Instance.serving` returns. It is compared with `settings`, but only for the
    settings in `names`.
    """
    urls = stores_without_passwords(settings)
    for name in names:
        if name in serving and serving[name] != urls[name]:
            raise ConfigurationError(
                f"{name}: the Kirana that serves {directory} uses {serving[name]}, but this "
                f"command would use {urls[name]}: give the same one with {option_of(name)}, or "
                "stop Kirana",
                field=name,
            )


def last_published(directory: Path, catalog: str) -> Revision | None:
    """Return the last revision that was published from a directory to the URL `catalog`.

    Return None if no publication is recorded. For a folder, none is ever recorded here.
    """
    return _published(directory).get(catalog)


def record_published(directory: Path, catalog: str, revision: Revision) -> None:
    """Record the revision that was published from a directory to the URL `catalog`.

    No-op if the catalog is a folder, which keeps its own record.
    """
    if catalog.startswith("dir://"):
        return
    published = {**_published(directory), catalog: revision}
    _write(directory / ".kirana" / "published.json", published)


def _published(directory: Path) -> dict[str, Revision]:
    file = directory / ".kirana" / "published.json"
    try:
        return msgspec.json.decode(file.read_bytes(), type=dict[str, Revision])
    except (FileNotFoundError, msgspec.DecodeError):
        return {}


def _write(file: Path, content: object) -> None:
    file.parent.mkdir(exist_ok=True)
    write_durably(file, msgspec.json.encode(content))


def _file(directory: Path) -> Path:
    return directory / ".kirana" / "stores.json"
