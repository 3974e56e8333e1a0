"""Aliases and checksums of a feature group that can't be, refused with field and reason."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from kirana.catalog.directory import DirectoryCatalog
from kirana.errors import CatalogError
from kirana.serving.checks import checks_of
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
    lines = "".join(f"  - {feature}\n" for feature in features)
    folder.mkdir(exist_ok=True)
    (folder / "catalog.yaml").write_text(f"{HEAD}{options}features:\n{lines}")
    return DirectoryCatalog(folder, checks_of())


def refused(catalog: DirectoryCatalog) -> list[tuple[str, str]]:
    """Paths and messages of what is refused; nothing of it goes live."""
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
    ids=["a name", "a later name", "its own", "twice", "another's alias", "swapped"],
)
@pytest.mark.parametrize("published", [True, False], ids=["after a version", "at once"])
def test_an_alias_that_is_in_use_is_refused(
    tmp_path: Path, features: list[str], path: str, name: str, published: bool
) -> None:
    if published:
        write(tmp_path / "shop", [A, B]).publish()
    found = refused(write(tmp_path / "shop", features))
    assert found[0][0] == path
    assert f"'{name}'" in found[0][1]


@pytest.mark.parametrize("alias", ["1st", "a.b", "a b", "", "x" * 49])
def test_an_alias_that_is_no_name_is_refused(tmp_path: Path, alias: str) -> None:
    catalog = write(tmp_path / "shop", [f"{{name: b, dtype: int32, aliases: ['{alias}']}}"])
    ((path, message),) = refused(catalog)
    assert path == "features[0].aliases[0]"
    assert "is not a valid name" in message


@pytest.mark.parametrize(
    ("old", "new", "was"),
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
def test_another_dtype_or_shape_is_refused_under_an_alias_too(
    tmp_path: Path, old: str, new: str, was: str, name: str
) -> None:
    write(tmp_path / "shop", [B, f"{{name: a, dtype: {old}}}"]).publish()
    aliases = ", aliases: [a]" if name == "renamed" else ""
    changed = write(tmp_path / "shop", [f"{{name: {name}, dtype: {new}{aliases}}}", B])
    ((path, message),) = refused(changed)
    assert path == "features[0]"
    assert f"'a' was {was} in schema version 1" in message
    assert "needs another name" in message


def test_another_dtype_is_refused_of_any_older_version(tmp_path: Path) -> None:
    write(tmp_path / "shop", ["{name: a, dtype: string}", B]).publish()
    write(tmp_path / "shop", [B]).publish()
    changed = write(tmp_path / "shop", [B, "{name: c, dtype: int32, aliases: [a]}"])
    ((path, message),) = refused(changed)
    assert (path, "'a' was string in schema version 1" in message) == ("features[1]", True)


def test_a_feature_that_was_two_in_one_version_is_refused(tmp_path: Path) -> None:
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


# checksums


def test_a_checksum_is_the_groups_choice_and_makes_no_schema_version(tmp_path: Path) -> None:
    plain = write(tmp_path / "shop", [A])
    assert plain.publish().revision.number == 1
    assert write(tmp_path / "shop", [A], options="checksum: crc32\n").publish().revision.number == 2
    assert write(tmp_path / "shop", [A], options="checksum: none\n").publish().revision.number == 3
    found = [plain.load(nth(plain, number)).groups["product.stats"] for number in (1, 2, 3)]
    assert [group.checksum for group in found] == [False, True, False]
    assert [len(group.versions) for group in found] == [1, 1, 1]


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("checksum: md5\n", "crc32"),
        ("checksum: true\n", "crc32"),
        ("codec: text\nchecksum: crc32\n", "the codec 'text' has no checksum"),
    ],
)
def test_a_checksum_that_can_not_be_is_refused(tmp_path: Path, options: str, reason: str) -> None:
    ((path, message),) = refused(write(tmp_path / "shop", [A], options=options))
    assert path == "checksum"
    assert reason in message


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
        ([A, "{name: c, dtype: int32}"], "features[0].name", "another feature"),
        ([A], "features[0].name", "'a' was renamed to 'b' in schema version 2"),
        (
            [B[:-1] + ", default: 1}", "{name: c, dtype: int32, aliases: [a]}"],
            "features[0].aliases",
            "'b' was called 'a'",
        ),
    ],
    ids=["forgotten", "renamed again", "a new feature", "in its place", "given to another"],
)
def test_a_name_that_was_left_is_neither_forgotten_nor_used_again(
    tmp_path: Path, features: list[str], path: str, message: str
) -> None:
    write(tmp_path / "shop", [A]).publish()
    write(tmp_path / "shop", [RENAMED]).publish()
    found = refused(write(tmp_path / "shop", features))
    assert found[0][0] == path
    assert message in found[0][1]


def test_a_feature_can_get_its_old_name_back_or_be_removed(tmp_path: Path) -> None:
    for features in (
        [A],
        [RENAMED],
        ["{name: a, dtype: int32, aliases: [b]}"],
        ["{name: x, dtype: int32}"],
    ):
        write(tmp_path / "shop", features).publish()
