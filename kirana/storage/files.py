"""Files on this machine and in object storage, behind the file systems of Arrow."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

import pyarrow as pa
from pyarrow import fs

from kirana.errors import InvalidInput, Unavailable
from kirana.storage.s3 import open_s3
from kirana.urls import without_password


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file. `path` is its path in `filesystem`, `name` is its whole path or URL for people.

    `size` is in bytes. `modified_ns` is the time of the last change, in Unix nanoseconds.
    """

    filesystem: fs.FileSystem
    path: str
    name: str
    size: int
    modified_ns: int

    def version(self) -> tuple[int, int]:
        """Return the size and the time of the last change that the file has now.

        Raise `Unavailable` if it can't be read any more.
        """
        with answering(self.name):
            info = self.filesystem.get_file_info(self.path)
        return info.size or 0, info.mtime_ns or 0

    @property
    def is_local(self) -> bool:
        """Whether the file is on this machine."""
        return isinstance(self.filesystem, fs.LocalFileSystem)


def stored_files(location: str) -> tuple[list[StoredFile], bool]:
    """Return the files at a path or URL, and whether it is a folder.

    Of a folder, return all files in it and its subfolders, in order. Names that begin with `.`, or
    with `_` but not like `_column=value`, are left out: programs that write folders use them for
    files that are not data.

    Raise `InvalidInput` if there is no such file or folder, or if the URL is not valid. Raise
    `Unavailable` if the storage does not answer or refuses access.
    """
    filesystem, path, prefix = opened(location)
    with answering(location):
        info = filesystem.get_file_info(path)
        if info.type == fs.FileType.NotFound:
            raise InvalidInput(f"there is no file {without_password(location)}")
        if info.type == fs.FileType.File:
            return [_stored(filesystem, info, prefix)], False
        found = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    files = [
        _stored(filesystem, entry, prefix)
        for entry in sorted(found, key=lambda entry: entry.path)
        if entry.type == fs.FileType.File and _is_data(entry.path, path)
    ]
    return files, True


@contextmanager
def answering(name: str, action: str = "read") -> Iterator[None]:
    """Raise `Unavailable` instead of `OSError`, with the name of the storage or the file.

    `action` is what can't be done then.
    """
    try:
        yield
    except pa.ArrowInvalid as error:
        raise InvalidInput(f"{without_password(name)}: {error}") from None
    except OSError as error:
        raise Unavailable(f"{without_password(name)} can't be {action}: {error}") from error


def opened(location: str) -> tuple[fs.FileSystem, str, str]:
    """Return the file system of a path or URL, the path there, and the start of its URLs."""
    if "://" not in location:
        return fs.LocalFileSystem(), str(Path(location)), ""
    match urlsplit(location).scheme:
        case "s3":
            with answering(location):
                return *open_s3(location), "s3://"
        case "file":
            with answering(location):
                return *fs.FileSystem.from_uri(location), "file://"
    raise InvalidInput(
        f"'{without_password(location)}' is neither a path nor a URL with file:// or s3://"
    )


def _stored(filesystem: fs.FileSystem, info: fs.FileInfo, prefix: str) -> StoredFile:
    return StoredFile(filesystem, info.path, prefix + info.path, info.size or 0, info.mtime_ns or 0)


def _is_data(path: str, folder: str) -> bool:
    """Return whether no part of a path, below the folder that was given, is hidden."""
    return not any(
        part.startswith(".") or (part.startswith("_") and "=" not in part)
        for part in PurePosixPath(path).relative_to(folder).parts
    )
