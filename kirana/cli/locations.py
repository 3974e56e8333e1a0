"""Where the parts of a catalog directory are, unless somebody says otherwise."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kirana.cli.console import err
from kirana.cli.remembered import LOCATIONS, recall, require_password
from kirana.errors import ConfigurationError
from kirana.serving.parts import PARTS, stores_of
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
        help="Where it is published: zk://host:port/root. Default: in DIR.",
    ),
]
ModelRoot = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="Where the models are. Default: DIR/models."),
]


def local_settings(
    directory: Path,
    options: Mapping[str, Any],
    file: Mapping[str, Any] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    uses: Collection[str] = LOCATIONS,
) -> Settings:
    """Return settings for a directory: options, else variables, else a file, else where the last
    `kirana up` had its stores, which is said, else folders in it.

    `uses` are the stores that the command needs.

    Raises `ConfigurationError` if there is no such directory, or the variables are of another.
    """
    environment = os.environ if environment is None else environment
    directory = directory.resolve()
    if not directory.is_dir():
        raise ConfigurationError(f"there is no directory {directory}")
    here = quote(str(directory))
    inside = {
        "catalog": f"dir://{here}",
        **{name: f"lmdb://{here}/.kirana/data/{name}" for name in stores_of(PARTS)},
        "models": f"file://{here}/models",
    }
    named = environment.get(f"{PREFIX}CATALOG", "")
    if named.startswith("dir://") and folder_of(named, "dir", setting="catalog") != directory:
        # 'eval "$(kirana env OTHER)"' was run here: nothing of this directory must go there
        raise ConfigurationError(
            f"KIRANA_CATALOG is {named}, not {directory}: unset it and the other KIRANA_* "
            f'variables, or run: eval "$(kirana env {directory})"'
        )
    remembered = recall(directory)
    given = {*(file or {}), *options}
    given |= {name for name in inside if environment.get(f"{PREFIX}{name.upper()}")}
    recalled = {name: url for name, url in remembered.urls.items() if name in uses}
    for name, url in recalled.items():
        if name not in given and url != inside[name]:
            require_password(remembered, name)
            err.print(
                f"{name}: {url}, as of the last 'kirana up'; --{name} names another one",
                markup=False,
            )
    urls = {**inside, **recalled, **(file or {})}
    return read_settings(urls, environment, options=options)


def require_given_store(
    settings: Settings,
    name: str,
    directory: Path,
    options: Mapping[str, Any],
    environment: Mapping[str, str] | None = None,
) -> None:
    """Raise `ConfigurationError` if nothing says where a store of a catalog elsewhere is.

    A catalog in ZooKeeper is served from somewhere else, with stores of its own: it must be given,
    or remembered of a `kirana up` with that catalog.
    """
    environment = os.environ if environment is None else environment
    here = f"dir://{quote(str(directory.resolve()))}"
    if settings.catalog == here or name in options or environment.get(f"{PREFIX}{name.upper()}"):
        return
    remembered = recall(directory).urls
    if remembered.get("catalog") != without_password(settings.catalog):
        raise ConfigurationError(
            f"{name}: the catalog is {settings.catalog}, and nothing says where its {name} are: "
            f"give --{name} or {PREFIX}{name.upper()}",
            field=name,
        )


def as_urls(
    models: Path | None = None,
    catalog: str | None = None,
    stores: Mapping[str, str | None] | None = None,
) -> dict[str, str]:
    """Turn the options of a command into settings, without those that were not given."""
    urls = {name: url for name, url in (stores or {}).items() if url is not None}
    if models is not None:
        urls["models"] = f"file://{quote(str(models.resolve()))}"
    if catalog is not None:
        urls["catalog"] = catalog
    return urls
