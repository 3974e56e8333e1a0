"""The `kirana push` command."""

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
from kirana.cli.remembered import require_same_stores
from kirana.cli.store_options import store_option
from kirana.errors import ConfigurationError, Unavailable
from kirana.features.part import open_store
from kirana.ingest.push import Push, Pushed
from kirana.revision import NO_REVISION
from kirana.serving.assembly import catalog_backend
from kirana.serving.parts import PARTS, store_settings
from kirana.serving.settings import Settings
from kirana.urls import scheme_of

FeatureStoreUrl = Annotated[str | None, store_option(store_settings(PARTS)["features"])]
HotTierUrl = Annotated[str | None, store_option(store_settings(PARTS)["features_hot"])]


def push(
    directory: CatalogDirectory,
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...",
            help="Parquet files named ENTITY.GROUP.parquet, or folders of them.",
        ),
    ],
    group: Annotated[
        str | None, typer.Option(metavar="ENTITY.GROUP", help="The feature group of all files.")
    ] = None,
    schema_version: Annotated[
        int | None,
        typer.Option(min=1, help="The schema version of the files. Default: the newest."),
    ] = None,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Don't compare event times with the rows in Redis. This is faster, but safe only "
            "if nothing else writes to the group.",
        ),
    ] = False,
    features: FeatureStoreUrl = None,
    features_hot: HotTierUrl = None,
    catalog: CatalogUrl = None,
) -> None:
    """Load feature rows from Parquet files. Kirana may serve from the store meanwhile.

    All files are checked first. If a row is wrong, nothing is written. A row that is older than
    the stored one is not written and counts as stale, unless --overwrite is given. A row that is
    past the TTL of its group counts as expired.
    """
    stores = {"features": features, "features_hot": features_hot}
    options = as_urls(catalog=catalog, stores=stores)
    settings = local_settings(directory, options, uses=("catalog", *stores))
    require_given_store(settings, "features", directory, options)
    if scheme_of(settings.features) == "memory":
        raise ConfigurationError(
            "features: memory:// is the memory of a replica, and other processes can't write to "
            "it: write rows over HTTP",
            field="features",
        )
    require_same_stores(directory, Instance(directory).serving(), settings, "catalog", *stores)
    with closing(catalog_backend(settings)) as backend:
        revision = backend.current()
        if revision == NO_REVISION:
            raise ConfigurationError(
                f"catalog: {settings.catalog} has no revision yet: publish one with 'kirana apply'"
            )
        published = backend.load(revision)
    job = Push(paths, published, group=group, schema_version=schema_version)
    began = time.perf_counter()
    pushed_groups = run_until_interrupted(run_push(job, settings, guarded=not overwrite))
    seconds = time.perf_counter() - began
    for name, pushed in pushed_groups.items():
        stale = f", {pushed.stale} stale" if pushed.stale else ""
        expired = f", {pushed.expired} expired" if pushed.expired else ""
        out.print(f"{name}: {pushed.written} rows written{stale}{expired}")
    out.print(f"{job.rows} rows in {seconds:.1f} s, {job.rows / max(seconds, 1e-9):,.0f} rows/s")


async def run_push(job: Push, settings: Settings, *, guarded: bool = True) -> dict[str, Pushed]:
    """Check all rows, then write them, with a progress bar for each step.

    Return the outcome for each group, by its name. If not `guarded`, rows may replace newer ones.
    If this coroutine is cancelled, print the minimum number of rows that were processed.

    Raise `ConfigurationError` if the store can't be opened, and `InvalidInput` if a row is wrong.
    Raise `Unavailable` if the store does not answer or is full. The message of the error has the
    minimum number of rows that were processed.
    """
    store = open_store(settings)
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
        show_error(f"interrupted: {_unfinished(written, job.rows)}")
        raise
    except Unavailable as error:
        error.message += f"; {_unfinished(written, job.rows)}"
        raise
    finally:
        await store.close()


def _unfinished(written: int | None, rows: int) -> str:
    """Describe how far a push got. `written` is None if it had not begun to write."""
    if written is None:
        return "nothing was written"
    return (
        f"at least {written} of {rows} rows were processed; run the same command again for the rest"
    )
