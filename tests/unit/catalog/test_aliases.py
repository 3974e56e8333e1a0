"""Aliases and checksums of a feature group: allowed changes, and the errors of refused ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import CatalogError
from kirana.serving.checks import catalog_checks
from tests.support import nth

HEAD = """kind: entity
name: product
keys: [{name: product_id}]
---
kind: feature_group
name: product.stats
"""
A = "{name: a, dtype: int32}"
B = "{name: b, dtype: int32}"


def write(folder: Path, features: Sequence[str], *, options: str = "") -> DirectoryCatalog:
    """Write a catalog with these features of `product.stats`, without publishing it."""
    lines = "".join(f"  - {feature}\n" for feature in features)
    folder.mkdir(exist_ok=True)
    (folder / "catalog.yaml").write_text(f"{HEAD}{options}features:\n{lines}")
    return DirectoryCatalog(folder, catalog_checks())


def refused(catalog: DirectoryCatalog) -> list[tuple[str, str]]:
    """Publish a catalog that must be refused. Return the path and message of each problem.

    Assert also that nothing was published and no schema version was written.
    """
    live = catalog.current()
    with pytest.raises(CatalogError) as caught:
        catalog.publish()
    assert catalog.current() == live
    if live.number:
        assert len(catalog.load(live).groups["product.stats"].versions) == live.number
    versions = catalog.folder / "versions" / "product.stats"
    assert len([*versions.glob("*.yaml")]) == live.number
    assert {problem.file.rpartition("/")[2] for problem in caught.value.problems} == {
        "catalog.yaml"
    }
    assert all(problem.line > 0 for problem in caught.value.problems)
    return [(problem.path, problem.message) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("features", "path", "name"),
    [
        ([A, "{name: c, dtype: int32, aliases: [a]}"], "features[1].aliases[0]", "a"),
        (["{name: c, dtype: int32, aliases: [x, a]}", A], "features[0].aliases[1]", "a"),
        (["{name: c, dtype: int32, aliases: [c]}"], "features[0].aliases[0]", "c"),
        (["{name: c, dtype: int32, aliases: [x, x]}"], "features[0].aliases[1]", "x"),
        (
            ["{name: c, dtype: int32, aliases: [x]}", "{name: d, dtype: int32, aliases: [x]}"],
            "features[1].aliases[0]",
            "x",
        ),
        (
            ["{name: b, dtype: int32, aliases: [a]}", "{name: a, dtype: int32, aliases: [b]}"],
            "features[0].aliases[0]",
            "a",
        ),
    ],
    ids=[
        "earlier feature",
        "later feature",
        "its own name",
        "twice",
        "alias of another feature",
        "swapped names",
    ],
)
@pytest.mark.parametrize("published", [True, False], ids=["published before", "first publish"])
def test_an_alias_that_is_in_use_is_refused(
    tmp_path: Path, features: list[str], path: str, name: str, published: bool
) -> None:
    if published:
        write(tmp_path / "shop", [A, B]).publish()
    problems = refused(write(tmp_path / "shop", features))
    assert problems[0][0] == path
    assert f"'{name}'" in problems[0][1]


@pytest.mark.parametrize("alias", ["1st", "a.b", "a b", "", "x" * 49])
def test_an_alias_that_is_not_a_valid_name_is_refused(tmp_path: Path, alias: str) -> None:
    catalog = write(tmp_path / "shop", [f"{{name: b, dtype: int32, aliases: ['{alias}']}}"])
    ((path, message),) = refused(catalog)
    assert path == "features[0].aliases[0]"
    assert "is not a valid name" in message


@pytest.mark.parametrize(
    ("old", "new", "old_type"),
    [
        ("int32", "int64", "int32"),
        ("int32", "float32", "int32"),
        ("string", "int32", "string"),
        ("float32", "float32, shape: [1]", "float32"),
        ("float32, shape: [4]", "float32, shape: [2, 2]", "float32[4]"),
        ("float32, shape: [4]", "float32", "float32[4]"),
    ],
)
@pytest.mark.parametrize("name", ["a", "renamed"])
def test_a_changed_dtype_or_shape_is_refused_even_under_an_alias(
    tmp_path: Path, old: str, new: str, old_type: str, name: str
) -> None:
    write(tmp_path / "shop", [B, f"{{name: a, dtype: {old}}}"]).publish()
    aliases = ", aliases: [a]" if name == "renamed" else ""
    changed = write(tmp_path / "shop", [f"{{name: {name}, dtype: {new}{aliases}}}", B])
    ((path, message),) = refused(changed)
    assert path == "features[0]"
    assert f"'a' was {old_type} in schema version 1" in message
    assert "needs another name" in message


def test_a_dtype_is_compared_with_every_older_schema_version(tmp_path: Path) -> None:
    write(tmp_path / "shop", ["{name: a, dtype: string}", B]).publish()
    write(tmp_path / "shop", [B]).publish()
    changed = write(tmp_path / "shop", [B, "{name: c, dtype: int32, aliases: [a]}"])
    ((path, message),) = refused(changed)
    assert (path, "'a' was string in schema version 1" in message) == ("features[1]", True)


def test_one_feature_can_not_replace_two_features_of_one_version(tmp_path: Path) -> None:
    write(tmp_path / "shop", [A, B]).publish()
    for feature in (
        "{name: b, dtype: int32, aliases: [a]}",
        "{name: c, dtype: int32, aliases: [a, b]}",
    ):
        ((path, message),) = refused(write(tmp_path / "shop", [feature]))
        assert path == "features[0].aliases"
        assert "schema version 1" in message
        assert "'a'" in message
        assert "'b'" in message


# Checksums


def test_a_changed_checksum_makes_a_revision_but_no_schema_version(tmp_path: Path) -> None:
    catalog = write(tmp_path / "shop", [A])
    assert catalog.publish().revision.number == 1
    assert write(tmp_path / "shop", [A], options="checksum: crc32\n").publish().revision.number == 2
    assert write(tmp_path / "shop", [A], options="checksum: none\n").publish().revision.number == 3
    groups = [catalog.load(nth(catalog, number)).groups["product.stats"] for number in (1, 2, 3)]
    assert [group.checksum for group in groups] == [False, True, False]
    assert [len(group.versions) for group in groups] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("checksum: md5\n", "crc32"),
        ("checksum: true\n", "crc32"),
        ("codec: text\nchecksum: crc32\n", "the codec 'text' has no checksum"),
    ],
)
def test_an_unsupported_checksum_is_refused(tmp_path: Path, options: str, reason: str) -> None:
    ((path, message),) = refused(write(tmp_path / "shop", [A], options=options))
    assert path == "checksum"
    assert reason in message


# Renamed features


RENAMED = "{name: b, dtype: int32, aliases: [a]}"


@pytest.mark.parametrize(
    ("features", "path", "message"),
    [
        ([B], "features[0].aliases", "'b' was called 'a' before schema version 2"),
        (
            ["{name: c, dtype: int32, aliases: [b]}"],
            "features[0].aliases",
            "'c' was called 'a' before schema version 2",
        ),
        ([A, "{name: c, dtype: int32}"], "features[0].name", "give the new feature another name"),
        ([A], "features[0].name", "'a' was renamed to 'b' in schema version 2"),
        (
            [B[:-1] + ", default: 1}", "{name: c, dtype: int32, aliases: [a]}"],
            "features[0].aliases",
            "'b' was called 'a'",
        ),
    ],
    ids=[
        "dropped",
        "dropped by a second rename",
        "reused beside a new feature",
        "reused alone",
        "moved to another feature",
    ],
)
def test_an_old_name_must_stay_an_alias_and_can_not_be_reused(
    tmp_path: Path, features: list[str], path: str, message: str
) -> None:
    write(tmp_path / "shop", [A]).publish()
    write(tmp_path / "shop", [RENAMED]).publish()
    problems = refused(write(tmp_path / "shop", features))
    assert problems[0][0] == path
    assert message in problems[0][1]


def test_a_renamed_feature_may_get_its_old_name_back_or_be_removed(tmp_path: Path) -> None:
    for features in (
        [A],
        [RENAMED],
        ["{name: a, dtype: int32, aliases: [b]}"],
        ["{name: x, dtype: int32}"],
    ):
        write(tmp_path / "shop", features).publish()
