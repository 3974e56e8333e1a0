"""The `kirana push` command."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from kirana.catalog.objects import is_delimiter
from kirana.catalog.snapshot import Catalog
from kirana.cli.catalog import live_catalog
from kirana.cli.console import err, out, progress, show_error, show_warning
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
from kirana.cli.remote import complete
from kirana.cli.store_options import store_option
from kirana.errors import ConfigurationError, Unavailable, Unknown, shortened
from kirana.features.part import open_store
from kirana.ingest.journal import Journal, Pushed
from kirana.ingest.push import Push
from kirana.ingest.rejects import Rejects
from kirana.ingest.source import NO_ESCAPE, Source
from kirana.ingest.targets import SpooledTarget, StoreTarget, StreamTarget, Target
from kirana.kafka.sending import Sender
from kirana.part import OFF
from kirana.schema import EVENT_TIME
from kirana.serving.parts import PARTS, store_settings
from kirana.serving.settings import Settings
from kirana.streams.part import local_archive, parse_stream
from kirana.streams.spool import SpoolWriter
from kirana.urls import scheme_of, without_password

STORE = "store"

FeatureStoreUrl = Annotated[str | None, store_option(store_settings(PARTS)["features"])]
HotTierUrl = Annotated[str | None, store_option(store_settings(PARTS)["features_hot"])]


def push(
    directory: CatalogDirectory,
    paths: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="PATH",
            help="Files or folders of Parquet, CSV or Arrow, also as s3://BUCKET/KEY. The name of "
            "a file or of a folder around it is that of its group: ENTITY.GROUP.parquet, or "
            "ENTITY.GROUP/dt=2026-11-28/part-0.parquet.",
        ),
    ] = None,
    source: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Read the files as this source of the catalog says; those it names, without PATH.",
            autocompletion=complete("source"),
        ),
    ] = None,
    group: Annotated[
        str | None, typer.Option(metavar="ENTITY.GROUP", help="The feature group of all files.")
    ] = None,
    schema_version: Annotated[
        int | None,
        typer.Option(min=1, help="The schema version of the files. Default: the newest."),
    ] = None,
    rename: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OLD=NEW", help="Read the column OLD as NEW. Give it once for each column."
        ),
    ] = None,
    ignore_extra: Annotated[
        bool,
        typer.Option("--ignore-extra", help="Leave out columns that the group does not have."),
    ] = False,
    event_time: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="The column of the event times, which may be a folder like COLUMN=2026-11-28. "
            "Default: event_time. Without such a column, the event time is now.",
        ),
    ] = None,
    csv_delimiter: Annotated[
        str | None, typer.Option(metavar="CHARACTER", help="What separates fields. Default: ','.")
    ] = None,
    csv_escape: Annotated[
        str | None,
        typer.Option(
            metavar="CHARACTER",
            help="What stands before a quote within a field: '\\', as Spark writes it, or 'none'. "
            "Only needed if a file has a backslash before a quote.",
        ),
    ] = None,
    allow_rejected: Annotated[
        bool,
        typer.Option(
            "--allow-rejected", help="Write all rows that are right, even if others are wrong."
        ),
    ] = False,
    rejected: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the rows that are wrong are listed, one JSON object a line. "
            "Default: a file in DIR/.kirana/push.",
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option(
            "--restart", help="Write all rows again, even if an earlier push was cut off."
        ),
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Don't compare event times with the rows in Redis. This is faster, but safe only "
            "if nothing else writes to the group.",
        ),
    ] = False,
    to: Annotated[
        str | None,
        typer.Option(
            metavar=f"URL|{STORE}",
            help="Send the rows to a feature stream, such as kafka://HOST:PORT/TOPIC, or write "
            f"them to the '{STORE}' alone. Default: to the stream of the last 'kirana up', if it "
            "has one.",
        ),
    ] = None,
    features: FeatureStoreUrl = None,
    features_hot: HotTierUrl = None,
    catalog: CatalogUrl = None,
) -> None:
    """Load feature rows from files. Kirana may serve from the store meanwhile.

    All files are checked first. If a row is wrong, nothing is written, unless --allow-rejected is
    given. A row that is older than the stored one is not written and counts as stale, unless
    --overwrite is given. A row that is past the TTL of its group counts as expired.

    A push that was cut off goes on where it was if the same command is run again.
    """
    stores = {"features": features, "features_hot": features_hot}
    options = as_urls(catalog=catalog, stores=stores)
    if to is not None:
        options |= {"streams": OFF, "archive": OFF} if to == STORE else {"streams": to}
    uses = ("catalog", "streams", "archive", *stores)
    settings = local_settings(directory, options, uses=uses)
    stream = None if settings.streams == OFF else parse_stream(settings.streams)
    serving = Instance(directory).serving()
    if stream is None:
        _require_writable(settings, directory, options)
        require_same_stores(directory, serving, settings, "catalog", *stores)
    else:
        also = () if to is not None else ("streams",)
        require_same_stores(directory, serving, settings, "catalog", *also)
    if stream is not None and overwrite:
        raise typer.BadParameter("consumers always compare event times", param_hint="--overwrite")
    given = Source(
        group,
        schema_version,
        _renames(rename or []),
        ignore_extra,
        event_time or EVENT_TIME,
        _delimiter(csv_delimiter or ","),
        _escape(csv_escape),
    )
    if source is not None and given != Source():
        raise typer.BadParameter("it decides how the files are read", param_hint="--source")
    published = live_catalog(settings)
    if source is not None:
        given = _declared(published, source)
        paths = paths or [_below(directory, file) for file in given.files]
    if not paths:
        raise typer.BadParameter("name files or folders, or a --source", param_hint="PATH")
    job = Push(paths, published, source=given)
    if overwrite and job.has_archive:
        raise typer.BadParameter("files of an archive have older rows", param_hint="--overwrite")
    if job.ignored:
        names = shortened(", ".join(job.ignored))
        show_warning(f"{len(job.ignored)} files were left out, which are not data: {names}")
    journal = _journal(directory, job, settings, published, [overwrite, allow_rejected, rejected])
    if restart:
        journal.begin_again()
    began = time.perf_counter()
    with Rejects(rejected or journal.rejects, allowed=allow_rejected) as rejects:
        work = run_push(job, settings, guarded=not overwrite, rejects=rejects, journal=journal)
        pushed_groups, rows = run_until_interrupted(work)
    seconds = time.perf_counter() - began
    for name, pushed in pushed_groups.items():
        out.print(f"{name}: {_summary(pushed)}")
    out.print(f"{rows} rows in {seconds:.1f} s, {rows / max(seconds, 1e-9):,.0f} rows/s")
    if count := sum(pushed.rejected for pushed in pushed_groups.values()):
        show_warning(f"{count} rows were rejected: {rejects.path} has the reasons")


def _require_writable(settings: Settings, directory: Path, options: dict[str, str]) -> None:
    """Raise `ConfigurationError` if the store is not known, or is the memory of a process."""
    require_given_store(settings, "features", directory, options)
    if scheme_of(settings.features) == "memory":
        raise ConfigurationError(
            "features: memory:// is the memory of a replica, and other processes can't write to "
            "it: write rows over HTTP",
            field="features",
        )


def _declared(published: Catalog, name: str) -> Source:
    """Return a source of the catalog. Raise `Unknown` if there is none of this name."""
    if name not in published.sources:
        raise Unknown("source", name, published.sources)
    return published.compiled("source", name)  # type: ignore[no-any-return]


def _below(directory: Path, file: str) -> str:
    """Return the path or URL of a file of a source. Plain paths are below the catalog directory."""
    return file if "://" in file else str(directory / file)


def _journal(
    directory: Path, job: Push, settings: Settings, published: Catalog, options: list[object]
) -> Journal:
    """Return the journal of a push. A push to another store, or of another catalog, is another."""
    names = ("features", "features_hot", "streams")
    stores = [without_password(getattr(settings, name)) for name in names]
    revision = [published.revision.catalog, published.revision.number]
    identity = [job.identity, stores, revision, [*map(str, options)]]
    return Journal(directory / ".kirana" / "push", identity)


def _delimiter(character: str) -> str:
    if not is_delimiter(character):
        raise typer.BadParameter("it must be one ASCII character", param_hint="--csv-delimiter")
    return character


def _escape(character: str | None) -> str | None:
    if character not in (None, "\\", NO_ESCAPE):
        raise typer.BadParameter(f"it must be '\\' or '{NO_ESCAPE}'", param_hint="--csv-escape")
    return character


def _renames(options: list[str]) -> dict[str, str]:
    renames: dict[str, str] = {}
    for option in options:
        old, equals, new = option.partition("=")
        if not (old and equals and new):
            raise typer.BadParameter(f"'{option}' is not OLD=NEW", param_hint="--rename")
        if old in renames:
            raise typer.BadParameter(f"'{old}' is renamed twice", param_hint="--rename")
        renames[old] = new
    return renames


def _summary(pushed: Pushed) -> str:
    """Return the numbers of rows, those that are not 0, as text."""
    if pushed.sent:
        rejected = f", {pushed.rejected} rejected" if pushed.rejected else ""
        return f"{pushed.sent} rows sent{rejected}"
    counts = {"stale": pushed.stale, "expired": pushed.expired, "rejected": pushed.rejected}
    others = [f", {count} {name}" for name, count in counts.items() if count]
    return f"{pushed.written} rows written{''.join(others)}"


async def run_push(
    job: Push,
    settings: Settings,
    *,
    guarded: bool = True,
    rejects: Rejects | None = None,
    journal: Journal | None = None,
) -> tuple[dict[str, Pushed], int]:
    """Check all rows, then write them, with a progress bar for each step.

    Return the outcome for each group, by its name, and the number of rows that were written by this
    call. If not `guarded`, rows may replace newer ones.
    `rejects` gets the rows that are wrong. The push goes on where the `journal` ends. If this
    coroutine is cancelled, print the minimum number of rows that were processed.

    Raise `ConfigurationError` if the store can't be opened, and `InvalidInput` if a row is wrong
    and `rejects` does not allow that. Raise `Unavailable` if the store does not answer or is full,
    or if a file can't be read. The message of the error has the minimum number of rows that were
    processed.
    """
    journal = journal or Journal()
    written: int | None = None
    close, target = _target(settings, job, guarded=guarded)
    try:
        await target.open()
        if journal.rows_done and not await job.resumes(target, journal):
            show_warning("the store has lost rows that an earlier push has written: all are pushed")
            journal.begin_again()
        before = journal.rows_done
        if before:
            err.print(f"going on after {before} rows that an earlier push has written")
        with progress() as bar:
            checking = bar.add_task("checking", total=job.rows)
            await job.check(
                lambda rows: bar.advance(checking, rows), rejects=rejects, journal=journal
            )
            written = journal.rows_done
            bar.update(checking, total=job.rows, completed=job.rows)
            writing = bar.add_task("writing ", total=job.rows, completed=written)

            def advance(rows: int) -> None:
                nonlocal written
                written = (written or 0) + rows
                bar.advance(writing, rows)

            pushed = await job.write(target, advance, journal=journal)
            return pushed, written - before
    except asyncio.CancelledError:
        show_error(f"interrupted: {_unfinished(written, job.rows)}")
        raise
    except Unavailable as error:
        error.message += f"; {_unfinished(written, job.rows)}"
        raise
    finally:
        await close()


def _target(
    settings: Settings, job: Push, *, guarded: bool
) -> tuple[Callable[[], Awaitable[None]], Target[Any]]:
    """Return where the rows go, and a function that closes it."""
    if settings.streams == OFF:
        store = open_store(settings)
        target = StoreTarget(store, guarded=guarded)
        if settings.archive == OFF:
            return store.close, target
        spool = SpoolWriter(local_archive(settings.archive), settings.archive_period_s)
        return store.close, SpooledTarget(target, spool, job.revision)
    stream = parse_stream(settings.streams)
    sender = Sender(stream)
    return sender.close, StreamTarget(sender, timeout_s=stream.timeout_s)


def _unfinished(written: int | None, rows: int | None) -> str:
    """Describe how far a push got. `written` is None if it had not begun to write."""
    if written is None:
        return "nothing was written"
    of_all = "" if rows is None else f" of {rows}"
    return (
        f"at least {written}{of_all} rows were processed; run the same command again for the rest"
    )
