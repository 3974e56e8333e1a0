"""`kirana check` and `kirana apply`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from kirana.catalog.publishing import Checked, Published
from kirana.cli.console import err, out, show_warning
from kirana.cli.instance import Instance
from kirana.cli.locations import (
    CatalogDirectory,
    CatalogUrl,
    ModelRoot,
    as_urls,
    local_settings,
)
from kirana.cli.remembered import last_published, note_published, require_same
from kirana.serving.assembly import catalog_backend
from kirana.serving.settings import Settings

USES = ("catalog", "models")
MAX_LISTED = 10
"""More of a kind are summed up."""

Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="List each schema version, however many.")
]


def check(
    directory: CatalogDirectory,
    models: ModelRoot = None,
    without_models: Annotated[
        bool, typer.Option("--without-models", help="Don't look into the model files.")
    ] = False,
    catalog: CatalogUrl = None,
    verbose: Verbose = False,
) -> None:
    """Validate a catalog: every problem with its file, line, path, and what would be right."""
    settings = local_settings(directory, as_urls(models, catalog=catalog), uses=USES)
    opened = catalog_backend(settings, directory, look_into_models=not without_models)
    with closing(opened) as backend:
        checked = backend.check()
    found = checked.catalog
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
    for line in _news(checked, verbose):
        out.print(f"  'kirana apply' would publish {line}", markup=False)
    show_warnings(checked)


def apply(
    directory: CatalogDirectory,
    models: ModelRoot = None,
    catalog: CatalogUrl = None,
    verbose: Verbose = False,
) -> None:
    """Publish a catalog as the next revision; what is live switches within a second."""
    settings = local_settings(directory, as_urls(models, catalog=catalog), uses=USES)
    require_same(directory, Instance(directory).serving(), settings, *USES)
    report(publish(settings, directory), verbose=verbose)


def publish(settings: Settings, directory: Path) -> Published:
    """Validate and publish, and say if the catalog was ahead. Raises `CatalogError`."""
    with closing(catalog_backend(settings, directory)) as backend:
        published = backend.publish()
    before = last_published(directory, settings.catalog)
    if before is not None and before.catalog != published.revision.catalog:
        show_warning(
            f"{settings.catalog} was at revision {before} when it was published from here, and "
            f"begins anew: its revision {published.revision} is of another history, without the "
            "records of the schemas and stores before it"
        )
    note_published(directory, settings.catalog, published.revision)
    return published


def report(published: Published, *, verbose: bool = False) -> None:
    for line in _news(published.checked, verbose):
        err.print(f"published {line}", markup=False)
    show_warnings(published.checked)
    if published.changed:
        out.print(f"revision {published.revision} is published")
    else:
        out.print(f"revision {published.revision} is live already, nothing has changed")


def _news(checked: Checked, verbose: bool) -> Iterator[str]:
    """Describe what a catalog appends to its records, and the models whose files are new."""
    versions = [f"schema version {v.number} of {v.group}" for v in checked.added.versions]
    yield from _listed(versions, "schema versions of {} groups", verbose)
    records = [r for r in checked.added.storage if r.number > 1]
    lines = [f"storage record {record.number} of {record.entity}" for record in records]
    yield from _listed(lines, "storage records of {} entities", verbose)
    models = [checked.catalog.models[name] for name in checked.new_bytes]
    lines = [f"other bytes of model {m.name}: {m.path} is sha256:{m.sha256}" for m in models]
    yield from _listed(lines, "other bytes of {} models", verbose)


def _listed(lines: Sequence[str], summary: str, verbose: bool) -> Iterator[str]:
    if verbose or len(lines) <= MAX_LISTED:
        yield from lines
    else:
        yield f"{summary.format(len(lines))} (-v lists them)"


def show_warnings(checked: Checked) -> None:
    """Print what can go live, and may not do what its author wants."""
    for problem in checked.warnings:
        show_warning(str(problem))
