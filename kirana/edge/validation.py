"""What is wrong with a message, and where: names and indexes, from the types of its struct.

msgspec refuses JSON quickly, and says why as a text. Only then a message is looked through here.
Bounds and choices are declared on the fields (`msgspec.Meta`, `Literal`): `/openapi.json` has them
too.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import msgspec
from msgspec import inspect

from kirana.errors import FieldPath, InvalidInput, TooLarge, did_you_mean

Check = Callable[[Any, FieldPath], None]
"""Raises `InvalidInput` for a value, at a path, that is out of bounds."""


def refusal(message: type[msgspec.Struct], plain: Any, body: bytes) -> InvalidInput:
    """Return the first error of a body that `message` refused; `plain` is what it decodes to.

    A wrong type comes before what is out of bounds.
    """
    kind = _type_of(message)
    for wrong in _wrong_types(kind, plain, ()):
        return wrong
    try:
        _checks_of(message)(plain, ())
    except InvalidInput as error:
        return error
    return _given_twice(body)


def check_bounds(message: msgspec.Struct) -> None:
    """Raise `InvalidInput` for the first field out of bounds, where no decoder has looked."""
    _checks_of(type(message))(message, ())


@cache
def _type_of(message: type[msgspec.Struct]) -> inspect.Type:
    return inspect.type_info(message)


@cache
def _checks_of(message: type[msgspec.Struct]) -> Check:
    return _check_of(_type_of(message)) or _no_bounds


def _no_bounds(value: Any, path: FieldPath) -> None:
    pass


def _check_of(kind: inspect.Type) -> Check | None:
    """Return what checks the bounds at and below a type; None where there are none."""
    match kind:
        case inspect.Metadata(type=inner):
            return _check_of(inner)
        case inspect.UnionType(types=types):
            return _check_of_union(types)
        case inspect.ListType():
            return _check_of_list(kind)
        case inspect.DictType(value_type=inner):
            return _check_of_dict(_check_of(inner))
        case inspect.StructType(fields=fields):
            return _check_of_struct(fields)
        case inspect.IntType() | inspect.FloatType():
            return _check_of_number(kind)
        case inspect.LiteralType(values=choices):
            return _check_of_choice(choices)
        case inspect.StrType(min_length=None, max_length=None, pattern=None):
            return None
        case inspect.AnyType() | inspect.BoolType() | inspect.NoneType():
            return None
    raise TypeError(f"messages can't have a field of {kind} yet: teach it to {__name__}")


def _check_of_union(types: tuple[inspect.Type, ...]) -> Check | None:
    checks = [(each, check) for each in types if (check := _check_of(each)) is not None]
    if not checks:
        return None

    def check_union(value: Any, path: FieldPath) -> None:
        for each, check in checks:
            if _is_of(each, value):
                check(value, path)

    return check_union


def _check_of_list(kind: inspect.ListType) -> Check | None:
    least, most, item = kind.min_length, kind.max_length, _check_of(kind.item_type)
    if least is None and most is None and item is None:
        return None

    def check_list(value: Any, path: FieldPath) -> None:
        if least is not None and len(value) < least:
            raise InvalidInput("the list is empty: name at least one", field=path)
        if most is not None and len(value) > most:
            raise TooLarge(f"{len(value)} entries, the limit is {most}", field=path)
        if item is not None:
            for at, each in enumerate(value):
                item(each, (*path, at))

    return check_list


def _check_of_dict(inner: Check | None) -> Check | None:
    if inner is None:
        return None

    def check_dict(value: Any, path: FieldPath) -> None:
        for name, each in value.items():
            inner(each, (*path, name))

    return check_dict


def _check_of_struct(fields: tuple[inspect.Field, ...]) -> Check | None:
    checks = [
        (each.name, each.encode_name, check)
        for each in fields
        if (check := _check_of(each.type)) is not None
    ]
    if not checks:
        return None

    def check_struct(value: Any, path: FieldPath) -> None:
        plain = isinstance(value, dict)
        for attribute, name, check in checks:
            field = value.get(name, msgspec.UNSET) if plain else getattr(value, attribute)
            if field is not msgspec.UNSET:
                check(field, (*path, name))

    return check_struct


def _check_of_number(kind: inspect.IntType | inspect.FloatType) -> Check | None:
    low, high = kind.ge, kind.le
    if low is None and high is None:
        return None

    def check_number(value: Any, path: FieldPath) -> None:
        if (low is None or value >= low) and (high is None or value <= high):
            return
        if low is not None and high is not None:
            reason = f"is not between {low} and {high}"
        else:
            reason = f"is less than {low}" if low is not None else f"is more than {high}"
        raise InvalidInput(f"{value} {reason}", field=path)

    return check_number


def _check_of_choice(choices: tuple[Any, ...]) -> Check:
    def check_choice(value: Any, path: FieldPath) -> None:
        if value not in choices:
            hint = did_you_mean(str(value), map(str, choices))
            raise InvalidInput(f"'{str(value)[:60]}' is not a choice: {hint}", field=path)

    return check_choice


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
    inspect.StructType: ("an object", lambda value: isinstance(value, dict | msgspec.Struct)),
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


class _Pairs(dict[str, Any]):
    """An object of JSON that knows which of its names was given first a second time."""

    twice: str | None = None


def _given_twice(body: bytes) -> InvalidInput:
    """Say which name is given twice: its first value was refused, its last one is right."""

    def collect(pairs: list[tuple[str, Any]]) -> _Pairs:
        made = _Pairs()
        for name, value in pairs:
            if name in made and made.twice is None:
                made.twice = name
            made[name] = value
        return made

    path = _path_to_twice(json.loads(body, object_pairs_hook=collect), ())
    return InvalidInput(f"'{path[-1]}' is given twice" if path else "it is refused", field=path)


def _path_to_twice(value: Any, path: FieldPath) -> FieldPath:
    if isinstance(value, _Pairs):
        if value.twice is not None:
            return (*path, value.twice)
        inside: Iterator[tuple[str | int, Any]] = iter(value.items())
    elif isinstance(value, list):
        inside = enumerate(value)
    else:
        return ()
    for step, each in inside:
        found = _path_to_twice(each, (*path, step))
        if found:
            return found
    return ()
