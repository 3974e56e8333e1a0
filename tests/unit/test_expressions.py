"""Expressions: results that agree with Python's, types of variables, and refused syntax."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kirana.errors import InvalidInput
from kirana.expressions import MAX_LENGTH, Expression, Kind
from kirana.expressions.syntax import MAX_OPERATIONS

VARIABLES = {"a": 1.5, "b": -2.0, "c": 0.25}

numbers = st.floats(0, 1e6).map(repr) | st.integers(0, 1000).map(str)


def combine(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    binary = st.tuples(inner, st.sampled_from("+-*/%"), inner).map(" ".join)
    power = inner.map(lambda text: f"({text}) ** 2")
    return binary.map("({})".format) | power | inner.map("-{}".format) | inner.map("abs({})".format)


arithmetic = st.recursive(numbers | st.sampled_from(list(VARIABLES)), combine, max_leaves=12)


@given(arithmetic)
def test_arithmetic_agrees_with_python_floats(text: str) -> None:
    try:
        expected = eval(text, {"abs": abs}, VARIABLES)
    except (ZeroDivisionError, OverflowError):
        with suppress(InvalidInput):
            assert not np.isfinite(Expression(text)(VARIABLES))
        return
    result = Expression(text)(VARIABLES)
    assert np.shape(result) == ()
    assert result == pytest.approx(expected, rel=1e-9, abs=1e-300, nan_ok=True)


@given(arithmetic, st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5))
def test_a_column_has_the_same_results_as_its_cells(text: str, column: list[float]) -> None:
    expression = Expression(text)
    cells = []
    for value in column:
        try:
            cells.append(float(expression({**VARIABLES, "a": value})))
        except InvalidInput:
            return
    try:
        result = expression({**VARIABLES, "a": np.array(column)})
    except InvalidInput:
        return
    np.testing.assert_allclose(np.broadcast_to(result, len(column)), cells, rtol=1e-9, atol=1e-300)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1 + 2 * 3", 7.0),
        ("7 % 4", 3.0),
        ("2 ** -1", 0.5),
        ("-2 ** 2", -4.0),
        ("+a", 1.5),
        ("  a  ", 1.5),
        ("a < 2", True),
        ("a == 1.5", True),
        ("a != 1.5", False),
        ("a >= 2", False),
        ("not a > 2", True),
        ("a > 1 and b > 1", False),
        ("a > 1 or b > 1", True),
        ("a > 1 and b < 1 and c < 1", True),
        ("True and not False", True),
        ("'x' == 'x'", True),
        ("clip(5, 0, 1)", 1.0),
        ("exp(0) + log(1) + log1p(0) + sqrt(4)", 3.0),
        ("max(a, b) - min(a, b)", 3.5),
        ("sigmoid(0)", 0.5),
        ("where(a > b, a, b)", 1.5),
        ("abs(b)", 2.0),
    ],
)
def test_operators_and_functions_compute_their_values(text: str, expected: object) -> None:
    assert Expression(text)(VARIABLES) == expected


def test_integer_columns_are_computed_as_floats() -> None:
    clicks = np.array([1, 2**31 - 1], dtype=np.int32)
    assert Expression("clicks * 2")({"clicks": clicks}).tolist() == [2.0, 2.0**32 - 2]
    assert Expression("clicks ** -1")({"clicks": clicks[:1]}).tolist() == [1.0]


def test_and_or_not_work_on_columns() -> None:
    columns = {"a": np.array([0.0, 1.0, 2.0]), "b": np.array([1.0, 0.0, 2.0])}
    assert Expression("a and b")(columns).tolist() == [False, False, True]
    assert Expression("a > 0 or b > 0")(columns).tolist() == [True, True, True]
    assert Expression("not a")(columns).tolist() == [True, False, False]
    assert Expression("a > 0 and not b > 0")(columns).tolist() == [False, True, False]
    assert Expression("where(a > b, 1, 0 - 1)")(columns).tolist() == [-1.0, 1.0, -1.0]


def test_division_by_zero_in_a_column_is_not_an_error() -> None:
    columns = {"a": np.array([1.0, 0.0, -1.0]), "b": np.zeros(3)}
    result = Expression("a / b")(columns).tolist()
    assert (result[0], math.isnan(result[1]), result[2]) == (math.inf, True, -math.inf)
    assert Expression("log(b)")(columns).tolist() == [-math.inf] * 3


@pytest.mark.parametrize("items", [[], ["x"], ["x", "y"]])
def test_the_size_of_a_list_is_its_length(items: list[str]) -> None:
    assert Expression("size(recent) < 2")({"recent": items}) == (len(items) < 2)


def test_names_are_the_variables_without_the_functions() -> None:
    assert Expression("max(a, 2) + where(b > c, d, e)").names == set("abcde")
    assert Expression("1 + 1").names == frozenset()


@pytest.mark.parametrize("text", ["a", " a ", "(a)"])
def test_a_lone_variable_returns_its_value(text: str) -> None:
    expression, column = Expression(text), np.arange(3)
    assert expression.names == {"a"}
    assert expression({"a": column}) is column
    alone = expression({"a": 3, "b": 4})
    assert (alone, type(alone)) == (3.0, float)
    with pytest.raises(InvalidInput, match="needs a value for 'a'"):
        expression({"b": 3})


def test_an_unknown_variable_is_named() -> None:
    expression = Expression("p_click + p_ordr")
    expression.require({"p_click": 1, "p_ordr": 2})
    with pytest.raises(InvalidInput, match=r"unknown name 'p_ordr': did you mean 'p_order'\?"):
        expression.require(frozenset({"p_click", "p_order"}))


FORBIDDEN = [
    "a.real",
    "a.__class__.__mro__",
    "''.join",
    "'{0.__class__}'.format(a)",
    "().__class__",
    "a[0]",
    "a[:]",
    "print(1)",
    "eval('1')",
    "__import__('os')",
    "getattr(a, 'b')",
    "abs.__call__(1)",
    "abs(1)(2)",
    "(abs)(1)(2)",
    "lambda: 1",
    "lambda a: a",
    "[a for a in b]",
    "{a for a in b}",
    "{a: 1 for a in b}",
    "max(a for a in b)",
    "[a]",
    "(a, b)",
    "{1}",
    "{}",
    "a if b else c",
    "(a := 1)",
    "f'{a}'",
    "f'{a.__class__}'",
    "await a",
    "*a",
    "max(*a)",
    "abs(x=1)",
    "abs(**a)",
    "a in b",
    "a is b",
    "1 < a < 2",
    "a // b",
    "a @ b",
    "a << 2",
    "a & b",
    "a | b",
    "a ^ b",
    "~a",
    "None",
    "...",
    "1j",
    "b'x'",
    "",
    "   ",
    "#",
    "a b",
    "a;b",
    "a = 1",
    "import os",
    "yield a",
    "a +",
    "(a",
    "'a",
    "a\0b",
    "a\n+ b",
    "\\",
    "\ud800",
    "'\\d'",
]


@pytest.mark.parametrize("text", FORBIDDEN, ids=ascii)
def test_any_other_syntax_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Expression(text)


@pytest.mark.parametrize("text", ["a +", "a.b", "a + print(1)"])
def test_spaces_before_an_expression_do_not_move_the_column_of_an_error(text: str) -> None:
    with pytest.raises(InvalidInput, match=r"column \d+") as expected:
        Expression(text)
    with pytest.raises(InvalidInput) as caught:
        Expression(f"  {text}")
    assert caught.value.message == expected.value.message


@pytest.mark.parametrize("name", ["_and", "_or", "_not", "__builtins__"])
def test_internal_names_cannot_be_used(name: str) -> None:
    with pytest.raises(InvalidInput):
        Expression(f"{name}(a, b)")
    with pytest.raises(InvalidInput):
        Expression(name)({})


@pytest.mark.parametrize("name", ["abs", "size"])
def test_a_function_is_not_a_value(name: str) -> None:
    with pytest.raises(InvalidInput):
        Expression(name)({})


def test_a_missing_variable_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nowhere"):
        Expression("nowhere + 1")({})


@pytest.mark.parametrize(
    "text",
    ["abs()", "abs(1, 2)", "max(1)", "max(1, 2, 3)", "where(1)", "clip(1)", "size()", "log(1, 2)"],
)
def test_a_wrong_number_of_arguments_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        Expression(text)({})


@pytest.mark.parametrize("text", ["max(7, 8, a)", "sqrt(4, a)", "clip(9, 3, 4, a)", "abs(7, a)"])
def test_an_expression_never_writes_into_a_column(text: str) -> None:
    column = np.ones(3)
    with suppress(InvalidInput):
        Expression(text)({"a": column})
    assert column.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("text", "variables"),
    [
        ("1 / 0", {}),
        ("1 % 0", {}),
        ("0 ** -1", {}),
        ("10 ** 10 ** 10", {}),
        ("a + 1", {"a": None}),
        ("a + 1", {"a": "x"}),
        ("a + 1", {"a": {}}),
        ("a < 1", {"a": "x"}),
        ("exp(a)", {"a": object()}),
        ("a + b", {"a": np.ones(2), "b": np.ones(3)}),
        ("-a", {"a": "x"}),
        ("abs('x')", {}),
        ("'a' * 100", {}),
        ("a + 1", {"a": 10**400}),
    ],
)
def test_values_that_cannot_be_computed_are_refused(text: str, variables: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Expression(text)(variables)


@pytest.mark.parametrize("text", ["'%s' % a", "'%99d' % 1", "'%(x)s' % a", "'a' + 'b'", "'a' * a"])
def test_text_can_only_be_compared(text: str) -> None:
    with pytest.raises(InvalidInput):
        Expression(text)({"a": 3})


def test_a_power_is_never_a_complex_number() -> None:
    with np.errstate(all="ignore"):
        try:
            result = Expression("a ** 0.5")({"a": -8.0})
        except InvalidInput:
            return
    assert not np.iscomplexobj(result)


def test_powers_of_an_integer_variable_are_computed_as_floats() -> None:
    # 7 ** 7 ** 7 overflows only as a float.
    with pytest.raises(InvalidInput):
        Expression("a ** a ** a")({"a": 7})


HUGE: list[Callable[[], str]] = [
    lambda: "a" * (MAX_LENGTH + 1),
    lambda: "9" * 1_999,
    lambda: "9" * 400,
    lambda: "0x" + "f" * 1_900,
    lambda: "(" * 900 + "a" + ")" * 900,
    lambda: "(" * 1_999,
    lambda: "-" * 1_999 + "a",
    lambda: "-" * 1_900 + "1",
    lambda: "+".join("a" * 1_000),
    lambda: "a**" * 600 + "a",
    lambda: "not " * 490 + "a",
    lambda: "abs(" * 390 + "a" + ")" * 390,
    lambda: "[" * 1_000,
    lambda: "abs(" * 499,
]


@pytest.mark.parametrize("make", HUGE, ids=range(len(HUGE)))
def test_huge_and_deep_expressions_are_parsed_or_refused(make: Callable[[], str]) -> None:
    with suppress(InvalidInput):
        Expression(make())({"a": 1.0})


@given(st.text(alphabet="ab01.()+-*/%<>=!,'\"_ [{}]:\\nofrt", max_size=30) | st.text(max_size=20))
def test_any_text_is_parsed_or_refused(text: str) -> None:
    try:
        expression = Expression(text)
    except InvalidInput:
        return
    with suppress(InvalidInput):
        expression(dict.fromkeys(expression.names, 1.0))


# Ids and text


@pytest.mark.parametrize("sent", [7, "7"])
def test_an_id_compares_the_same_as_a_number_and_as_text(sent: object) -> None:
    for text in ("user_id == 7", 'user_id == "7"', "7 == user_id", "user_id != 8"):
        assert Expression(text).holds({"user_id": sent})
    for text in ("user_id == 8", 'user_id == "07"', 'user_id != "7"', 'user_id == "7.0"'):
        assert not Expression(text).holds({"user_id": sent})


def test_an_id_is_compared_exactly() -> None:
    large = 2**53 + 1
    assert Expression(f"user_id == {large}").holds({"user_id": str(large)})
    assert not Expression(f"user_id == {large}").holds({"user_id": str(large - 1)})
    assert not Expression("a == b").holds({"a": large, "b": str(large - 1)})


def test_text_is_compared_with_text() -> None:
    assert Expression("city == 'pune'").holds({"city": "pune"})
    assert not Expression("city == 'pune'").holds({"city": None})
    assert Expression("city != 'pune'").holds({"city": ["pune"]})
    assert not Expression("flag == 'True'").holds({"flag": True})


@pytest.mark.parametrize("text", ["a % 2", "a + 1", "-a", "a < 1", "max(a, 1)", "1 - a > 0"])
@pytest.mark.parametrize("value", ["7", "%99999999d", [7], None, {}])
def test_operators_refuse_values_that_are_not_numbers(text: str, value: object) -> None:
    with pytest.raises(InvalidInput, match="'a' must be a number") as caught:
        Expression(text)({"a": value})
    assert caught.value.field == "a"


GOLDEN = [
    ("7", "split", 100, 54),
    ("7", "other", 100, 22),
    ("é", "split", 100, 74),
    ("", "split", 10, 6),
    ("user-405", "", 2**31, 382_455_769),
    ("9007199254740993", "split", 1000, 569),
]
"""Ids, salts and numbers of buckets, each with the bucket that docs/catalog.md defines."""


@pytest.mark.parametrize(("id_", "salt", "buckets", "expected"), GOLDEN)
def test_hash_returns_the_documented_buckets(
    id_: str, salt: str, buckets: int, expected: int
) -> None:
    expression = Expression(f'hash(user_id, "{salt}", {buckets})')
    assert expression({"user_id": id_}) == expected
    if id_.isdecimal():
        assert expression({"user_id": int(id_)}) == expected


@pytest.mark.parametrize(
    ("sent", "expected"),
    [("7", 7), (7, 7), ("-7", -7), ("007", 7), (str(2**53), 2**53), (-(2**53), -(2**53))],
)
def test_number_parses_an_integer(sent: object, expected: int) -> None:
    assert Expression("number(user_id)")({"user_id": sent}) == expected
    assert Expression("number(user_id) % 2 == 1").holds({"user_id": sent}) == bool(expected % 2)


@pytest.mark.parametrize(
    "sent",
    ["", "x", "1.5", "1e3", "+7", " 7", "7_0", "٣", str(2**53 + 1), "9" * 400, True, 1.5, None],
)
def test_number_refuses_any_other_id(sent: object) -> None:
    with pytest.raises(InvalidInput):
        Expression("number(user_id)")({"user_id": sent})


@pytest.mark.parametrize("text", ["number(user_id)", 'hash(user_id, "s", 2)'])
def test_an_overlong_id_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="the id has 100000 bytes, the limit is 1024"):
        Expression(text)({"user_id": "7" * 100_000})


@pytest.mark.parametrize(
    "text",
    [
        "hash(a, b, 100)",
        "hash(a, 7, 100)",
        'hash(a, "s", b)',
        'hash(a, "s", 0)',
        'hash(a, "s", 1.5)',
        'hash(a, "s", 2147483649)',
        'hash(a + 1, "s", 2)',
        "number(1 + 1)",
        'number("7")',
        'size("x")',
    ],
)
def test_arguments_are_checked_when_the_expression_is_parsed(text: str) -> None:
    with pytest.raises(InvalidInput, match="column"):
        Expression(text)


def test_a_feature_cannot_be_used_as_a_variable() -> None:
    with pytest.raises(InvalidInput, match="features can't be used in an expression"):
        Expression("product.stats.ctr > 1")


def test_the_cost_of_an_expression_is_bounded() -> None:
    Expression("+".join("a" * (MAX_OPERATIONS // 2)))
    with pytest.raises(InvalidInput, match=f"at most {MAX_OPERATIONS} operations"):
        Expression("+".join("a" * (MAX_OPERATIONS // 2 + 1)))


# Kinds


KINDS = {"n": Kind.NUMBER, "id": Kind.TEXT, "node": Kind.ITEMS}


@pytest.mark.parametrize(
    "text",
    [
        "n + 1 > 2",
        "n == 1",
        "id == 7",
        "id == 'x' and n < 3",
        "size(node) < 5",
        "node and not n",
        "unknown == 1",
        "number(id) % 2 == 1",
        'hash(id, "s", 100) < 50',
        'hash(unknown, "s", 100) < 50',
        "where(id == 7, n, 0) > 1",
    ],
)
def test_variables_used_by_their_kind_are_accepted(text: str) -> None:
    Expression(text).require_kinds(KINDS)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("id % 2 == 1", "'id' is text, not a number: convert an id with number(id)"),
        ("id < 5", "'id' is text"),
        ("where(n > 1, id, 0) == 1", "'id' is text"),
        ("unknown + 1 > 2", "the type of 'unknown' is not declared"),
        ("unknown < 5", "context: {unknown: number}"),
        ("node > 3", "'node' is a node, not a number: size(node)"),
        ("node == 3", "compare size(node)"),
        ('hash(n, "s", 2) == 1', "'n' is already a number"),
        ("size(n) > 1", "it has no size"),
        ("id", "'id' is text, which is neither true nor false"),
        ("not id", "'id' is text, which is neither true nor false"),
        ("where(id, 1, 0) > 0", "'id' is text, which is neither true nor false"),
        ("unknown and n > 1", "the type of 'unknown' is not declared"),
    ],
)
def test_a_variable_used_against_its_kind_is_refused_with_a_hint(text: str, reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Expression(text).require_kinds(KINDS)
    assert reason in caught.value.message


@pytest.mark.parametrize("text", ["n == 5", "n != 5", "n", "not n", "n > 1 or n == 5"])
@pytest.mark.parametrize("sent", ["5", "05", "abc", [5], None, {}])
def test_a_declared_number_must_be_a_number(text: str, sent: object) -> None:
    expression = Expression(text)
    expression.require_kinds(KINDS)
    with pytest.raises(InvalidInput, match="'n' must be a number") as caught:
        expression({"n": sent})
    assert caught.value.field == "n"
    assert expression({"n": True}) in (True, False, 1.0)


@pytest.mark.parametrize("sent", [[7], None, {}, 7.5, True])
def test_declared_text_must_be_text_or_an_id(sent: object) -> None:
    expression = Expression("id == 7")
    expression.require_kinds(KINDS)
    with pytest.raises(InvalidInput, match="'id' must be text"):
        expression({"id": sent})


def test_a_negative_id_is_compared_exactly() -> None:
    large = -(10**16) - 1
    assert Expression(f"id == {large}").holds({"id": str(large)})
    assert not Expression(f"id == {large}").holds({"id": str(large + 1)})


@pytest.mark.parametrize("base", ["size(a)", "(b + b)", "(True + True)"])
def test_powers_of_integers_are_computed_in_bounded_time(base: str) -> None:
    variables = {"a": "x" * 200, "b": True}
    with suppress(InvalidInput):
        Expression(f"{base} ** {base} ** {base} ** {base} > 1")(variables)
