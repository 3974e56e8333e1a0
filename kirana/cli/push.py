"""`kirana push`."""

from __future__ import annotations

import asyncio
import time
from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from kirana.cli.console import out, progress, show_error
from kirana.cli.instance import Instance
from kirana.cli.interrupts import run_until_interrupted
from kirana.cli.locations import (
    CatalogDirectory,
    CatalogUrl,
    as_urls,
    local_settings,
    require_given_store,
)
from kirana.cli.remembered import require_same
from kirana.cli.store_options import store_option
from kirana.errors import ConfigurationError, Unavailable
from kirana.ingest.push import Push, Pushed
from kirana.revision import NO_REVISION
from kirana.serving.assembly import catalog_backend
from kirana.serving.parts import PARTS, stores_of
from kirana.serving.settings import Settings
from kirana.stores import open_feature_store
from kirana.urls import scheme_of

FeatureStoreUrl = Annotated[str | None, store_option(stores_of(PARTS)["features"])]


def push(
    directory: CatalogDirectory,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Parquet files named <entity>.<group>.parquet, or folders of them.",
        ),
    ],
    group: Annotated[
        str | None, typer.Option(metavar="ENTITY.GROUP", help="The group of all files.")
    ] = None,
    schema_version: Annotated[
        int | None,
        typer.Option(min=1, help="The version that the files follow. Default: the newest."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Don't compare event times with what Redis has: faster, for a new group.",
        ),
    ] = False,
    features: FeatureStoreUrl = None,
    catalog: CatalogUrl = None,
) -> None:
    """Load feature rows from Parquet, also while a cluster serves from the same store.

    All files are checked first: of a file with a wrong row nothing is written. A row that is
    older than what is stored leaves it alone and counts as stale, one that is past the TTL of its
    group counts as expired.
    """
    options = as_urls(catalog=catalog, stores={"features": features})
    settings = local_settings(directory, options, uses=("catalog", "features"))
    require_given_store(settings, "features", directory, options)
    if scheme_of(settings.features) == "memory":
        raise ConfigurationError(
            "features: memory:// is the memory of a replica, which no other process can write to: "
            "write over HTTP",
            field="features",
        )
    require_same(directory, Instance(directory).serving(), settings, "catalog", "features")
    with closing(catalog_backend(settings)) as backend:
        revision = backend.current()
        if revision == NO_REVISION:
            raise ConfigurationError(
                f"{directory} has no revision yet: run 'kirana apply {directory}' first"
            )
        published = backend.load(revision)
    job = Push(paths, published, group=group, schema_version=schema_version)
    began = time.perf_counter()
    done = run_until_interrupted(run_push(job, settings, guarded=not overwrite))
    seconds = time.perf_counter() - began
    for name, pushed in done.items():
        stale = f", {pushed.stale} stale" if pushed.stale else ""
        expired = f", {pushed.expired} expired" if pushed.expired else ""
        out.print(f"{name}: {pushed.written} rows written{stale}{expired}")
    out.print(f"{job.rows} rows in {seconds:.1f} s, {job.rows / max(seconds, 1e-9):,.0f} rows/s")


async def run_push(job: Push, settings: Settings, *, guarded: bool = True) -> dict[str, Pushed]:
    """Check and write all rows, with a bar for each."""
    store = open_feature_store(settings.features)
    written: int | None = None
    try:
        with progress() as bar:
            checking = bar.add_task("checking", total=job.rows)
            await job.check(lambda rows: bar.advance(checking, rows))
            writing = bar.add_task("writing ", total=job.rows)

            def advance(rows: int) -> None:
                nonlocal written
                written = (written or 0) + rows
                bar.advance(writing, rows)

            written = 0
            return await job.write(store, advance, guarded=guarded)
    except asyncio.CancelledError:
        show_error(f"interrupted: {_left(written, job.rows)}")
        raise
    except Unavailable as error:
        error.message += f"; {_left(written, job.rows)}"
        raise
    finally:
        await store.close()


def _left(written: int | None, rows: int) -> str:
    """Say what a push that did not end leaves: what was under way may be there too."""
    if written is None:
        return "nothing was written"
    some = f"{written} of {rows} rows or some more are in the store"
    return f"{some}; the same command writes the rest"
