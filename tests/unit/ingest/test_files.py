"""The files that are loaded, and their groups, given by the name of the file or its folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.errors import InvalidInput
from kirana.ingest.files import files_of


def create(*paths: Path) -> None:
    """Create empty files, and their folders."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_a_file_name_gives_the_group(tmp_path: Path) -> None:
    path = tmp_path / "product.stats.parquet"
    create(path)
    assert files_of([path], None) == [("product.stats", path)]


@pytest.mark.parametrize(
    "name",
    [
        "part-0.parquet",
        "part-00000-5c2b-c000.snappy.parquet",
        "2024.01.02.parquet",
    ],
)
def test_a_folder_name_gives_the_group_of_its_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / "product.stats" / name
    create(path)
    assert files_of([tmp_path], None) == [("product.stats", path)]
    assert files_of([path.parent], None) == [("product.stats", path)]


def test_a_folder_may_contain_files_and_folders(tmp_path: Path) -> None:
    stats, profile = tmp_path / "product.stats" / "a.parquet", tmp_path / "user.profile.parquet"
    create(stats, profile, tmp_path / "README.md", tmp_path / "product.stats" / "_SUCCESS")
    assert files_of([tmp_path], None) == [("product.stats", stats), ("user.profile", profile)]


def test_an_explicit_group_applies_to_all_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.parquet", tmp_path / "b.c.parquet"
    create(first, second)
    assert files_of([first, second], "product.stats") == [
        ("product.stats", first),
        ("product.stats", second),
    ]


def test_a_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="no file"):
        files_of([tmp_path / "nowhere.parquet"], None)
    with pytest.raises(InvalidInput, match=r"no \*\.parquet"):
        files_of([tmp_path], None)
