"""The Parquet files of a load, and the feature group that each file belongs to."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from kirana.errors import InvalidInput


def files_of(
    paths: Sequence[Path], group: str | None, known: Collection[str] = ()
) -> list[tuple[str, Path]]:
    """Return the name of the group and the path of each file in `paths`.

    A folder stands for all `*.parquet` files in it and its subfolders. If `group` is given, all
    files belong to it. Otherwise the name of a file (without its suffix) or of its folder is the
    group: `product.stats.parquet` and all `*.parquet` in `product.stats/` belong to
    `product.stats`. A name in `known` is preferred. If both are in `known`, the file's name counts.

    Raise `InvalidInput` if a path does not exist, or if a folder has no Parquet file.
    """
    files: list[tuple[str, Path]] = []
    for path in paths:
        if path.is_dir():
            paths_inside = sorted(path.rglob("*.parquet"))
            if not paths_inside:
                raise InvalidInput(f"{path} has no *.parquet file")
            files += [
                (group or _group_name(inner_path, known, from_folder=True), inner_path)
                for inner_path in paths_inside
            ]
        elif path.is_file():
            files.append((group or _group_name(path, known, from_folder=False), path))
        else:
            raise InvalidInput(f"there is no file {path}")
    return files


def _group_name(path: Path, known: Collection[str], *, from_folder: bool) -> str:
    """Return the name of the group that a file belongs to: its own name, or that of its folder.

    `from_folder` is whether the file was found in a folder that was given. If neither name is
    known, a name with a dot is taken for that of a group. Files in folders often have dots in their
    names for other reasons (`part-0.snappy.parquet`), so for them the folder's name comes first.
    """
    file_name, folder_name = path.stem, path.parent.name
    for name in (file_name, folder_name):
        if name in known:
            return name
    if "." in folder_name and (from_folder or "." not in file_name):
        return folder_name
    return file_name
