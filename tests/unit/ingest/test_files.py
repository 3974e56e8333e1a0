"""Which files are loaded, and their formats, groups and partition columns."""

from __future__ import annotations

from pathlib import Path

import pytest

from kirana.errors import InvalidInput
from kirana.ingest.files import SourceFile, source_files

STATS, PROFILE = "product.stats", "user.profile"
KNOWN = (STATS, PROFILE)


def create(*paths: Path) -> None:
    """Create empty files, and their folders."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def found(*locations: Path, group: str | None = None) -> list[SourceFile]:
    files, _ = source_files([*map(str, locations)], group, KNOWN)
    return files


def groups(*locations: Path, group: str | None = None) -> list[tuple[str, str]]:
    return [(file.group, file.stored.name) for file in found(*locations, group=group)]


def test_a_file_name_gives_the_group(tmp_path: Path) -> None:
    path = tmp_path / "product.stats.parquet"
    create(path)
    assert groups(path) == [(STATS, str(path))]


@pytest.mark.parametrize(
    "name",
    [
        "part-0.parquet",
        "part-00000-5c2b-c000.snappy.parquet",
        "2024.01.02.parquet",
    ],
)
def test_a_folder_name_gives_the_group_of_its_files(tmp_path: Path, name: str) -> None:
    path = tmp_path / STATS / name
    create(path)
    assert groups(tmp_path) == groups(path.parent) == [(STATS, str(path))]


def test_the_nearest_folder_that_names_a_group_counts(tmp_path: Path) -> None:
    path = tmp_path / PROFILE / STATS / "dt=2026-11-28" / "daily" / "part-0.parquet"
    create(path)
    assert groups(tmp_path) == groups(path) == [(STATS, str(path))]


@pytest.mark.parametrize("name", ["product.unknown.parquet", "product.unknown/part-0.parquet"])
def test_a_name_with_a_dot_is_taken_for_an_unknown_group(tmp_path: Path, name: str) -> None:
    create(tmp_path / name)
    assert [group for group, _ in groups(tmp_path)] == ["product.unknown"]


def test_a_folder_may_contain_files_and_folders(tmp_path: Path) -> None:
    stats, profile = tmp_path / STATS / "a.parquet", tmp_path / "user.profile.parquet"
    create(stats, profile, tmp_path / "README.md")
    assert groups(tmp_path) == [(STATS, str(stats)), (PROFILE, str(profile))]


def test_files_that_are_not_data_are_left_out(tmp_path: Path) -> None:
    folder = tmp_path / "_work" / STATS
    path = folder / "a.parquet"
    create(path, folder / "_SUCCESS", folder / ".a.parquet", folder / "_temporary" / "b.parquet")
    assert groups(folder) == [(STATS, str(path))]


def test_a_partition_may_begin_with_an_underscore(tmp_path: Path) -> None:
    path = tmp_path / STATS / "_day=3" / "a.parquet"
    create(path)
    (file,) = found(tmp_path)
    assert file.partitions == {"_day": "3"}


def test_other_files_of_a_folder_are_named(tmp_path: Path) -> None:
    others = [tmp_path / STATS / name for name in ("a.csv.snappy", "b.txt")]
    create(tmp_path / STATS / "a.parquet", *others)
    files, ignored = source_files([str(tmp_path)], None, KNOWN)
    assert len(files) == 1
    assert ignored == [*map(str, others)]


def test_a_file_that_is_given_twice_is_loaded_once(tmp_path: Path) -> None:
    path = tmp_path / STATS / "a.parquet"
    create(path)
    assert groups(tmp_path, path.parent, path) == [(STATS, str(path))]


@pytest.mark.parametrize(
    "path", ["user.profile/product.statz/a.parquet", "product.stats/product.statz/a.parquet"]
)
def test_a_misspelt_folder_does_not_belong_to_a_group_around_it(tmp_path: Path, path: str) -> None:
    create(tmp_path / path)
    assert [group for group, _ in groups(tmp_path)] == ["product.statz"]


def test_an_explicit_group_applies_to_all_files(tmp_path: Path) -> None:
    first, second = tmp_path / "a.parquet", tmp_path / "b.c.parquet"
    create(first, second)
    assert groups(first, second, group=STATS) == [(STATS, str(first)), (STATS, str(second))]


@pytest.mark.parametrize(
    ("name", "format_"),
    [
        ("product.stats.parquet", "parquet"),
        ("product.stats.pq", "parquet"),
        ("product.stats.csv", "csv"),
        ("product.stats.CSV.gz", "csv"),
        ("product.stats.arrow", "arrow"),
        ("product.stats.feather", "arrow"),
        ("product.stats.data", "parquet"),
    ],
)
def test_the_end_of_a_name_gives_the_format(tmp_path: Path, name: str, format_: str) -> None:
    create(tmp_path / name)
    (file,) = found(tmp_path / name)
    assert (file.group, file.format) == (STATS, format_)


def test_folders_of_a_partitioned_table_are_columns(tmp_path: Path) -> None:
    folder = tmp_path / "year=1999" / STATS / "dt=2026-11-28" / "city=New%20Delhi"
    create(folder / "empty=__HIVE_DEFAULT_PARTITION__" / "part-0.parquet")
    (file,) = found(tmp_path)
    assert file.partitions == {"dt": "2026-11-28", "city": "New Delhi", "empty": None}


def test_a_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match=r"there is no file .*nowhere\.parquet"):
        found(tmp_path / "nowhere.parquet")
    with pytest.raises(InvalidInput, match=r"has no data file: none ends with \.parquet, "):
        found(tmp_path)
    with pytest.raises(InvalidInput, match="neither a path nor a URL with file:// or s3://"):
        source_files(["gs://bucket/product.stats"], None, KNOWN)


def test_a_file_url_is_a_path(tmp_path: Path) -> None:
    create(tmp_path / "product.stats.parquet")
    ((file,), _) = source_files([f"file://{tmp_path}"], None, KNOWN)
    assert file.stored.is_local
    assert file.group == STATS
