"""Source files are rewritten object by object, and say afterwards what was published."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kirana.catalog.source_files import _require_right, rewrite
from kirana.catalog.sources import SourceFiles
from kirana.errors import CatalogError

TEXT = """# the shop
kind: entity
name: user  # a person
keys: [{name: user_id}]
---
# clicks of people
kind: event_type
name: click
keep: 50
# not yet: ttl
---
kind: event_type
name: order
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "shop.yaml").write_text(TEXT)
    return tmp_path


def _one(folder: Path, put: dict[tuple[str, str], dict[str, object]], *deleted: str) -> str:
    files = rewrite(SourceFiles(folder), put, [("event_type", name) for name in deleted])
    content = files.pop(folder / "shop.yaml")
    assert files == {}
    assert content is not None
    return content.decode()


def test_an_object_is_replaced_and_all_other_text_stays(folder: Path) -> None:
    text = _one(folder, {("event_type", "click"): {"keep": 7}})
    assert text == TEXT.replace("keep: 50", "keep: 7")


def test_an_object_in_the_middle_is_removed_with_its_line_of_dashes(folder: Path) -> None:
    text = _one(folder, {}, "click")
    assert [each["name"] for each in yaml.safe_load_all(text) if each] == ["user", "order"]
    assert "# a person" in text


def test_the_last_object_is_removed(folder: Path) -> None:
    text = _one(folder, {}, "order")
    assert text == TEXT.partition("---\nkind: event_type\nname: order")[0]


def test_the_first_object_is_removed(folder: Path) -> None:
    files = rewrite(SourceFiles(folder), {}, [("entity", "user")])
    content = files[folder / "shop.yaml"]
    assert content is not None
    assert [each["name"] for each in yaml.safe_load_all(content) if each] == ["click", "order"]


def test_a_new_object_gets_a_file_of_its_own(folder: Path) -> None:
    files = rewrite(SourceFiles(folder), {("event_type", "cart"): {"keep": 3}}, [])
    expected = b"kind: event_type\nname: cart\nkeep: 3\n"
    assert files == {folder / "event_type.cart.yaml": expected}


def test_a_file_that_holds_no_object_more_goes(folder: Path) -> None:
    (folder / "one.yaml").write_text("---\nkind: event_type\nname: cart\n")
    assert rewrite(SourceFiles(folder), {}, [("event_type", "cart")]) == {folder / "one.yaml": None}


def test_what_does_not_change_is_not_written(folder: Path) -> None:
    assert rewrite(SourceFiles(folder), {}, []) == {}


def rewritten(folder: Path, put: dict[tuple[str, str], dict[str, object]], *deleted: str) -> str:
    """Return the file of 'cart' after a change."""
    files = rewrite(SourceFiles(folder), put, [("event_type", name) for name in deleted])
    content = files[folder / "event_type.cart.yaml"]
    assert content is not None
    return content.decode()


CART = {("event_type", "cart"): {"keep": 3}}
NEW = "kind: event_type\nname: cart\nkeep: 3\n"


def test_a_new_object_does_not_bring_back_one_that_is_deleted_from_its_file(folder: Path) -> None:
    (folder / "event_type.cart.yaml").write_text("kind: event_type\nname: old\n")
    assert rewritten(folder, CART, "old") == NEW


def test_a_new_object_follows_what_a_deletion_leaves_in_its_file(folder: Path) -> None:
    text = "kind: event_type\nname: old\n---\nkind: event_type\nname: other\n"
    (folder / "event_type.cart.yaml").write_text(text)
    assert rewritten(folder, CART, "old") == f"kind: event_type\nname: other\n---\n{NEW}"


def test_a_new_object_follows_a_line_without_an_end(folder: Path) -> None:
    (folder / "event_type.cart.yaml").write_text("kind: event_type\nname: other")
    assert rewritten(folder, CART) == f"kind: event_type\nname: other\n---\n{NEW}"


def test_an_object_beside_its_dashes_is_replaced_below_them(folder: Path) -> None:
    (folder / "event_type.cart.yaml").write_text("--- {kind: event_type, name: cart}\n")
    assert rewritten(folder, CART) == f"--- \n{NEW}"


@pytest.mark.parametrize(
    "new",
    [
        pytest.param("kind: event_type\nname: cart\nkeep: 3\n", id="another object is lost"),
        pytest.param("kind: event_type\nname: other\n", id="the object that was put is missing"),
        pytest.param(f"kind: event_type\nname: other\n---\n{NEW}---\n{NEW[:-2]}4\n", id="other"),
        pytest.param("kind: event_type\nname: other\n" + NEW, id="no line of dashes"),
    ],
)
def test_a_text_that_does_not_hold_what_it_should_is_refused(tmp_path: Path, new: str) -> None:
    old = "kind: event_type\nname: other\n"
    with pytest.raises(CatalogError):
        _require_right(tmp_path / "a.yaml", old, new, CART, set())
    _require_right(tmp_path / "a.yaml", old, f"{old}---\n{NEW}", CART, set())
