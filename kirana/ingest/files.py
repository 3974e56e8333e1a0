"""Which files are loaded, and what their paths say: the format, the group, partition columns."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote

from kirana.errors import InvalidInput
from kirana.storage.files import StoredFile, stored_files
from kirana.urls import without_password

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
) -> tuple[list[SourceFile], list[str]]:
    """Return the files at paths and URLs, and the names of files in folders that were left out.

    A folder stands for all files in it whose names end like those of `FORMATS`.

    If `group` is given, all files belong to it. Otherwise the name of the file without its end
    counts, or that of its nearest folder, whichever is in `known` or begins with the entity of a
    known group and a dot, as in `product.stats`. Without one, the nearest folder that is no
    partition counts if it has a dot, otherwise the name of the file. A file that several locations
    hold is returned once.

    Raise `InvalidInput` if a path does not exist, or if a folder has no such file, and
    `Unavailable` if the storage does not answer.
    """
    entities = {name.partition(".")[0] for name in known}

    def names_group(name: str) -> bool:
        entity, dot, _ = name.partition(".")
        return name in known or (bool(dot) and entity in entities)

    sources: dict[str, SourceFile] = {}
    ignored: list[str] = []
    for location in locations:
        files, is_folder = stored_files(location)
        if is_folder:
            ignored += [file.name for file in files if not _is_data(file)]
            files = [*filter(_is_data, files)]
            if not files:
                raise InvalidInput(
                    f"{without_password(location)} has no data file: none ends with "
                    f".{', .'.join(FORMATS)}"
                )
        for file in files:
            sources[file.name] = _source(file, group, names_group, from_folder=is_folder)
    return [*sources.values()], ignored


def _is_data(file: StoredFile) -> bool:
    return bool(_NAME.fullmatch(PurePosixPath(file.path).name))


def _source(
    file: StoredFile, group: str | None, names_group: Callable[[str], bool], *, from_folder: bool
) -> SourceFile:
    path = PurePosixPath(file.path)
    match = _NAME.fullmatch(path.name)
    format_ = FORMATS[match[2].lower()] if match else "parquet"
    name = match[1] if match else path.stem
    folders = [folder.name for folder in path.parents if folder.name]
    if group is None:
        group = _group_name(name, folders, names_group, from_folder=from_folder)
    partitions: dict[str, str | None] = {}
    for folder in folders:
        if folder == group:
            break
        column, equals, value = folder.partition("=")
        if equals and column:
            partitions.setdefault(column, None if value == NO_VALUE else unquote(value))
    return SourceFile(file, format_, group, partitions)


def _group_name(
    name: str, folders: Sequence[str], names_group: Callable[[str], bool], *, from_folder: bool
) -> str:
    """Return the name of the group of a file with this name in these folders, innermost first.

    If none names a group, one with a dot is taken for it. Files in folders often have dots in their
    names for other reasons (`part-0.snappy.parquet`), so for a file that was found in a folder,
    which is what `from_folder` says, the folder's name comes first.
    """
    if found := next(filter(names_group, (name, *folders)), None):
        return found
    folder = next((folder for folder in folders if "=" not in folder), "")
    if "." in folder and (from_folder or "." not in name):
        return folder
    return name
