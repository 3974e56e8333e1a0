"""Where the catalog, the stores and the models of a catalog directory are."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kirana.cli.console import err
from kirana.cli.remembered import LOCATIONS, option_of, recall, require_password
from kirana.errors import ConfigurationError
from kirana.part import OFF
from kirana.serving.parts import PARTS, store_settings
from kirana.serving.settings import PREFIX, Settings, read_settings
from kirana.urls import folder_of, without_password

CatalogDirectory = Annotated[
    Path, typer.Argument(metavar="DIR", help="The catalog: a directory of YAML files.")
]
CatalogUrl = Annotated[
    str | None,
    typer.Option(
        "--catalog",
        metavar="URL",
        help="Where the catalog is published, such as zk://host:port/root. Default: as for the "
        "last 'kirana up', or in DIR.",
    ),
]
ModelRoot = Annotated[
    Path | None,
    typer.Option(
        "--models",
        metavar="DIR",
        help="The folder of the model files. Default: that of the last 'kirana up', or DIR/models.",
    ),
]


def local_settings(
    directory: Path,
    options: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    uses: Collection[str] = LOCATIONS,
) -> Settings:
    """Return the settings for a catalog directory.

    Each setting comes from the first source that has it: `options` of the command, variables in
    `environment` (`os.environ` by default), `file`, the locations of the last `kirana up`, and
    finally the default folders in the directory. A location of the last `kirana up` is used only
    if it is in `uses`, the locations that the command needs. If it differs from the default, it is
    printed to stderr.

    Raise `ConfigurationError` if the directory does not exist, if KIRANA_CATALOG names another
    directory, if a location of the last `kirana up` lacks its password, or if a setting is wrong.
    """
    environment = os.environ if environment is None else environment
    directory = directory.resolve()
    if not directory.is_dir():
        raise ConfigurationError(f"the directory does not exist: {directory}")
    folder = quote(str(directory))
    defaults = {
        "catalog": f"dir://{folder}",
        **{
            name: OFF if store.optional else f"lmdb://{folder}/.kirana/data/{name}"
            for name, store in store_settings(PARTS).items()
        },
        "models": f"file://{folder}/models",
    }
    catalog_url = environment.get(f"{PREFIX}CATALOG", "")
    if (
        catalog_url.startswith("dir://")
        and folder_of(catalog_url, "dir", setting="catalog") != directory
    ):
        # The shell has probably run 'eval "$(kirana env OTHER)"'. Nothing of this directory may be
        # written to the catalog or the stores of the other one.
        raise ConfigurationError(
            f"KIRANA_CATALOG is {catalog_url}, not {directory}: unset it and the other KIRANA_* "
            f'variables, or run: eval "$(kirana env {directory})"'
        )
    remembered = recall(directory)
    given_names = {*(file or {}), *options}
    given_names |= {name for name in defaults if environment.get(f"{PREFIX}{name.upper()}")}
    recalled = {name: url for name, url in remembered.urls.items() if name in uses}
    for name, url in recalled.items():
        if name not in given_names and url != defaults[name]:
            require_password(remembered, name)
            err.print(
                f"{name}: using {url}, as the last 'kirana up' did; change it with "
                f"{option_of(name)}",
                markup=False,
            )
    urls = {**defaults, **recalled, **(file or {})}
    return read_settings(urls, environment, options=options)


def require_given_store(
    settings: Settings,
    name: str,
    directory: Path,
    options: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Raise `ConfigurationError` if the location of a store is unknown.

    A catalog that is not in the directory, such as one in ZooKeeper, may be served on other
    machines, so its stores can't default to folders in the directory. The location must be in
    `options` or `environment`, or be remembered from a `kirana up` with the same catalog.
    """
    environment = os.environ if environment is None else environment
    catalog_in_directory = f"dir://{quote(str(directory.resolve()))}"
    if (
        settings.catalog == catalog_in_directory
        or name in options
        or environment.get(f"{PREFIX}{name.upper()}")
    ):
        return
    remembered = recall(directory).urls
    if remembered.get("catalog") != without_password(settings.catalog):
        raise ConfigurationError(
            f"{name}: no store is given for the catalog {settings.catalog}: use --{name} or "
            f"{PREFIX}{name.upper()}",
            field=name,
        )


def as_urls(
    models: Path | None = None,
    catalog: str | None = None,
    stores: Mapping[str, str | None] | None = None,
) -> dict[str, str]:
    """Return the location options of a command as settings, without those that are None."""
    urls = {name: url for name, url in (stores or {}).items() if url is not None}
    if models is not None:
        urls["models"] = f"file://{quote(str(models.resolve()))}"
    if catalog is not None:
        urls["catalog"] = catalog
    return urls
