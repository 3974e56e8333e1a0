"""What is wrong with a message, and where: names and places, from the types of its struct.

msgspec refuses JSON quickly, and says why as a text. Only then a message is looked through here.
Bounds and choices stand at the fields (`msgspec.Meta`, `Literal`): `/openapi.json` has them too.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from kirana.errors import FieldPath, InvalidInput, TooLarge, did_you_mean


def refusal(message: type[msgspec.Struct], plain: Any, otherwise: str) -> InvalidInput:
    """Return the first error of a body that `message` refused, as decoded without a type.

    `otherwise` is said where nothing is found.
    """
    kind = _type_of(message)
    wrong = next(_wrong_types(kind, plain, ()), None)
    return wrong or next(_out_of_bounds(kind, plain, ()), InvalidInput(otherwise))


def check_bounds(message: msgspec.Struct) -> None:
    """Raise `InvalidInput` for the first field out of bounds, where no decoder has looked."""
    for name, field, kind in _bounded_fields(type(message)):
        value = getattr(message, field)
        if value is not msgspec.UNSET:
            for error in _out_of_bounds(kind, value, (name,)):
                raise error


@cache
def _type_of(message: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(message)


@cache
def _bounded_fields(message: type[msgspec.Struct]) -> list[tuple[str, str, inspect.Type]]:
    kind = _type_of(message)
    assert isinstance(kind, inspect.StructType)
    return [
        (each.encode_name, each.name, each.type) for each in kind.fields if _is_bounded(each.type)
    ]


def _is_bounded(kind: inspect.Type) -> bool:
    """Whether something at or below a type has bounds."""
    match kind:
        case inspect.Metadata(type=inner):
            return _is_bounded(inner)
        case inspect.UnionType(types=types):
            return any(_is_bounded(each) for each in types)
        case inspect.ListType(item_type=item, min_length=least, max_length=most):
            return least is not None or most is not None or _is_bounded(item)
        case inspect.DictType(value_type=value):
            return _is_bounded(value)
        case inspect.StructType(fields=fields):
            return any(_is_bounded(each.type) for each in fields)
        case inspect.IntType(ge=least, le=most):
            return least is not None or most is not None
        case inspect.LiteralType():
            return True
    return False


def _out_of_bounds(kind: inspect.Type, value: Any, path: FieldPath) -> Iterator[InvalidInput]:
    """Give what is out of bounds in a value whose types are known to be right."""
    match kind:
        case inspect.Metadata(type=inner):
            yield from _out_of_bounds(inner, value, path)
        case inspect.UnionType():
            for each in kind.types:
                if _is_of(each, value):
                    yield from _out_of_bounds(each, value, path)
        case inspect.ListType(item_type=item):
            yield from _wrong_length(kind, value, path)
            if _is_bounded(item):
                for at, each in enumerate(value):
                    yield from _out_of_bounds(item, each, (*path, at))
        case inspect.DictType(value_type=inner):
            for name, each in value.items():
                yield from _out_of_bounds(inner, each, (*path, name))
        case inspect.StructType(fields=fields):
            for field in fields:
                name = field.encode_name
                if name in value:
                    yield from _out_of_bounds(field.type, value[name], (*path, name))
        case inspect.IntType():
            yield from _out_of_range(kind, value, path)
        case inspect.LiteralType(values=values) if value not in values:
            yield _no_choice(value, values, path)


def _wrong_length(kind: inspect.ListType, value: Any, path: FieldPath) -> Iterator[InvalidInput]:
    if kind.min_length is not None and len(value) < kind.min_length:
        yield InvalidInput("the list is empty: name at least one", field=path)
    if kind.max_length is not None and len(value) > kind.max_length:
        yield TooLarge(f"{len(value)} entries, the limit is {kind.max_length}", field=path)


def _out_of_range(kind: inspect.IntType, value: int, path: FieldPath) -> Iterator[InvalidInput]:
    low, high = kind.ge, kind.le
    if low is not None and high is not None and not low <= value <= high:
        yield InvalidInput(f"{value} is not between {low} and {high}", field=path)
    elif low is not None and value < low:
        yield InvalidInput(f"{value} is less than {low}", field=path)
    elif high is not None and value > high:
        yield InvalidInput(f"{value} is more than {high}", field=path)


def _no_choice(value: Any, values: Any, path: FieldPath) -> InvalidInput:
    shown = f"'{str(value)[:60]}'"
    return InvalidInput(f"{shown} is not a choice: {did_you_mean(str(value), values)}", field=path)


def _wrong_types(kind: inspect.Type, value: Any, path: FieldPath) -> Iterator[InvalidInput]:
    """Give what is of a wrong type, unknown or missing, in the order in which it stands."""
    match kind:
        case inspect.Metadata(type=inner):
            yield from _wrong_types(inner, value, path)
            return
        case inspect.UnionType():
            fitting = [each for each in kind.types if _is_of(each, value)]
            for each in fitting[:1]:
                yield from _wrong_types(each, value, path)
            if not fitting:
                yield _wrong_type(kind, value, path)
            return
    if not _is_of(kind, value):
        yield _wrong_type(kind, value, path)
        return
    match kind:
        case inspect.StructType():
            yield from _wrong_fields(kind, value, path)
        case inspect.ListType(item_type=item):
            for at, each in enumerate(value):
                yield from _wrong_types(item, each, (*path, at))
        case inspect.DictType(value_type=inner):
            for name, each in value.items():
                yield from _wrong_types(inner, each, (*path, name))
        case inspect.FloatType() if abs(value) > sys.float_info.max:
            yield InvalidInput("the number is too large", field=path)


def _wrong_fields(
    kind: inspect.StructType, value: dict[str, Any], path: FieldPath
) -> Iterator[InvalidInput]:
    fields = {each.encode_name: each for each in kind.fields}
    for name, each in value.items():
        if name not in fields:
            reason = f"unknown field '{name}': {did_you_mean(name, fields)}"
            yield InvalidInput(reason, field=(*path, name))
        else:
            yield from _wrong_types(fields[name].type, each, (*path, name))
    for name, field in fields.items():
        if field.required and name not in value:
            yield InvalidInput(f"the field '{name}' is missing", field=(*path, name))


def _wrong_type(kind: inspect.Type, value: Any, path: FieldPath) -> InvalidInput:
    wanted = " or ".join(dict.fromkeys(_names(kind)))
    return InvalidInput(f"it must be {wanted}, not {_name_of(value)}", field=path)


_NAMED: dict[type[inspect.Type], tuple[str, Callable[[Any], bool]]] = {
    inspect.AnyType: ("anything", lambda value: True),
    inspect.NoneType: ("null", lambda value: value is None),
    inspect.BoolType: ("true or false", lambda value: isinstance(value, bool)),
    inspect.IntType: ("a whole number", lambda value: type(value) is int),
    inspect.FloatType: ("a number", lambda value: type(value) in (int, float)),
    inspect.StrType: ("a string", lambda value: isinstance(value, str)),
    inspect.LiteralType: ("a string", lambda value: isinstance(value, str)),
    inspect.ListType: ("a list", lambda value: isinstance(value, list)),
    inspect.DictType: ("an object", lambda value: isinstance(value, dict)),
    inspect.StructType: ("an object", lambda value: isinstance(value, dict)),
}
"""What a type is called, and whether a plain value is of it."""


def _is_of(kind: inspect.Type, value: Any) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _is_of(kind.type, value)
    return _NAMED[type(kind)][1](value)


def _names(kind: inspect.Type) -> Iterator[str]:
    match kind:
        case inspect.Metadata(type=inner):
            yield from _names(inner)
        case inspect.UnionType(types=types):
            for each in types:
                yield from _names(each)
        case _:
            yield _NAMED[type(kind)][0]


def _name_of(value: Any) -> str:
    """Say what a plain value is."""
    for kind in (
        inspect.NoneType,
        inspect.BoolType,
        inspect.IntType,
        inspect.FloatType,
        inspect.StrType,
        inspect.ListType,
    ):
        name, is_of = _NAMED[kind]
        if is_of(value):
            return name
    return "an object"
