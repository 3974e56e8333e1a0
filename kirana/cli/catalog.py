"""The `kirana check` and `kirana apply` commands."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from kirana.catalog.publishing import Checked, Published
from kirana.catalog.snapshot import Catalog
from kirana.cli.console import err, out, show_warning
from kirana.cli.instance import Instance
from kirana.cli.locations import (
    CatalogDirectory,
    CatalogUrl,
    ModelRoot,
    as_urls,
    local_settings,
)
from kirana.cli.remembered import LOCATIONS, last_published, record_published, require_same_stores
from kirana.cli.store_options import with_store_options
from kirana.errors import ConfigurationError
from kirana.part import OFF
from kirana.revision import NO_REVISION
from kirana.serving.assembly import catalog_backend
from kirana.serving.settings import Settings
from kirana.streams import topics as streams
from kirana.streams.part import parse_stream

USES = ("catalog", "models")
"""The locations that `kirana check` uses."""

MAX_LISTED = 10
"""The maximum number of changes of one kind that are listed without `--verbose`."""

Verbose = Annotated[
    bool,
    typer.Option(
        "--verbose", "-v", help="List every new schema version, storage record and model file."
    ),
]


def check(
    directory: CatalogDirectory,
    models: ModelRoot = None,
    without_models: Annotated[
        bool, typer.Option("--without-models", help="Don't open the model files.")
    ] = False,
    catalog: CatalogUrl = None,
    verbose: Verbose = False,
) -> None:
    """Validate a catalog without publishing it.

    Each problem is shown with its file and, if known, the line and the path of the field.
    """
    settings = local_settings(directory, as_urls(models, catalog=catalog), uses=USES)
    backend = catalog_backend(settings, directory, open_models=not without_models)
    with closing(backend):
        checked = backend.check()
    snapshot = checked.catalog
    counts = {
        "entities": len(snapshot.entities),
        "feature groups": len(snapshot.groups),
        "event types": len(snapshot.event_types),
        "sources": len(snapshot.sources),
        "candidate generators": len(snapshot.generators),
        "models": len(snapshot.models),
        "inferflows": len(snapshot.inferflows),
        "flows": len(snapshot.flows),
    }
    out.print(f"{directory} is valid: " + ", ".join(f"{n} {kind}" for kind, n in counts.items()))
    for line in _changes(checked, verbose):
        out.print(f"  'kirana apply' would publish {line}", markup=False)
    show_warnings(checked)


@with_store_options
def apply(
    directory: CatalogDirectory,
    models: ModelRoot = None,
    catalog: CatalogUrl = None,
    verbose: Verbose = False,
    **stores: str | None,
) -> None:
    """Publish a catalog as the next revision, unless nothing has changed.

    In stores that need tables, make those that are missing, and in Kafka the topics of the feature
    stream. Running replicas switch to the revision as soon as they have loaded it.
    """
    settings = local_settings(directory, as_urls(models, catalog, stores))
    require_same_stores(directory, Instance(directory).serving(), settings, *LOCATIONS)
    make_topics(settings)
    report(publish(settings, directory), verbose=verbose)


def make_topics(settings: Settings) -> None:
    """Make the topics of the feature stream that do not exist, and print their names.

    Raise `Unavailable` if Kafka does not answer, and `Conflict` if it compacts one of the topics.
    """
    if settings.streams == OFF:
        return
    for topic in asyncio.run(streams.make_topics(parse_stream(settings.streams))):
        err.print(
            f"made topic {topic.name}: {topic.partitions} partitions, messages are kept for "
            f"{topic.retention_hours:g} hours",
            markup=False,
        )


def publish(settings: Settings, directory: Path) -> Published:
    """Validate and publish the catalog in a directory, and return the outcome.

    Print a warning if the backend no longer has the history that this directory last published to.
    Raise `CatalogError` if the catalog is invalid, `Conflict` if another publish came first, and
    `Unavailable` if the backend does not answer.
    """
    with closing(catalog_backend(settings, directory, create_tables=True)) as backend:
        published = backend.publish()
    last = last_published(directory, settings.catalog)
    if last is not None and last.catalog != published.revision.catalog:
        show_warning(
            f"{settings.catalog} has lost its history: it was at revision {last} when it was last "
            f"published from here. Revision {published.revision} starts a new history without the "
            "earlier schema versions and storage records"
        )
    record_published(directory, settings.catalog, published.revision)
    return published


def live_catalog(settings: Settings) -> Catalog:
    """Return the live revision. Raise `ConfigurationError` if nothing was published."""
    with closing(catalog_backend(settings)) as backend:
        revision = backend.current()
        if revision == NO_REVISION:
            raise ConfigurationError(
                f"catalog: {settings.catalog} has no revision yet: publish one with 'kirana apply'"
            )
        return backend.load(revision)


def report(published: Published, *, verbose: bool = False) -> None:
    """Print the outcome of a publication: the revision to stdout, and all details to stderr.

    Without `verbose`, print a summary instead of more than `MAX_LISTED` changes of one kind.
    """
    for line in _changes(published.checked, verbose):
        err.print(f"published {line}", markup=False)
    show_warnings(published.checked)
    if published.changed:
        out.print(f"revision {published.revision} is published")
    else:
        out.print(f"revision {published.revision} is live already, nothing has changed")


def _changes(checked: Checked, verbose: bool) -> Iterator[str]:
    """Yield a line for each new schema version, changed storage record, and changed model file.

    Without `verbose`, more than `MAX_LISTED` lines of one kind become a single line.
    """
    versions = [f"schema version {v.number} of {v.group}" for v in checked.added.versions]
    yield from _lines_or_summary(versions, "schema versions of {} groups", verbose)
    records = [r for r in checked.added.storage if r.number > 1]
    lines = [f"storage record {record.number} of {record.entity}" for record in records]
    yield from _lines_or_summary(lines, "storage records of {} entities", verbose)
    models = [checked.catalog.models[name] for name in checked.changed_models]
    lines = [f"a new file of model {m.name}: {m.path} is sha256:{m.sha256}" for m in models]
    yield from _lines_or_summary(lines, "new files of {} models", verbose)


def _lines_or_summary(lines: Sequence[str], summary: str, verbose: bool) -> Iterator[str]:
    if verbose or len(lines) <= MAX_LISTED:
        yield from lines
    else:
        yield f"{summary.format(len(lines))} (-v lists them)"


def show_warnings(checked: Checked) -> None:
    """Print the warnings about a valid catalog."""
    for problem in checked.warnings:
        show_warning(str(problem))
