"""`kirana.native.keys`, compared with the Python code for the same purpose."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana import native
from kirana.native import keys
from kirana.redis.commands import mget_command
from kirana.stores import RowKeys
from kirana.stores.row_keys import row_keys

TEXTS = st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=30), max_size=20)


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=10), TEXTS)
def test_row_keys_are_the_prefix_and_the_text_in_utf8(prefix: str, texts: list[str]) -> None:
    assert keys.row_keys(prefix, texts) == [(prefix + text).encode() for text in texts]


@given(TEXTS)
def test_python_builds_the_same_keys(texts: list[str]) -> None:
    compiled = row_keys(RowKeys("a.b", texts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "COMPILED", False)
        assert row_keys(RowKeys("a.b", texts)) == compiled


@given(st.lists(st.tuples(st.sampled_from(["", "f:a.b:", "é"]), TEXTS), max_size=4))
def test_python_builds_the_same_command(groups: list[tuple[str, list[str]]]) -> None:
    compiled = mget_command(groups)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native, "COMPILED", False)
        assert mget_command(groups) == compiled


def test_values_that_are_not_text_are_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        keys.row_keys("f:", ["a", "\ud800"])
    with pytest.raises(TypeError):
        keys.row_keys("f:", ["a", None])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        keys.mget_command([("f:", ["a", b"b"])])  # type: ignore[list-item]
    with pytest.raises(TypeError):
        keys.mget_command([("f:", ("a",))])  # type: ignore[list-item]


def test_an_error_leaves_no_references_behind() -> None:
    text = "x" * 50
    before = sys.getrefcount(text)
    for _ in range(100):
        with pytest.raises(TypeError):
            keys.row_keys("f:", [text, None])  # type: ignore[list-item]
    assert sys.getrefcount(text) == before


@given(st.lists(st.text(max_size=6) | st.integers() | st.sampled_from(["a|b", "\\", "", "\0"])))
def test_short_ascii_texts_without_special_characters_need_no_escape(texts: list[object]) -> None:
    def needs_no_escape(text: object) -> bool:
        if not isinstance(text, str) or not 1 <= len(text) <= 5 or not text.isascii():
            return False
        return not set(text) & {"|", "\\", "\0"}

    assert keys.need_no_escape(texts, 5) == all(map(needs_no_escape, texts))


@given(st.lists(st.text(max_size=2), max_size=200))
def test_surely_distinct_reports_whether_all_texts_differ(texts: list[str]) -> None:
    assert keys.surely_distinct(texts) == (len(set(texts)) == len(texts))
