"""`kirana env`."""

from __future__ import annotations

import os
import secrets
import shlex
from pathlib import Path

from kirana.cli.console import out
from kirana.cli.locations import (
    CatalogDirectory,
    CatalogUrl,
    ModelRoot,
    as_urls,
    local_settings,
)
from kirana.cli.remembered import LOCATIONS
from kirana.cli.store_options import with_store_options
from kirana.serving.environment import cluster_environment
from kirana.serving.settings import PREFIX

TOKEN_BYTES = 32


@with_store_options
def env(
    directory: CatalogDirectory,
    models: ModelRoot = None,
    catalog: CatalogUrl = None,
    **stores: str | None,
) -> None:
    """Print what to set before 'ray start', on every node: eval "$(kirana env DIR)"."""
    # with a catalog among them they come from this command, perhaps for another directory
    given = {} if f"{PREFIX}CATALOG" in os.environ else os.environ
    settings = local_settings(directory, as_urls(models, catalog, stores), environment=given)
    values = cluster_environment(_token_file(directory))
    for name in LOCATIONS:
        values[f"{PREFIX}{name.upper()}"] = getattr(settings, name)
    for name, value in values.items():
        # for a shell, not for a person: no colours, no line breaks
        out.file.write(f"export {name}={shlex.quote(value)}\n")


def _token_file(directory: Path) -> Path:
    """Return the file of the secret that Ray asks its clients for, made if it isn't there."""
    home = directory.resolve() / ".kirana"
    home.mkdir(exist_ok=True)
    file = home / "ray-token"
    if not file.exists():
        beside = file.with_suffix(".new")
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as opened:
            opened.write(secrets.token_hex(TOKEN_BYTES))
        beside.rename(file)
    return file
