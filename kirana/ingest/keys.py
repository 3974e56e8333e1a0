"""Key columns of a table as key texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from kirana.codecs.arrow_types import is_full, is_text
from kirana.errors import InvalidInput
from kirana.ingest.columns import text
from kirana.key_texts import MAX_KEY_BYTES, check_lengths, id_texts, join_ids
from kirana.schema import Key


def key_texts(keys: Sequence[Key], columns: Sequence[Any]) -> pa.StringArray:
    """Return the key texts of rows. There is one column per key, in the order of the entity.

    Raise `InvalidInput` if a key is missing or not valid. Its field is the name of the key.
    """
    columns = [_valid(key, column) for key, column in zip(keys, columns, strict=True)]
    plain = _plain(keys[0], columns[0]) if len(keys) == 1 else None
    return pa.array(_joined(keys, columns), pa.string()) if plain is None else plain


def _valid(key: Key, column: Any) -> Any:
    """Return a column of text, bytes or decimals as text, and a column of integers as it is."""
    if pa.types.is_integer(column.type) or pa.types.is_null(column.type):
        return column
    if pa.types.is_decimal(column.type) and column.type.scale == 0:
        return pc.cast(column, pa.string())
    with _about(key):
        if not is_text(column.type):
            raise InvalidInput(f"must be text or integers, not {column.type}")
        return text(column)


def _plain(key: Key, column: Any) -> pa.StringArray | None:
    """Return the key texts of one column without handling each row in Python, if possible.

    Return None if there is no row, if a key is invalid or needs escapes, or if the column is
    neither integers for an integer key nor strings for a string key. `_joined` handles these cases.
    """
    if not is_full(column):
        return None
    if pa.types.is_integer(column.type) and key.dtype != "string":
        try:
            return pc.cast(pc.cast(column, key.dtype), pa.string())
        except pa.ArrowInvalid:
            return None
    if key.dtype != "string" or not pa.types.is_string(column.type):
        return None
    lengths = pc.min_max(pc.binary_length(column)).as_py()
    special = pc.any(pc.match_substring_regex(column, r"[|\\]")).as_py()
    fits = lengths["min"] > 0 and lengths["max"] <= MAX_KEY_BYTES
    return column if fits and not special else None


def _joined(keys: Sequence[Key], columns: Sequence[Any]) -> list[str]:
    """Return key texts, made row by row. This works for keys of any kind."""
    texts = []
    for key, column in zip(keys, columns, strict=True):
        with _about(key):
            if column.null_count:
                raise InvalidInput("the key is missing")
            texts.append(id_texts(key, column.to_pylist(), field=""))
    joined = join_ids(texts)
    with _about(keys[0]):
        check_lengths(joined, field="")
    return joined


@contextmanager
def _about(key: Key) -> Iterator[None]:
    """Give the errors of the block the name of a key as their field."""
    try:
        yield
    except InvalidInput as error:
        raise InvalidInput(error.message, field=key.name) from None
