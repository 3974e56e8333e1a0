"""Arrays as blocks: a dtype, a shape and little-endian bytes; no Python object a number."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

import numpy as np
import numpy.typing as npt

from kirana.codecs.rows import Column
from kirana.errors import InvalidInput
from kirana.schema import DTYPES, MAX_DIMENSIONS, NUMERIC, Array
from kirana.wire.messages_pb2 import Block

BOOL = "bool"
STRING = "string"
MAX_ELEMENTS = 1 << 48

_NAMES = {dtype: name for name, dtype in NUMERIC.items()}


def to_block(values: Array, nulls: npt.NDArray[np.bool_] | None = None) -> Block:
    """Return an array as a block; see `fill_block`."""
    block = Block()
    fill_block(block, values, nulls)
    return block


def fill_block(block: Block, values: Array, nulls: npt.NDArray[np.bool_] | None = None) -> None:
    """Write an array into an empty block; one of objects holds strings.

    Raises `InvalidInput` for an array that is of none of the dtypes.
    """
    block.shape.extend(values.shape)
    if values.dtype == object or values.dtype.kind == "U":
        strings = values.ravel().tolist()
        if set(map(type, strings)) - {str}:
            raise InvalidInput("an array of objects holds strings alone: nulls have a mask")
        texts = [text.encode() for text in strings]
        block.dtype = STRING
        block.data = b"".join(texts)
        block.lengths.extend(map(len, texts))
    elif values.dtype == np.bool_:
        block.dtype = BOOL
        block.data = values.astype(np.uint8).tobytes()
    else:
        name = _NAMES.get(values.dtype.newbyteorder("<"))
        if name is None:
            raise InvalidInput(f"an array of {values.dtype} can't be sent")
        block.dtype = name
        block.data = values.astype(NUMERIC[block.dtype], copy=False).tobytes()
    if nulls is not None:
        block.nulls = nulls.astype(np.uint8).tobytes()


def from_block(block: Block, *, field: str) -> Column:
    """Return the array of a block, over its bytes; strings as objects.

    Raises `InvalidInput` for a block that contradicts itself.
    """
    if block.dtype not in DTYPES:
        raise InvalidInput(f"'{block.dtype}' is no dtype", field=f"{field}.dtype")
    shape = tuple(block.shape)
    if len(shape) > 1 + MAX_DIMENSIONS:
        raise InvalidInput(
            f"{len(shape)} dimensions: there are rows, and at most {MAX_DIMENSIONS}",
            field=f"{field}.shape",
        )
    size = prod(shape)
    if not size and prod(max(1, each) for each in shape) > MAX_ELEMENTS:
        raise InvalidInput(f"nothing is that large: {list(shape)}", field=f"{field}.shape")
    if block.dtype == STRING:
        texts = _texts(block, size, field)
        values: Array = np.empty(size, dtype=object)
        values[:] = texts
        values = values.reshape(shape)
    else:
        dtype = np.dtype(np.uint8) if block.dtype == BOOL else NUMERIC[block.dtype]
        if len(block.data) != size * dtype.itemsize:
            raise InvalidInput(
                f"{len(block.data)} bytes are no {block.dtype}{list(shape)}", field=f"{field}.data"
            )
        values = np.frombuffer(block.data, dtype=dtype).reshape(shape)
        if block.dtype == BOOL:
            values = values != 0
    return Column(values, _nulls(block, field))


def _texts(block: Block, size: int, field: str) -> list[str]:
    lengths = list(block.lengths)
    if len(lengths) != size or sum(lengths) != len(block.data):
        raise InvalidInput("lengths and data don't fit the shape", field=f"{field}.lengths")
    texts, at = [], 0
    try:
        for length in lengths:
            texts.append(block.data[at : at + length].decode())
            at += length
    except UnicodeDecodeError:
        raise InvalidInput(
            f"string {len(texts)} is not UTF-8", field=f"{field}[{len(texts)}]"
        ) from None
    return texts


def _nulls(block: Block, field: str) -> npt.NDArray[np.bool_] | None:
    if not block.nulls:
        return None
    rows = block.shape[0] if block.shape else 0
    if not rows or len(block.nulls) % rows:
        raise InvalidInput("nulls don't fit the shape", field=f"{field}.nulls")
    flags = np.frombuffer(block.nulls, dtype=np.uint8) != 0
    found: npt.NDArray[np.bool_] = flags if len(flags) == rows else flags.reshape(rows, -1)
    return found


def stacked_nulls(columns: Sequence[Column]) -> npt.NDArray[np.bool_] | None:
    """Return [rows, columns], True where null; None where none is."""
    if all(each.nulls is None for each in columns):
        return None
    none = np.zeros(len(columns[0].values), dtype=np.bool_)
    return np.stack([none if each.nulls is None else each.nulls for each in columns], axis=1)
