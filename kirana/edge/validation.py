"""Errors that name the field that is wrong, found from the types of a message's fields.

msgspec checks JSON quickly, but reports an error only as text. So this module checks a body again
after msgspec has refused it. Bounds and choices are declared on the fields (`msgspec.Meta`,
`Literal`), and `/openapi.json` shows them.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import msgspec
from msgspec import inspect

from kirana.errors import FieldPath, InvalidInput, TooLarge, did_you_mean, shortened

MAX_SEARCHED_BYTES = 1 << 20
"""A repeated name is searched for only in bodies of at most this size. The search is slow."""

Check = Callable[[Any, FieldPath], None]
"""A function that raises `InvalidInput` if the value at a path is out of bounds."""


def first_error(message: type[msgspec.Struct], plain: Any, body: bytes) -> InvalidInput:
    """Return the first error in a body that msgspec refused as a `message`.

    `plain` is the body decoded without types. A field that is unknown, missing or of a wrong type
    is reported before a value out of bounds, and a name that is given twice is reported last.
    """
    kind = _type_of(message)
    for error in _wrong_types(kind, plain, ()):
        return error
    try:
        _checks_of(message)(plain, ())
    except InvalidInput as out_of_bounds:
        return out_of_bounds
    return _duplicate_name(body)


def check_bounds(message: msgspec.Struct) -> None:
    """Raise `InvalidInput` with the path of the first field that is out of bounds.

    This is for messages that msgspec did not decode, for example those from Protobuf.
    """
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
    """Return a check of all bounds in a type, or None if the type has no bounds."""
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
    raise TypeError(f"a message can't have a field of {kind}: {__name__} does not know this type")


def _check_of_union(types: tuple[inspect.Type, ...]) -> Check | None:
    checks = [(member, check) for member in types if (check := _check_of(member)) is not None]
    if not checks:
        return None

    def check_union(value: Any, path: FieldPath) -> None:
        for member, check in checks:
            if _has_type(value, member):
                check(value, path)

    return check_union


def _check_of_list(kind: inspect.ListType) -> Check | None:
    least, most, check_item = kind.min_length, kind.max_length, _check_of(kind.item_type)
    if least is None and most is None and check_item is None:
        return None

    def check_list(value: Any, path: FieldPath) -> None:
        if least is not None and len(value) < least:
            raise InvalidInput("must have at least one entry", field=path)
        if most is not None and len(value) > most:
            raise TooLarge(f"has {len(value)} entries, the limit is {most}", field=path)
        if check_item is not None:
            for index, item in enumerate(value):
                check_item(item, (*path, index))

    return check_list


def _check_of_dict(inner: Check | None) -> Check | None:
    if inner is None:
        return None

    def check_dict(value: Any, path: FieldPath) -> None:
        for name, item in value.items():
            inner(item, (*path, name))

    return check_dict


def _check_of_struct(fields: tuple[inspect.Field, ...]) -> Check | None:
    checks = [
        (field.name, field.encode_name, check)
        for field in fields
        if (check := _check_of(field.type)) is not None
    ]
    if not checks:
        return None

    def check_struct(value: Any, path: FieldPath) -> None:
        is_dict = isinstance(value, dict)
        for attribute, name, check in checks:
            item = value.get(name, msgspec.UNSET) if is_dict else getattr(value, attribute)
            if item is not msgspec.UNSET:
                check(item, (*path, name))

    return check_struct


def _check_of_number(kind: inspect.IntType | inspect.FloatType) -> Check | None:
    low, high = kind.ge, kind.le
    if low is None and high is None:
        return None

    def check_number(value: Any, path: FieldPath) -> None:
        if (low is None or value >= low) and (high is None or value <= high):
            return
        if low is not None and high is not None:
            reason = f"from {low} to {high}"
        else:
            reason = f"at least {low}" if low is not None else f"at most {high}"
        raise InvalidInput(f"must be {reason}, not {value}", field=path)

    return check_number


def _check_of_choice(choices: tuple[Any, ...]) -> Check:
    def check_choice(value: Any, path: FieldPath) -> None:
        if value not in choices:
            hint = did_you_mean(str(value), map(str, choices))
            raise InvalidInput(f"'{str(value)[:60]}' is not allowed: {hint}", field=path)

    return check_choice


def _wrong_types(kind: inspect.Type, value: Any, path: FieldPath) -> Iterator[InvalidInput]:
    """Yield an error for each value of a wrong type, and for each unknown or missing field."""
    match kind:
        case inspect.Metadata(type=inner):
            yield from _wrong_types(inner, value, path)
            return
        case inspect.UnionType():
            members = [member for member in kind.types if _has_type(value, member)]
            for member in members[:1]:
                yield from _wrong_types(member, value, path)
            if not members:
                yield _wrong_type(kind, value, path)
            return
    if not _has_type(value, kind):
        yield _wrong_type(kind, value, path)
        return
    match kind:
        case inspect.StructType():
            yield from _wrong_fields(kind, value, path)
        case inspect.ListType(item_type=inner, max_length=most):
            # A list that is too long is refused for its length. Its entries can be millions.
            for index, item in enumerate(islice(value, most)):
                yield from _wrong_types(inner, item, (*path, index))
        case inspect.DictType(value_type=inner):
            for name, item in value.items():
                yield from _wrong_types(inner, item, (*path, name))
        case inspect.FloatType() if abs(value) > sys.float_info.max:
            yield InvalidInput("the number is too large", field=path)


def _wrong_fields(
    kind: inspect.StructType, value: dict[str, Any], path: FieldPath
) -> Iterator[InvalidInput]:
    fields = {field.encode_name: field for field in kind.fields}
    for name, item in value.items():
        if name not in fields:
            reason = f"unknown field '{shortened(name)}': {did_you_mean(name, fields)}"
            yield InvalidInput(reason, field=(*path, shortened(name)))
        else:
            yield from _wrong_types(fields[name].type, item, (*path, name))
    for name, field in fields.items():
        if field.required and name not in value:
            yield InvalidInput(f"'{name}' is missing", field=(*path, name))


def _wrong_type(kind: inspect.Type, value: Any, path: FieldPath) -> InvalidInput:
    *others, last = dict.fromkeys(_names(kind))
    expected = f"{', '.join(others)} or {last}" if others else last
    return InvalidInput(f"must be {expected}, not {_type_name(value)}", field=path)


_NAMED: dict[type[inspect.Type], tuple[str, Callable[[Any], bool]]] = {
    inspect.AnyType: ("anything", lambda value: True),
    inspect.NoneType: ("null", lambda value: value is None),
    inspect.BoolType: ("true or false", lambda value: isinstance(value, bool)),
    inspect.IntType: ("an integer", lambda value: type(value) is int),
    inspect.FloatType: ("a number", lambda value: type(value) in (int, float)),
    inspect.StrType: ("a string", lambda value: isinstance(value, str)),
    inspect.LiteralType: ("a string", lambda value: isinstance(value, str)),
    inspect.ListType: ("a list", lambda value: isinstance(value, list)),
    inspect.DictType: ("an object", lambda value: isinstance(value, dict)),
    inspect.StructType: ("an object", lambda value: isinstance(value, dict | msgspec.Struct)),
}
"""For each type, its name in messages, and a function that says if a plain value is of the type."""


def _has_type(value: Any, kind: inspect.Type) -> bool:
    if isinstance(kind, inspect.Metadata):
        return _has_type(value, kind.type)
    return _NAMED[type(kind)][1](value)


def _names(kind: inspect.Type) -> Iterator[str]:
    match kind:
        case inspect.Metadata(type=inner):
            yield from _names(inner)
        case inspect.UnionType(types=types):
            for member in types:
                yield from _names(member)
        case _:
            yield _NAMED[type(kind)][0]


def _type_name(value: Any) -> str:
    """Return the name of a plain value's type."""
    for kind in (
        inspect.NoneType,
        inspect.BoolType,
        inspect.IntType,
        inspect.FloatType,
        inspect.StrType,
        inspect.ListType,
    ):
        name, has_type = _NAMED[kind]
        if has_type(value):
            return "a decimal number" if type(value) is float else name
    return "an object"


class _Object(dict[str, Any]):
    """A JSON object. `duplicate` is the first name that it repeats, or None."""

    duplicate: str | None = None


def _duplicate_name(body: bytes) -> InvalidInput:
    """Return the error for a name that occurs twice in an object.

    msgspec refused an earlier value of this name. The body decoded without types has only the last
    value, so the other checks found no error.
    """
    if len(body) > MAX_SEARCHED_BYTES:
        return InvalidInput("the body is not valid: check whether a name is given twice")

    def collect(pairs: list[tuple[str, Any]]) -> _Object:
        decoded = _Object()
        for name, value in pairs:
            if name in decoded and decoded.duplicate is None:
                decoded.duplicate = name
            decoded[name] = value
        return decoded

    path = _path_to_duplicate(json.loads(body, object_pairs_hook=collect), ())
    return InvalidInput(
        f"'{path[-1]}' is given twice" if path else "the body is not valid", field=path
    )


def _path_to_duplicate(value: Any, path: FieldPath) -> FieldPath:
    """Return the path to the first repeated name, or ()."""
    if isinstance(value, _Object):
        if value.duplicate is not None:
            return (*path, value.duplicate)
        children: Iterator[tuple[str | int, Any]] = iter(value.items())
    elif isinstance(value, list):
        children = enumerate(value)
    else:
        return ()
    for step, child in children:
        duplicate = _path_to_duplicate(child, (*path, step))
        if duplicate:
            return duplicate
    return ()
