"""`kirana check` and `kirana apply`."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from kirana.assembly import catalog_place
from kirana.catalog.publishing import Published
from kirana.cli.console import err, out
from kirana.cli.locations import (
    CatalogDirectory,
    CatalogUrl,
    ModelRoot,
    as_urls,
    local_settings,
)
from kirana.schema import SchemaVersion
from kirana.settings import Settings


def check(
    directory: CatalogDirectory,
    models: ModelRoot = None,
    without_models: Annotated[
        bool, typer.Option("--without-models", help="Don't look into the model files.")
    ] = False,
    catalog: CatalogUrl = None,
) -> None:
    """Validate a catalog: every problem with its file, line, path, and what would be right."""
    settings = local_settings(directory, as_urls(models, catalog=catalog))
    found, added = catalog_place(settings, directory, look_into_models=not without_models).check()
    counts = {
        "entities": len(found.entities),
        "feature groups": len(found.groups),
        "event types": len(found.event_types),
        "candidate generators": len(found.generators),
        "models": len(found.models),
        "inferflows": len(found.inferflows),
        "flows": len(found.flows),
    }
    out.print(f"{directory} is valid: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    for version in added:
        out.print(f"  'kirana apply' would publish {_describe(version)}")


def apply(
    directory: CatalogDirectory, models: ModelRoot = None, catalog: CatalogUrl = None
) -> None:
    """Publish a catalog as the next revision; what is live switches within a second."""
    report(publish(local_settings(directory, as_urls(models, catalog=catalog)), directory))


def publish(settings: Settings, directory: Path) -> Published:
    """Validate and publish. Raises `CatalogError` with all that is wrong."""
    with closing(catalog_place(settings, directory)) as place:
        return place.publish()


def report(published: Published) -> None:
    for version in published.new_versions:
        err.print(f"published {_describe(version)}", markup=False)
    if published.changed:
        out.print(f"revision {published.revision} is published")
    else:
        out.print(f"revision {published.revision} is live already, nothing has changed")


def _describe(version: SchemaVersion) -> str:
    return f"schema version {version.number} of {version.group}"
