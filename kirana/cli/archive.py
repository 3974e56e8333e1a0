"""The `kirana archive` command."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Annotated

import typer

from kirana.actors.archiver import Archiver
from kirana.actors.spool_archiver import SpoolArchiver
from kirana.cli.console import err, out, show_warning
from kirana.cli.interrupts import run_until_interrupted
from kirana.cli.locations import CatalogDirectory, CatalogUrl, as_urls, local_settings
from kirana.cli.store_options import store_option
from kirana.errors import ConfigurationError
from kirana.part import OFF
from kirana.serving.assembly import Assembly, open_catalog
from kirana.serving.parts import PARTS, store_settings
from kirana.streams.part import check_archive

StreamUrl = Annotated[str | None, store_option(store_settings(PARTS)["streams"])]
ArchiveUrl = Annotated[str | None, store_option(store_settings(PARTS)["archive"])]

USES = ("catalog", "streams", "archive")
LOOK_EVERY_S = 0.5


def archive(
    directory: CatalogDirectory,
    once: Annotated[
        bool,
        typer.Option("--once", help="End when everything is written that the topic has now."),
    ] = False,
    streams: StreamUrl = None,
    archive: ArchiveUrl = None,
    catalog: CatalogUrl = None,
) -> None:
    """Write the feature stream to an archive of Parquet files, until Ctrl-C.

    Without a stream, write what replicas and 'kirana push' have spooled for the archive. 'kirana up
    --archive' does the same in the background. It is safe to do both.
    """
    options = as_urls(catalog=catalog, stores={"streams": streams, "archive": archive})
    settings = local_settings(directory, options, uses=USES)
    if settings.archive == OFF:
        raise ConfigurationError(
            "archive: no archive is given: use --archive or KIRANA_ARCHIVE", field="archive"
        )
    check_archive(settings.archive)
    with closing(open_catalog(settings)) as source:
        kind = SpoolArchiver if settings.streams == OFF else Archiver
        archiver = kind(Assembly(settings, source))
        files = run_until_interrupted(_run(archiver, once=once))
    out.print(f"{files[0]} rows in {files[1]} files")


async def _run(archiver: Archiver | SpoolArchiver, *, once: bool) -> tuple[int, int]:
    """Run an archiver, and show what it does. Return the numbers of rows and files."""
    work = asyncio.create_task(archiver.run())
    try:
        shown = ""
        while True:
            await asyncio.sleep(LOOK_EVERY_S)
            problem, state = await archiver.report()
            text = problem or f"{state.rows} rows in {state.files} files, {state.lag} to be written"
            if problem and problem != shown:
                show_warning(problem)
            elif text != shown:
                err.print(text, markup=False)
            shown = text
            if work.done():
                work.result()
            if once and not problem and archiver.has_written_all:
                return state.rows, state.files
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
