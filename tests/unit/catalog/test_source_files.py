"""Changes that are sent as objects rewrite the YAML source files object by object."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from kirana.catalog.source_files import _check_objects, rewrite
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


def rewritten_shop(
    folder: Path, put: dict[tuple[str, str], dict[str, object]], *deleted: str
) -> str:
    """Return `shop.yaml` as a change rewrites it. Assert that the change rewrites no other file."""
    files = rewrite(SourceFiles(folder), put, [("event_type", name) for name in deleted])
    content = files.pop(folder / "shop.yaml")
    assert files == {}
    assert content is not None
    return content.decode()


def test_an_object_is_replaced_and_all_other_text_stays(folder: Path) -> None:
    text = rewritten_shop(folder, {("event_type", "click"): {"keep": 7}})
    assert text == TEXT.replace("keep: 50", "keep: 7")


def test_an_object_in_the_middle_is_removed_with_its_separator(folder: Path) -> None:
    text = rewritten_shop(folder, {}, "click")
    assert [document["name"] for document in yaml.safe_load_all(text) if document] == [
        "user",
        "order",
    ]
    assert "# a person" in text


def test_the_last_object_is_removed(folder: Path) -> None:
    text = rewritten_shop(folder, {}, "order")
    assert text == TEXT.partition("---\nkind: event_type\nname: order")[0]


def test_the_first_object_is_removed(folder: Path) -> None:
    files = rewrite(SourceFiles(folder), {}, [("entity", "user")])
    content = files[folder / "shop.yaml"]
    assert content is not None
    assert [document["name"] for document in yaml.safe_load_all(content) if document] == [
        "click",
        "order",
    ]


def test_a_new_object_gets_its_own_file(folder: Path) -> None:
    files = rewrite(SourceFiles(folder), {("event_type", "cart"): {"keep": 3}}, [])
    expected = b"kind: event_type\nname: cart\nkeep: 3\n"
    assert files == {folder / "event_type.cart.yaml": expected}


def test_a_file_without_remaining_objects_is_removed(folder: Path) -> None:
    (folder / "one.yaml").write_text("---\nkind: event_type\nname: cart\n")
    assert rewrite(SourceFiles(folder), {}, [("event_type", "cart")]) == {folder / "one.yaml": None}


def test_an_empty_change_rewrites_no_file(folder: Path) -> None:
    assert rewrite(SourceFiles(folder), {}, []) == {}


def rewritten_cart(
    folder: Path, put: dict[tuple[str, str], dict[str, object]], *deleted: str
) -> str:
    """Return `event_type.cart.yaml` as a change rewrites it."""
    files = rewrite(SourceFiles(folder), put, [("event_type", name) for name in deleted])
    content = files[folder / "event_type.cart.yaml"]
    assert content is not None
    return content.decode()


CART = {("event_type", "cart"): {"keep": 3}}
NEW = "kind: event_type\nname: cart\nkeep: 3\n"


def test_a_new_object_does_not_restore_an_object_deleted_from_its_file(folder: Path) -> None:
    (folder / "event_type.cart.yaml").write_text("kind: event_type\nname: old\n")
    assert rewritten_cart(folder, CART, "old") == NEW


def test_a_new_object_is_appended_to_the_objects_left_in_its_file(folder: Path) -> None:
    text = "kind: event_type\nname: old\n---\nkind: event_type\nname: other\n"
    (folder / "event_type.cart.yaml").write_text(text)
    assert rewritten_cart(folder, CART, "old") == f"kind: event_type\nname: other\n---\n{NEW}"


def test_a_missing_final_newline_is_added_before_a_new_object(folder: Path) -> None:
    (folder / "event_type.cart.yaml").write_text("kind: event_type\nname: other")
    assert rewritten_cart(folder, CART) == f"kind: event_type\nname: other\n---\n{NEW}"


def test_an_object_on_its_separator_line_is_replaced_below_it(folder: Path) -> None:
    (folder / "event_type.cart.yaml").write_text("--- {kind: event_type, name: cart}\n")
    assert rewritten_cart(folder, CART) == f"--- \n{NEW}"


@pytest.mark.parametrize(
    "new",
    [
        pytest.param("kind: event_type\nname: cart\nkeep: 3\n", id="another object is missing"),
        pytest.param("kind: event_type\nname: other\n", id="the put object is missing"),
        pytest.param(
            f"kind: event_type\nname: other\n---\n{NEW}---\n{NEW[:-2]}4\n",
            id="the put object is there twice",
        ),
        pytest.param("kind: event_type\nname: other\n" + NEW, id="no separator"),
    ],
)
def test_a_rewritten_text_with_the_wrong_objects_is_refused(tmp_path: Path, new: str) -> None:
    old = "kind: event_type\nname: other\n"
    with pytest.raises(CatalogError):
        _check_objects(tmp_path / "a.yaml", old, new, CART, set())
    _check_objects(tmp_path / "a.yaml", old, f"{old}---\n{NEW}", CART, set())
