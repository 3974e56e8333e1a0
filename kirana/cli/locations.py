"""Where the parts of a catalog directory are, unless somebody says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from kirana.errors import ConfigurationError
from kirana.settings import Settings, read_settings

CatalogDirectory = Annotated[
    Path, typer.Argument(metavar="DIR", help="The catalog: a directory of YAML files.")
]
ModelRoot = Annotated[
    Path | None,
    typer.Option("--models", metavar="DIR", help="Where the models are. [default: DIR/models]"),
]
FeatureStoreUrl = Annotated[
    str | None,
    typer.Option(
        "--features", metavar="URL", help="The feature store. [default: LMDB in DIR/.kirana/data]"
    ),
]


def local_settings(
    directory: Path, options: Mapping[str, Any], file: Mapping[str, Any] | None = None
) -> Settings:
    """Return settings for a directory: options, else variables, else a file, else folders in it.

    Raises `ConfigurationError` if there is no such directory.
    """
    directory = directory.resolve()
    if not directory.is_dir():
        raise ConfigurationError(f"there is no directory {directory}")
    here = quote(str(directory))
    inside = {
        "catalog": f"dir://{here}",
        "features": f"lmdb://{here}/.kirana/data/features",
        "interactions": f"lmdb://{here}/.kirana/data/interactions",
        "models": f"file://{here}/models",
    }
    return read_settings({**inside, **(file or {})}, options=options)


def as_urls(models: Path | None = None, features: str | None = None) -> dict[str, str]:
    """Turn the options of a command into settings, without those that were not given."""
    urls = {}
    if models is not None:
        urls["models"] = f"file://{quote(str(models.resolve()))}"
    if features is not None:
        urls["features"] = features
    return urls
