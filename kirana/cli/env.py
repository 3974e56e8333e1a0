"""The `kirana env` command."""

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
    """Print the environment variables to set on every node before 'ray start'.

    For example: eval "$(kirana env DIR)"
    """
    # If KIRANA_CATALOG is set, the shell may have evaluated the output of this command before, for
    # another directory. Those variables must not affect the new output.
    environment = {} if f"{PREFIX}CATALOG" in os.environ else os.environ
    settings = local_settings(directory, as_urls(models, catalog, stores), environment=environment)
    values = cluster_environment(_token_file(directory))
    for name in LOCATIONS:
        values[f"{PREFIX}{name.upper()}"] = getattr(settings, name)
    for name, value in values.items():
        # The output is for a shell, so it must have no colours, and lines must not be wrapped.
        out.file.write(f"export {name}={shlex.quote(value)}\n")


def _token_file(directory: Path) -> Path:
    """Return the file with the secret that Ray's clients must present; create it if missing."""
    home = directory.resolve() / ".kirana"
    home.mkdir(exist_ok=True)
    file = home / "ray-token"
    if not file.exists():
        temporary = file.with_suffix(".new")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as stream:
            stream.write(secrets.token_hex(TOKEN_BYTES))
        temporary.rename(file)
    return file
