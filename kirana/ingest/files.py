"""Which files are loaded, and what their paths say: the format, the group, partition columns."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from kirana.errors import InvalidInput
from kirana.ingest.storage import StoredFile, stored_files

FORMATS = {
    "parquet": "parquet",
    "pq": "parquet",
    "csv": "csv",
    "arrow": "arrow",
    "feather": "arrow",
    "ipc": "arrow",
}
"""The format of a file, by the end of its name. A file with another end is taken for Parquet."""

_NAME = re.compile(rf"(.*)\.({'|'.join(FORMATS)})(?:\.(?:gz|bz2|zst|lz4|br))?", re.IGNORECASE)

NO_VALUE = "__HIVE_DEFAULT_PARTITION__"
"""What Spark and Hive write into a path for a missing value."""


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file to load. `partitions` are the columns in its path, such as `dt=2026-11-28`.

    The value of a partition is text, or None if it is missing.
    """

    stored: StoredFile
    format: str
    group: str
    partitions: dict[str, str | None]


def source_files(
    locations: Sequence[str], group: str | None, known: Collection[str] = ()
) -> list[SourceFile]:
    """Return the files at paths and URLs. A folder stands for all files of `FORMATS` in it.

    If `group` is given, all files belong to it. Otherwise a name in `known` is looked for: that of
    the file without its end, then those of its folders, from the innermost. Without one, the name
    of the innermost folder that is no partition counts if it has a dot, otherwise that of the file.

    Raise `InvalidInput` if a path does not exist, or if a folder has no such file, and
    `Unavailable` if the storage does not answer.
    """
    sources: list[SourceFile] = []
    for location in locations:
        files, is_folder = stored_files(location)
        if is_folder:
            files = [file for file in files if _NAME.fullmatch(PurePosixPath(file.path).name)]
            if not files:
                raise InvalidInput(
                    f"{location} has no data file: none ends with .{', .'.join(FORMATS)}"
                )
        sources += [_source(file, group, known, from_folder=is_folder) for file in files]
    return sources


def _source(
    file: StoredFile, group: str | None, known: Collection[str], *, from_folder: bool
) -> SourceFile:
    path = PurePosixPath(file.path)
    match = _NAME.fullmatch(path.name)
    format_ = FORMATS[match[2].lower()] if match else "parquet"
    name = match[1] if match else path.stem
    folders = [folder.name for folder in path.parents if folder.name]
    if group is None:
        group = _group_name(name, folders, known, from_folder=from_folder)
    partitions: dict[str, str | None] = {}
    for folder in folders:
        if folder == group:
            break
        column, equals, value = folder.partition("=")
        if equals and column:
            partitions.setdefault(column, None if value == NO_VALUE else unquote(value))
    return SourceFile(file, format_, group, partitions)


def _group_name(
    name: str, folders: Sequence[str], known: Collection[str], *, from_folder: bool
) -> str:
    """Return the name of the group of a file with this name in these folders, innermost first.

    If no name is known, one with a dot is taken for that of a group. Files in folders often have
    dots in their names for other reasons (`part-0.snappy.parquet`), so for a file that was found
    in a folder, which is what `from_folder` says, the folder's name comes first.
    """
    for candidate in (name, *folders):
        if candidate in known:
            return candidate
    folder = next((folder for folder in folders if "=" not in folder), "")
    if "." in folder and (from_folder or "." not in name):
        return folder
    return name
