"""`kirana check` and `kirana apply`."""

from __future__ import annotations

from typing import Annotated

import typer

from kirana.assembly import directory_catalog
from kirana.catalog.directory import Published
from kirana.cli.console import err, out
from kirana.cli.locations import CatalogDirectory, ModelRoot, as_urls, local_settings
from kirana.schema import SchemaVersion
from kirana.settings import Settings


def check(
    directory: CatalogDirectory,
    models: ModelRoot = None,
    without_models: Annotated[
        bool, typer.Option("--without-models", help="Don't look into the model files.")
    ] = False,
) -> None:
    """Validate a catalog: every problem with its file, line, path, and what would be right."""
    settings = local_settings(directory, as_urls(models))
    catalog, added = directory_catalog(settings, look_into_models=not without_models).check()
    counts = {
        "entities": len(catalog.entities),
        "feature groups": len(catalog.groups),
        "event types": len(catalog.event_types),
        "candidate generators": len(catalog.generators),
        "models": len(catalog.models),
        "inferflows": len(catalog.inferflows),
        "flows": len(catalog.flows),
    }
    out.print(f"{directory} is valid: " + ", ".join(f"{n} {what}" for what, n in counts.items()))
    for version in added:
        out.print(f"  'kirana apply' would publish {_describe(version)}")


def apply(directory: CatalogDirectory, models: ModelRoot = None) -> None:
    """Publish a catalog as the next revision; what is live switches within a second."""
    report(publish(local_settings(directory, as_urls(models))))


def publish(settings: Settings) -> Published:
    """Validate and publish. Raises `CatalogError` with all that is wrong."""
    return directory_catalog(settings).publish()


def report(published: Published) -> None:
    for version in published.new_versions:
        err.print(f"published {_describe(version)}", markup=False)
    if published.changed:
        out.print(f"revision {published.revision} is published")
    else:
        out.print(f"revision {published.revision} is live already, nothing has changed")


def _describe(version: SchemaVersion) -> str:
    return f"schema version {version.number} of {version.group}"
