"""Keys of rows in the databases."""

from __future__ import annotations

import pytest

from kirana.stores import RowKeys
from kirana.stores.row_keys import decoded_keys, row_keys, split_by_group, walked_rows

pytestmark = pytest.mark.usefixtures("inner_loops")


@pytest.mark.parametrize(
    "keys",
    [[], [""], ["1"], ["1", "2"], ["a\0b", "1"], ["\0", "\0\0"], ["é", "a:b", "7|8"]],
    ids=repr,
)
def test_a_row_key_consists_of_prefix_group_and_key_text(keys: list[str]) -> None:
    assert row_keys(RowKeys("product.one", keys)) == [
        f"f:product.one:{key}".encode() for key in keys
    ]


def test_row_keys_are_split_into_group_and_key_text() -> None:
    keys = [b"f:product.one:7|a:b", b"f:product.two:", b"f:product.\xff", b"f:product.one:gone"]
    texts = decoded_keys(keys)
    assert len(texts) == 3
    rows = walked_rows(texts, [b"1", b"2", None])
    assert rows == [("product.one", "7|a:b", b"1"), ("product.two", "", b"2")]


def test_values_are_split_by_group() -> None:
    groups = [RowKeys("a.b", ["1", "2"]), RowKeys("a.c", []), RowKeys("a.d", ["3"])]
    assert split_by_group([b"1", None, b"3"], groups) == [[b"1", None], [], [b"3"]]
