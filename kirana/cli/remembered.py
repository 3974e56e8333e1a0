"""The memory of a catalog directory: how it was last served and published.

DIR/.kirana/stores.json      where the stores of the last `kirana up` are, without passwords
DIR/.kirana/published.json   the last revision that was published to each backend elsewhere
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from kirana.catalog.durable import write_durably
from kirana.errors import ConfigurationError
from kirana.revision import Revision
from kirana.serving.parts import PARTS, stores_of
from kirana.serving.settings import PREFIX, Settings
from kirana.urls import without_password

LOCATIONS = ("catalog", *stores_of(PARTS), "models")
"""The settings that say where things are."""


@dataclass(frozen=True, slots=True)
class Remembered:
    """URLs by setting; of those in `secret` a password was left out."""

    urls: dict[str, str] = field(default_factory=dict)
    secret: list[str] = field(default_factory=list)


def remember(directory: Path, settings: Settings) -> None:
    """Write down where the stores are that serve a directory from now on."""
    given = {name: str(getattr(settings, name)) for name in LOCATIONS}
    urls = shown_stores(settings)
    secret = [name for name in LOCATIONS if urls[name] != given[name]]
    _write(_file(directory), Remembered(urls, secret))


def recall(directory: Path) -> Remembered:
    """Return what was remembered, nothing where the directory was never served."""
    try:
        return msgspec.json.decode(_file(directory).read_bytes(), type=Remembered)
    except (FileNotFoundError, msgspec.DecodeError):
        return Remembered()


def shown_stores(settings: Settings) -> dict[str, str]:
    """Return the URLs of the stores without passwords."""
    return {name: without_password(str(getattr(settings, name))) for name in LOCATIONS}


def require_password(remembered: Remembered, name: str) -> None:
    """Raise `ConfigurationError` if a remembered URL can't be used without its password."""
    if name in remembered.secret:
        raise ConfigurationError(
            f"{name}: it was last served from {remembered.urls[name]} with a password, which is "
            f"not remembered: give the whole URL by --{name} or {PREFIX}{name.upper()}",
            field=name,
        )


def require_same(
    directory: Path, serving: Mapping[str, str], settings: Settings, *names: str
) -> None:
    """Raise `ConfigurationError` if the Kirana that serves a directory uses another store."""
    mine = shown_stores(settings)
    for name in names:
        if name in serving and serving[name] != mine[name]:
            raise ConfigurationError(
                f"{name}: the Kirana that serves {directory} uses {serving[name]}, this command "
                f"would use {mine[name]}: give --{name} {serving[name]}, or stop that Kirana",
                field=name,
            )


def last_published(directory: Path, catalog: str) -> Revision | None:
    """Return the last revision that was published from a directory to a backend elsewhere."""
    return _published(directory).get(catalog)


def note_published(directory: Path, catalog: str, revision: Revision) -> None:
    """Write down what was published. A catalog in the directory itself knows it already."""
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
