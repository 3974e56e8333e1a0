"""Key text: the one canonical spelling of an entity's keys, the same in every store.

Each key in its canonical form (integers in decimal), a backslash before `|` and `\\`,
joined by `|`. `7` and `"7"` are the same key.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TypeGuard

import numpy as np

from kirana import native
from kirana.errors import InvalidInput, TooLarge
from kirana.schema import Entity, Key

MAX_KEY_BYTES = 400
"""Limit of one key text in UTF-8: what is left of LMDB's 511 bytes beside a group's name."""

Ids = Sequence[str | int]

_INTEGER = re.compile("[+-]?[0-9]{1,24}")

_RANGES = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("int32", "int64", "uint32", "uint64")
}


def id_texts(key: Key, ids: Ids, *, field: str) -> list[str]:
    """Return the canonical text of each id; `field` names them in an error."""
    if key.dtype == "string" and isinstance(ids, list):
        joined = _join_strings(ids)
        if joined is not None:
            if not joined.isascii():
                _check_unicode(ids, field)
            # two separators beside each other, or one at an end, may be an empty id
            if "\0\0" in joined or not joined or "\0" in (joined[0], joined[-1]):
                _check_empty(ids, field)
            # what is made of them takes text of no other type than `str`
            return ids if set(map(type, ids)) <= {str} else [*map(str, ids)]
    kinds = set(map(type, ids))
    if not kinds <= {str, int}:
        at = next(i for i, each in enumerate(ids) if type(each) not in (str, int))
        raise InvalidInput(
            f"an id must be a string or an integer, not {type(ids[at]).__name__}",
            field=f"{field}[{at}]",
        )
    if key.dtype == "string":
        texts = [*map(str, ids)]
    else:
        texts = [_integer_text(each, key.dtype, f"{field}[{at}]") for at, each in enumerate(ids)]
    if not "".join(texts).isascii():
        _check_unicode(texts, field)
    _check_empty(texts, field)
    return texts


def measured_ids(key: Key, ids: Ids, *, field: str) -> tuple[list[str], bool]:
    """Return the canonical text of each id, none of them too long, and whether it is known that
    none has to be escaped.
    """
    if key.dtype == "string" and _plain(ids):
        return ids, True
    texts = id_texts(key, ids, field=field)
    check_lengths(texts, field=field)
    return texts, False


def _plain(texts: Sequence[str | int]) -> TypeGuard[list[str]]:
    """Whether it is known, by one look, that all are ids that need no closer one: short ASCII
    without a character that is escaped.
    """
    return native.COMPILED and isinstance(texts, list) and native.keys.plain(texts, MAX_KEY_BYTES)


def _join_strings(ids: list[str | int]) -> str | None:
    """Return the ids with separators between, or None if one is no string."""
    try:
        return "\0".join(ids)  # type: ignore[arg-type]
    except TypeError:
        return None


def _check_empty(texts: Sequence[str], field: str) -> None:
    if "" in texts:
        raise InvalidInput("an id must not be empty", field=f"{field}[{texts.index('')}]")


def id_text(key: Key, value: object, *, field: str) -> str:
    """Return the canonical text of a single id, by whose own name an error goes."""
    try:
        texts = id_texts(key, [value], field=field)  # type: ignore[list-item]
        check_lengths(texts, field=field)
    except InvalidInput as error:
        error.path = (field,)
        raise
    return texts[0]


def _integer_text(value: str | int, dtype: str, field: str) -> str:
    if isinstance(value, str) and not _INTEGER.fullmatch(value):
        raise InvalidInput(f"'{value[:60]}' is not an integer ({dtype})", field=field)
    number = int(value)
    low, high = _RANGES[dtype]
    if not low <= number <= high:
        raise InvalidInput(f"{number} is out of the range of {dtype}", field=field)
    return str(number)


def _check_unicode(texts: Sequence[str], field: str) -> None:
    for at, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput("an id must be valid Unicode", field=f"{field}[{at}]") from None


def join_ids(columns: Sequence[list[str]]) -> list[str]:
    """Escape and join the canonical ids, one column a key and all of one length.

    A single column that needs no escape is returned as it is.
    """
    escaped = [_escape_all(column) for column in columns]
    if len(escaped) == 1:
        return escaped[0]
    return list(map("|".join, zip(*escaped, strict=True)))


def _escape_all(texts: list[str]) -> list[str]:
    if _plain(texts):
        return texts
    together = "".join(texts)
    if "|" not in together and "\\" not in together:
        return texts
    return [text.replace("\\", "\\\\").replace("|", "\\|") for text in texts]


def split_key_text(text: str) -> list[str]:
    """Return the ids that `join_ids` joined."""
    ids, current, escaped = [], "", False
    for char in text:
        if escaped:
            current, escaped = current + char, False
        elif char == "\\":
            escaped = True
        elif char == "|":
            ids.append(current)
            current = ""
        else:
            current += char
    return [*ids, current]


def key_texts(entity: Entity, keys: Mapping[str, object], *, field: str = "keys") -> list[str]:
    """Return one key text a row. Lists zip (all of one length), scalars broadcast.

    Raises `InvalidInput` that names the key which is missing, too many, of a wrong type or
    of another length, and `TooLarge` where a key text is longer than `MAX_KEY_BYTES`.
    """
    wanted = [key.name for key in entity.keys]
    for name in keys:
        if name not in wanted:
            raise InvalidInput(
                f"entity '{entity.name}' has no key '{name}': its keys are {wanted}",
                field=f"{field}.{name}",
            )
    length = None
    for name in wanted:
        if name not in keys:
            raise InvalidInput(
                f"entity '{entity.name}' needs the key '{name}'", field=f"{field}.{name}"
            )
        ids = keys[name]
        if isinstance(ids, list):
            if length is not None and len(ids) != length:
                raise InvalidInput(
                    f"lists of keys must have one length: {len(ids)} is not {length}",
                    field=f"{field}.{name}",
                )
            length = len(ids)
    rows = 1 if length is None else length
    columns = []
    for key in entity.keys:
        ids = keys[key.name]
        path = f"{field}.{key.name}"
        if isinstance(ids, list):
            texts, plain = measured_ids(key, ids, field=path)
            if plain and len(entity.keys) == 1:
                return texts
            columns.append(texts)
        else:
            columns.append([id_text(key, ids, field=path)] * rows)
    texts = join_ids(columns)
    if texts != columns[0]:
        check_lengths(texts, field=f"{field}.{wanted[0]}")
    return texts


def check_lengths(texts: Sequence[str], *, field: str) -> None:
    """Refuse a key text of more than `MAX_KEY_BYTES`."""
    if not texts:
        return
    longest = max(map(len, texts))
    # no character takes more than four bytes: short ones need no closer look
    if longest * 4 <= MAX_KEY_BYTES:
        return
    if longest <= MAX_KEY_BYTES and "".join(texts).isascii():
        return
    for at, text in enumerate(texts):
        size = len(text.encode())
        if size > MAX_KEY_BYTES:
            raise TooLarge(
                f"a key of {size} bytes is over the limit of {MAX_KEY_BYTES}",
                field=f"{field}[{at}]",
            )
