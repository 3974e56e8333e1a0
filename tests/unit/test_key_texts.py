"""Key texts: the canonical text of an entity's keys."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.errors import InvalidInput, TooLarge
from kirana.key_texts import MAX_KEY_BYTES, check_lengths, id_texts, join_ids, key_texts
from kirana.key_texts import split_key_text as split
from kirana.schema import Entity, Key

pytestmark = pytest.mark.usefixtures("inner_loops")

USER = Entity("user", (Key("user_id"),))
CATEGORY = Entity("category", (Key("category_id", "int64"),))
USER_CATEGORY = Entity("user_category", (Key("user_id"), Key("category_id", "int64")))
PAIR = Entity("pair", (Key("left"), Key("right")))

RANGES = {
    "int32": (-(2**31), 2**31 - 1),
    "int64": (-(2**63), 2**63 - 1),
    "uint32": (0, 2**32 - 1),
    "uint64": (0, 2**64 - 1),
}
ids = st.text(alphabet=st.sampled_from("ab|\\é🛒:\0 ") | st.characters(codec="utf-8"), max_size=12)


@given(st.lists(ids, min_size=1, max_size=4))
def test_splitting_a_key_text_returns_the_joined_ids(parts: list[str]) -> None:
    (text,) = join_ids([[part] for part in parts])
    assert split(text) == parts


@given(st.lists(st.tuples(ids, ids), min_size=2, max_size=6, unique=True))
def test_different_ids_have_different_key_texts(pairs: list[tuple[str, str]]) -> None:
    lefts, rights = zip(*pairs, strict=True)
    assert len(set(join_ids([lefts, rights]))) == len(pairs)


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        (["7"], "7"),
        (["7", "12"], "7|12"),
        (["a|b"], "a\\|b"),
        (["a\\b"], "a\\\\b"),
        (["a\\", "|b"], "a\\\\|\\|b"),
        (["", ""], "|"),
    ],
)
def test_separators_are_escaped_with_a_backslash(parts: Sequence[str], text: str) -> None:
    assert join_ids([[part] for part in parts]) == [text]
    assert split(text) == parts


def test_an_integer_and_its_text_are_the_same_key() -> None:
    assert key_texts(USER, {"user_id": [7, "7"]}) == ["7", "7"]
    assert key_texts(CATEGORY, {"category_id": [7, "7", -3, "-3"]}) == ["7", "7", "-3", "-3"]


def test_a_string_key_keeps_its_spelling() -> None:
    spelled = ["007", " 7", "7.0", "+7", "é", "🛒"]
    assert key_texts(USER, {"user_id": spelled}) == spelled


@pytest.mark.parametrize("dtype", RANGES)
def test_integer_keys_accept_the_whole_range_of_their_dtype(dtype: str) -> None:
    low, high = RANGES[dtype]
    key = Key("k", dtype)
    assert id_texts(key, [low, str(high)], field="k") == [str(low), str(high)]
    for beyond in (low - 1, high + 1, str(low - 1), str(high + 1)):
        with pytest.raises(InvalidInput, match=dtype) as caught:
            id_texts(key, [low, beyond], field="k")
        assert caught.value.field == "k[1]"


@pytest.mark.parametrize(
    "text", ["", "x", "1.0", "1e3", "0x10", "1_000", " 7", "7\n", "--1", "\u0667"]
)
def test_an_integer_key_must_be_a_plain_decimal(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        key_texts(CATEGORY, {"category_id": [1, text]})
    assert caught.value.field == "keys.category_id[1]"


@pytest.mark.parametrize("text", ["007", "-0", "+7"])
def test_an_integer_key_text_has_no_plus_sign_or_leading_zeros(text: str) -> None:
    assert key_texts(CATEGORY, {"category_id": text}) == [str(int(text))]


@pytest.mark.parametrize("entity", [USER, CATEGORY])
def test_an_integer_of_400_digits_is_refused(entity: Entity) -> None:
    with pytest.raises(InvalidInput):
        key_texts(entity, {entity.keys[0].name: [10**400]})


@pytest.mark.parametrize("wrong", [True, 1.0, None, b"7", ["7"], {"a": 1}])
@pytest.mark.parametrize("entity", [USER, CATEGORY])
def test_an_id_that_is_neither_a_string_nor_an_integer_is_refused(
    entity: Entity, wrong: object
) -> None:
    name = entity.keys[0].name
    with pytest.raises(InvalidInput, match="string or an integer") as caught:
        key_texts(entity, {name: ["1", wrong]})
    assert caught.value.field == f"keys.{name}[1]"


def test_an_empty_id_is_refused() -> None:
    with pytest.raises(InvalidInput, match="empty") as caught:
        key_texts(USER, {"user_id": ["1", ""]})
    assert caught.value.field == "keys.user_id[1]"


def test_lists_of_the_same_length_are_zipped() -> None:
    keys = {"category_id": [1, 2], "user_id": ["a", "b"]}
    assert key_texts(USER_CATEGORY, keys) == ["a|1", "b|2"]


def test_a_single_id_is_repeated_in_each_row() -> None:
    assert key_texts(USER_CATEGORY, {"user_id": "a", "category_id": [1, 2]}) == ["a|1", "a|2"]
    assert key_texts(USER_CATEGORY, {"user_id": ["a", "b"], "category_id": 3}) == ["a|3", "b|3"]


def test_single_ids_make_one_row() -> None:
    assert key_texts(USER_CATEGORY, {"user_id": 7, "category_id": "8"}) == ["7|8"]


def test_an_empty_list_makes_no_rows() -> None:
    assert key_texts(USER_CATEGORY, {"user_id": "a", "category_id": []}) == []


@pytest.mark.parametrize("shorter", [[], [1], [1, 2]])
def test_lists_of_different_lengths_are_refused(shorter: list[int]) -> None:
    with pytest.raises(InvalidInput, match="the same length") as caught:
        key_texts(USER_CATEGORY, {"user_id": ["a", "b", "c"], "category_id": shorter})
    assert caught.value.field == "keys.category_id"


def test_a_missing_key_is_named() -> None:
    with pytest.raises(InvalidInput, match="needs the key") as caught:
        key_texts(USER_CATEGORY, {"user_id": "a"})
    assert caught.value.field == "keys.category_id"


def test_an_unknown_key_is_named() -> None:
    with pytest.raises(InvalidInput, match="no key 'product_id'") as caught:
        key_texts(USER, {"user_id": "a", "product_id": "b"}, field="context")
    assert caught.value.field == "context.product_id"


@pytest.mark.parametrize("char", ["a", "é", "🛒"])
def test_the_length_limit_counts_utf8_bytes(char: str) -> None:
    fits = char * (MAX_KEY_BYTES // len(char.encode()))
    assert key_texts(USER, {"user_id": fits}) == [fits]
    with pytest.raises(TooLarge, match=str(MAX_KEY_BYTES)) as caught:
        key_texts(USER, {"user_id": ["a", fits + char]})
    assert caught.value.field == "keys.user_id[1]"


def test_escapes_and_separators_count_towards_the_length() -> None:
    half = MAX_KEY_BYTES // 2
    with pytest.raises(TooLarge):
        key_texts(USER, {"user_id": "|" * (half + 1)})
    with pytest.raises(TooLarge):
        key_texts(PAIR, {"left": "a" * half, "right": "b" * half})


@pytest.mark.parametrize("name", ["left", "right"])
def test_a_lone_surrogate_is_refused_with_the_name_of_its_key(name: str) -> None:
    with pytest.raises(InvalidInput, match="Unicode") as caught:
        key_texts(PAIR, {"left": ["a", "b"], "right": ["c", "d"], name: ["e", "\ud800"]})
    assert caught.value.field == f"keys.{name}[1]"


def test_an_empty_list_of_key_texts_passes_the_length_check() -> None:
    check_lengths([], field="keys")


def test_numpy_strings_become_plain_strings() -> None:
    key = Key("id", "string")
    for ids in (["a", "b"], ["a|", "b"], ["é", "b"]):
        texts = id_texts(key, list(np.array(ids)), field="keys.id")
        assert texts == ids
        assert set(map(type, texts)) == {str}
