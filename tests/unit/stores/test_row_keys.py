"""The flat keys of rows, in stores that have such keys."""

from __future__ import annotations

import pytest

from kirana.stores import RowKeys
from kirana.stores.row_keys import readable, row_keys, shared_out, walked_rows

pytestmark = pytest.mark.usefixtures("inmost_loops")


@pytest.mark.parametrize(
    "keys",
    [[], [""], ["1"], ["1", "2"], ["a\0b", "1"], ["\0", "\0\0"], ["é", "a:b", "7|8"]],
    ids=repr,
)
def test_a_key_of_a_store_is_prefix_group_and_text(keys: list[str]) -> None:
    assert row_keys(RowKeys("product.one", keys)) == [
        f"f:product.one:{key}".encode() for key in keys
    ]


def test_rows_are_found_again_by_their_keys() -> None:
    keys = [b"f:product.one:7|a:b", b"f:product.two:", b"f:product.\xff", b"f:product.one:gone"]
    texts = readable(keys)
    assert len(texts) == 3
    rows = walked_rows(texts, [b"1", b"2", None])
    assert rows == [("product.one", "7|a:b", b"1"), ("product.two", "", b"2")]


def test_values_are_shared_out_to_their_groups() -> None:
    wanted = [RowKeys("a.b", ["1", "2"]), RowKeys("a.c", []), RowKeys("a.d", ["3"])]
    assert shared_out([b"1", None, b"3"], wanted) == [[b"1", None], [], [b"3"]]
