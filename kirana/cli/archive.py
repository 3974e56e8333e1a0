"""The `kirana archive` command."""

from __future__ import annotations

import asyncio
from contextlib import closing
from typing import Annotated

import typer

from kirana.actors.archiver import Archiver
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
        typer.Option("--once", help="End when everything is written that the store has now."),
    ] = False,
    streams: StreamUrl = None,
    archive: ArchiveUrl = None,
    catalog: CatalogUrl = None,
) -> None:
    """Write the feature stream to an archive of Parquet files, until Ctrl-C.

    'kirana up --archive' does the same in the background. It is safe to do both: they write the
    same files.
    """
    options = as_urls(catalog=catalog, stores={"streams": streams, "archive": archive})
    settings = local_settings(directory, options, uses=USES)
    for name in ("streams", "archive"):
        if getattr(settings, name) == OFF:
            raise ConfigurationError(
                f"{name}: no URL is given: use --{name} or KIRANA_{name.upper()}", field=name
            )
    check_archive(settings.archive)
    with closing(open_catalog(settings)) as source:
        archiver = Archiver(Assembly(settings, source))
        files = run_until_interrupted(_run(archiver, once=once))
    out.print(f"{files[0]} rows in {files[1]} files")


async def _run(archiver: Archiver, *, once: bool) -> tuple[int, int]:
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
            if once and not problem and state.lag == 0:
                return state.rows, state.files
    finally:
        work.cancel()
        await asyncio.gather(work, return_exceptions=True)
