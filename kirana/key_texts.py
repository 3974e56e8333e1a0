r"""Key texts: the canonical text of an entity's keys, which is the same in every store.

An id is the value of one key of the entity. Each id is in its canonical form (integers in
decimal), with a backslash before `|` and `\`. The ids of several keys are joined by `|`. `7` and
`"7"` are the same id.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TypeGuard

import numpy as np

from kirana import native
from kirana.errors import InvalidInput, TooLarge, did_you_mean
from kirana.schema import Entity, Key

MAX_KEY_BYTES = 400
"""The most bytes of a key text in UTF-8.

A key in LMDB has at most 511 bytes, and includes the name of the group.
"""

Ids = Sequence[str | int]

_INTEGER = re.compile("[+-]?[0-9]{1,24}")

_RANGES = {
    name: (int(np.iinfo(name).min), int(np.iinfo(name).max))
    for name in ("int32", "int64", "uint32", "uint64")
}


def id_texts(key: Key, ids: Ids, *, field: str) -> list[str]:
    """Return the canonical text of each id. The list may be `ids` itself.

    Raise `InvalidInput` for an id that is empty, not valid Unicode, or neither a string nor an
    integer. If the key is an integer, also raise it for a string that is not a decimal integer, and
    for an id out of the range of the key. `field` is the path of `ids`, to which the error adds the
    index of the id. The lengths of the texts are not checked.
    """
    if key.dtype == "string" and isinstance(ids, list):
        joined = _join_strings(ids)
        if joined is not None:
            if not joined.isascii():
                _check_unicode(ids, field)
            # An empty id leaves two adjacent separators, or one at an end. An id with NUL can look
            # the same in `joined`, so check the ids themselves.
            if "\0\0" in joined or not joined or "\0" in (joined[0], joined[-1]):
                _check_empty(ids, field)
            # The compiled loops accept no subclasses of `str`.
            return ids if set(map(type, ids)) <= {str} else [*map(str, ids)]
    kinds = set(map(type, ids))
    if not kinds <= {str, int}:
        position = next(i for i, id_ in enumerate(ids) if type(id_) not in (str, int))
        raise InvalidInput(
            f"an id must be a string or an integer, not {type(ids[position]).__name__}",
            field=f"{field}[{position}]",
        )
    if key.dtype == "string":
        texts = [*map(str, ids)]
    else:
        texts = [
            _integer_text(id_, key.dtype, f"{field}[{position}]")
            for position, id_ in enumerate(ids)
        ]
    if not "".join(texts).isascii():
        _check_unicode(texts, field)
    _check_empty(texts, field)
    return texts


def checked_ids(key: Key, ids: Ids, *, field: str) -> tuple[list[str], bool]:
    """Return the canonical text of each id, and True if no text needs escapes.

    If the second value is False, some texts may need escapes. Raise `InvalidInput` as `id_texts`
    does, and `TooLarge` for a text of more than `MAX_KEY_BYTES`.
    """
    if key.dtype == "string" and _plain(ids):
        return ids, True
    texts = id_texts(key, ids, field=field)
    check_lengths(texts, field=field)
    return texts, False


def _plain(texts: Sequence[str | int]) -> TypeGuard[list[str]]:
    """Return True if all texts are valid string ids in ASCII, short enough, and need no escapes.

    Also return False without the compiled loops. The callers then check the texts in Python.
    """
    return (
        native.COMPILED
        and isinstance(texts, list)
        and native.keys.need_no_escape(texts, MAX_KEY_BYTES)
    )


def _join_strings(ids: list[str | int]) -> str | None:
    """Return the ids joined by NUL, or None if one of them is not a string."""
    try:
        return "\0".join(ids)  # type: ignore[arg-type]
    except TypeError:
        return None


def _check_empty(texts: Sequence[str], field: str) -> None:
    if "" in texts:
        raise InvalidInput("an id must not be empty", field=f"{field}[{texts.index('')}]")


def id_text(key: Key, value: object, *, field: str) -> str:
    """Return the canonical text of a single id.

    Raise `InvalidInput` as `id_texts` does, and `TooLarge` if the text has more than
    `MAX_KEY_BYTES`. The path of the error is `field`, without an index.
    """
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
    for position, text in enumerate(texts):
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput(
                "an id must be valid Unicode", field=f"{field}[{position}]"
            ) from None


def join_ids(columns: Sequence[list[str]]) -> list[str]:
    """Return the key texts of canonical ids, one per row.

    `columns` has one list per key of the entity, all of the same length. A single column that needs
    no escapes is returned itself, not copied.
    """
    escaped = [_escape_all(column) for column in columns]
    if len(escaped) == 1:
        return escaped[0]
    return list(map("|".join, zip(*escaped, strict=True)))


def _escape_all(texts: list[str]) -> list[str]:
    if _plain(texts):
        return texts
    joined = "".join(texts)
    if "|" not in joined and "\\" not in joined:
        return texts
    return [text.replace("\\", "\\\\").replace("|", "\\|") for text in texts]


def split_key_text(text: str) -> list[str]:
    """Return the ids that `join_ids` joined into this key text."""
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


def check_key_names(entity: Entity, names: Iterable[str], *, field: str) -> None:
    """Raise `InvalidInput` with the field `<field>.<name>` for a key that the entity lacks."""
    known = [key.name for key in entity.keys]
    for name in names:
        if name not in known:
            raise InvalidInput(
                f"entity '{entity.name}' has no key '{name}': {did_you_mean(name, known)}",
                field=f"{field}.{name}",
            )


def key_texts(entity: Entity, keys: Mapping[str, object], *, field: str = "keys") -> list[str]:
    """Return one key text per row. `keys` has an id or a list of ids per key of the entity.

    All lists must have the same length; a single id is repeated in each row. Raise `InvalidInput`
    for a key that is missing or unknown, for lists of different lengths, and for ids that
    `id_texts` refuses. Raise `TooLarge` for a key text of more than `MAX_KEY_BYTES`.
    """
    check_key_names(entity, keys, field=field)
    length = None
    for key in entity.keys:
        if key.name not in keys:
            raise InvalidInput(
                f"entity '{entity.name}' needs the key '{key.name}'", field=f"{field}.{key.name}"
            )
        ids = keys[key.name]
        if isinstance(ids, list):
            if length is not None and len(ids) != length:
                raise InvalidInput(
                    f"all lists of ids must have the same length, not {length} and {len(ids)}",
                    field=f"{field}.{key.name}",
                )
            length = len(ids)
    rows = 1 if length is None else length
    columns = []
    for key in entity.keys:
        ids = keys[key.name]
        path = f"{field}.{key.name}"
        if isinstance(ids, list):
            texts, plain = checked_ids(key, ids, field=path)
            if plain and len(entity.keys) == 1:
                return texts
            columns.append(texts)
        else:
            columns.append([id_text(key, ids, field=path)] * rows)
    texts = join_ids(columns)
    if texts != columns[0]:
        # Escapes and separators make key texts longer than the ids that were checked.
        check_lengths(texts, field=f"{field}.{entity.keys[0].name}")
    return texts


def check_lengths(texts: Sequence[str], *, field: str) -> None:
    """Raise `TooLarge` for the first text that has more than `MAX_KEY_BYTES` in UTF-8."""
    if not texts:
        return
    max_length = max(map(len, texts))
    # A character takes at most four bytes, so short texts need not be encoded.
    if max_length * 4 <= MAX_KEY_BYTES:
        return
    if max_length <= MAX_KEY_BYTES and "".join(texts).isascii():
        return
    for position, text in enumerate(texts):
        size = len(text.encode())
        if size > MAX_KEY_BYTES:
            raise TooLarge(
                f"the key has {size} bytes, the limit is {MAX_KEY_BYTES}",
                field=f"{field}[{position}]",
            )
