"""The files of an archive that hold rows of a group."""

from __future__ import annotations

import datetime
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from kirana.archive.columns import OF_VERSION
from kirana.errors import InvalidInput
from kirana.storage.files import StoredFile, answering, stored_files

_DAY = re.compile(r"/day=(\d{4}-\d{2}-\d{2})/")

DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True)
class ArchiveFile:
    """A file of an archive, with rows of one schema version and one day."""

    stored: StoredFile
    day: int
    """In days since 1970."""


def archive_files(archive: str, group: str) -> list[ArchiveFile]:
    """Return the files of a group, in the order of their days. There may be none.

    Raise `InvalidInput` if there is no archive, and `Unavailable` if the storage does not answer.
    """
    base, question, query = archive.partition("?")
    try:
        files, _ = stored_files(f"{base.rstrip('/')}/{group}{question}{query}")
    except InvalidInput:
        stored_files(archive)
        return []
    found = []
    for file in files:
        match = _DAY.search(file.path)
        if match and file.path.endswith(".parquet"):
            day = datetime.date.fromisoformat(match[1]) - datetime.date(1970, 1, 1)
            found.append(ArchiveFile(file, day.days))
    return sorted(found, key=lambda file: file.day)


class RowGroups:
    """An open file. Its row groups are read one by one, and only the columns that are asked for."""

    def __init__(self, file: ArchiveFile) -> None:
        self._file = file.stored
        with answering(self._file.name):
            self._parquet = pq.ParquetFile(
                self._file.path,
                filesystem=self._file.filesystem,
                page_checksum_verification=True,
                pre_buffer=not self._file.is_local,
            )
        metadata = self._parquet.schema_arrow.metadata or {}
        if OF_VERSION not in metadata:
            raise InvalidInput(f"{self._file.name} is not a file of an archive")
        self.version = int(metadata[OF_VERSION])

    def __iter__(self) -> Iterator[int]:
        return iter(range(self._parquet.num_row_groups))

    def read(self, row_group: int, columns: list[str]) -> pa.Table:
        """Return some columns of a row group. Raise `Unavailable` if the file can't be read."""
        with answering(self._file.name):
            return self._parquet.read_row_group(row_group, columns=columns)

    def close(self) -> None:
        """Close the file."""
        self._parquet.close()
