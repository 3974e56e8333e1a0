"""The folder of an archive: on this machine, or in object storage.

<folder>/<entity.group>/day=2026-11-28/<topic>-<partition>-<first offset>-<end>-v<version>.parquet
"""

from __future__ import annotations

import os
from pathlib import Path
from uuid import uuid4

import pyarrow.parquet as pq
from pyarrow import fs

from kirana.archive.tables import FileTable
from kirana.storage.files import answering, opened
from kirana.urls import without_password

COMPRESSION = "zstd"


class ArchiveFolder:
    """Writes files of an archive at a URL with `file://` or `s3://`.

    Raise `InvalidInput` if the URL is not valid. The methods raise `Unavailable` if the storage
    does not answer, or takes no file.
    """

    def __init__(self, url: str) -> None:
        self.name = without_password(url)
        self._filesystem, self._root, _ = opened(url)
        self._is_local = isinstance(self._filesystem, fs.LocalFileSystem)

    def write(self, file: FileTable, name: str) -> int:
        """Write a file, which appears as a whole, and return its size in bytes.

        A file of the same name is replaced.
        """
        folder = f"{self._root}/{file.group}/day={file.day}"
        path = f"{folder}/{name}"
        with answering(f"{self.name}: {path}", "written"):
            if self._is_local:
                self._write_local(file, Path(folder), name)
            else:
                # Object storage shows an object when it is complete.
                with self._filesystem.open_output_stream(path) as stream:
                    _write_parquet(file, stream)
            return int(self._filesystem.get_file_info(path).size or 0)

    def _write_local(self, file: FileTable, folder: Path, name: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        # Readers leave out names that begin with a dot.
        unfinished = folder / f".{name}.{uuid4().hex}"
        try:
            with unfinished.open("wb") as stream:
                _write_parquet(file, stream)
                stream.flush()
                os.fsync(stream.fileno())
            unfinished.replace(folder / name)
        finally:
            unfinished.unlink(missing_ok=True)
        _sync(folder)


def file_name(topic: str, partition: int, first: int, end: int, version: int) -> str:
    """Return the name of the file with the rows of some messages in one schema version.

    The messages are those from the offset `first` to the one before `end`.
    """
    return f"{topic}-{partition:05d}-{first:019d}-{end:019d}-v{version}.parquet"


def _write_parquet(file: FileTable, stream: object) -> None:
    pq.write_table(file.table, stream, compression=COMPRESSION, write_page_checksum=True)


def _sync(folder: Path) -> None:
    """Make sure that the entries of a folder outlive a crash of the machine."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
