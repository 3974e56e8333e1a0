"""File formats of tables: Parquet, CSV, and Arrow's own (IPC, also called Feather)."""

from __future__ import annotations

from collections.abc import Callable

from kirana.ingest.formats.arrow_ipc import ArrowTable
from kirana.ingest.formats.base import TableFile
from kirana.ingest.formats.csv import CsvTable
from kirana.ingest.formats.parquet import ParquetTable
from kirana.ingest.source import Source
from kirana.storage.files import StoredFile

_FORMATS: dict[str, Callable[[StoredFile, Source], TableFile]] = {
    "parquet": ParquetTable,
    "csv": CsvTable,
    "arrow": ArrowTable,
}


def open_table(file: StoredFile, format_: str, source: Source) -> TableFile:
    """Open a file of a format in `kirana.ingest.files.FORMATS`.

    `source` says how CSV is written. Raise `InvalidInput` if the file has another format, and
    `Unavailable` if it can't be read. The message of `InvalidInput` does not name the file.
    """
    return _FORMATS[format_](file, source)
