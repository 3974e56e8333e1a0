"""The `kirana history` command."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import pyarrow as pa
import pyarrow.csv as pc
import pyarrow.parquet as pq
import typer

from kirana.catalog.snapshot import Catalog
from kirana.cli.catalog import live_catalog
from kirana.cli.console import out, progress
from kirana.cli.locations import CatalogDirectory, CatalogUrl, as_urls, local_settings
from kirana.cli.remote import complete
from kirana.cli.store_options import store_option
from kirana.errors import ConfigurationError, InvalidInput
from kirana.history import history_batches
from kirana.history.join import TIME
from kirana.ingest.columns import text
from kirana.ingest.files import source_files
from kirana.ingest.formats import open_table
from kirana.ingest.formats.base import TableFile
from kirana.ingest.source import Source
from kirana.part import OFF
from kirana.serving.parts import PARTS, store_settings

ArchiveUrl = Annotated[str | None, store_option(store_settings(PARTS)["archive"])]

ENDS = (".parquet", ".csv", ".arrow")


def history(
    directory: CatalogDirectory,
    points: Annotated[
        str,
        typer.Argument(
            metavar="POINTS",
            help="A file of keys and times: Parquet, CSV or Arrow, also as s3://BUCKET/KEY.",
        ),
    ],
    features: Annotated[
        list[str],
        typer.Option(
            "--feature",
            "-f",
            metavar="ENTITY.GROUP[.FEATURE]",
            help="A feature, or all features of a group. Give it once for each.",
            autocompletion=complete("feature_group"),
        ),
    ],
    target: Annotated[
        Path,
        typer.Option(
            "--out", metavar="FILE", help=f"Where the result is written: {', '.join(ENDS)}."
        ),
    ],
    time_column: Annotated[
        str, typer.Option("--time", metavar="COLUMN", help="The column of the times.")
    ] = TIME,
    as_known: Annotated[
        bool,
        typer.Option(
            "--as-known", help="Leave out rows that the store did not have yet at the time."
        ),
    ] = False,
    status: Annotated[
        bool, typer.Option("--status", help="Add the status of the row of each group.")
    ] = False,
    archive: ArchiveUrl = None,
    catalog: CatalogUrl = None,
) -> None:
    """Write what reads of features would have returned at given times, from the archive.

    For example: kirana history DIR clicks.parquet -f product.stats --out train.parquet

    POINTS has a column for each key, and one of times. The result has all its columns, and one for
    each feature. A feature that had no row, or whose row had expired, has its default.
    """
    options = as_urls(catalog=catalog, stores={"archive": archive})
    settings = local_settings(directory, options, uses=("catalog", "archive"))
    if settings.archive == OFF:
        raise ConfigurationError(
            "archive: no archive is given: use --archive or KIRANA_ARCHIVE", field="archive"
        )
    if target.suffix not in ENDS:
        raise typer.BadParameter(f"it must end with {' or '.join(ENDS)}", param_hint="--out")
    published = live_catalog(settings)
    began, rows = time.perf_counter(), 0
    with progress() as bar, _writing(target) as write:
        table = _opened(points)
        task = bar.add_task("joining", total=table.rows)
        for batch in history_batches(
            published,
            settings.archive,
            _batches(table),
            _features(published, features),
            time=time_column,
            as_known=as_known,
            status=status,
        ):
            write(batch)
            rows += len(batch)
            bar.advance(task, len(batch))
    seconds = time.perf_counter() - began
    out.print(f"{rows} rows in {seconds:.1f} s, {rows / max(seconds, 1e-9):,.0f} rows/s: {target}")


def _features(catalog: Catalog, names: list[str]) -> list[str]:
    """Return the full names of features. A group stands for all of its features."""
    found: list[str] = []
    for name in names:
        if name in catalog.groups:
            found += [f"{name}.{feature.name}" for feature in catalog.group(name).current.features]
        else:
            catalog.feature(name)
            found.append(name)
    return found


def _opened(points: str) -> TableFile:
    files, _ = source_files([points], "points")
    if len(files) != 1:
        raise InvalidInput(f"{points} has {len(files)} files: name one")
    return open_table(files[0].stored, files[0].format, Source())


def _batches(table: TableFile) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a file. Raise `InvalidInput` for one that can't be read."""
    for batch in table.batches(table.schema.names, 1):
        if batch.unreadable:
            number, reason = batch.unreadable[0]
            raise InvalidInput(f"row {number} of the points: {reason}")
        columns = [text(c) if pa.types.is_binary(c.type) else c for c in batch.rows.columns]
        yield pa.record_batch(columns, names=batch.rows.schema.names)


@contextmanager
def _writing(target: Path) -> Iterator[Any]:
    """Write batches to a file, which appears when all of them are written."""
    unfinished = target.with_name(f".{target.name}.unfinished")
    writer: Any = None

    def write(batch: pa.RecordBatch) -> None:
        nonlocal writer
        writer = writer or _writer(unfinished, target.suffix, batch.schema)
        writer.write_batch(batch)

    try:
        yield write
        if writer is None:
            raise InvalidInput("there are no points")
        writer.close()
        unfinished.replace(target)
    except pa.ArrowNotImplementedError as error:
        raise InvalidInput(f"{target.suffix} can't hold the result: {error}") from None
    finally:
        unfinished.unlink(missing_ok=True)


def _writer(path: Path, end: str, schema: pa.Schema) -> Any:
    match end:
        case ".parquet":
            return pq.ParquetWriter(path, schema)
        case ".csv":
            return pc.CSVWriter(path, schema)
    return pa.ipc.new_file(path, schema)
