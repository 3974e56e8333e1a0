"""File formats of tables: Parquet, CSV, and Arrow's own (IPC, also called Feather)."""

from __future__ import annotations

from collections.abc import Callable

from kirana.ingest.formats.arrow_ipc import ArrowTable
from kirana.ingest.formats.base import TableFile
from kirana.ingest.formats.csv import CsvTable
from kirana.ingest.formats.parquet import ParquetTable
from kirana.ingest.storage import StoredFile

_FORMATS: dict[str, Callable[[StoredFile], TableFile]] = {
    "parquet": ParquetTable,
    "csv": CsvTable,
    "arrow": ArrowTable,
}


def open_table(file: StoredFile, format_: str) -> TableFile:
    """Open a file of a format in `kirana.ingest.files.FORMATS`.

    Raise `InvalidInput` if it has another format, and `Unavailable` if it can't be read.
    """
    return _FORMATS[format_](file)
