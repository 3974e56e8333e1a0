"""Arrays as blocks: dtype, shape and little-endian bytes, without a Python object per number."""

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
"""If a dimension is 0, the limit for the product of the others. numpy's limit is about 2**60."""

_NAMES = {dtype: name for name, dtype in NUMERIC.items()}


def to_block(values: Array, nulls: npt.NDArray[np.bool_] | None = None) -> Block:
    """Return a new block, filled by `fill_block`."""
    block = Block()
    fill_block(block, values, nulls)
    return block


def fill_block(block: Block, values: Array, nulls: npt.NDArray[np.bool_] | None = None) -> None:
    """Copy an array into an empty block. `nulls` is a mask of the values that are null.

    An array of objects must hold only strings. Raise `InvalidInput` for any other object or dtype.
    """
    block.shape.extend(values.shape)
    if values.dtype == object or values.dtype.kind == "U":
        strings = values.ravel().tolist()
        if set(map(type, strings)) - {str}:
            raise InvalidInput("an array of objects may hold only strings: pass nulls as a mask")
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
    """Return the array of a block, and its nulls.

    Numbers are a read-only view of the block's bytes, booleans are a copy, and strings are in an
    array of objects. Raise `InvalidInput` if dtype, shape and data don't fit together. `field` is
    the path to the block in the request.
    """
    if block.dtype not in DTYPES:
        raise InvalidInput(f"'{block.dtype}' is not a dtype", field=f"{field}.dtype")
    shape = tuple(block.shape)
    if len(shape) > 1 + MAX_DIMENSIONS:
        raise InvalidInput(
            f"has {len(shape)} dimensions, the limit is {1 + MAX_DIMENSIONS} (rows first)",
            field=f"{field}.shape",
        )
    size = prod(shape)
    if not size and prod(max(1, length) for length in shape) > MAX_ELEMENTS:
        raise InvalidInput(
            f"{list(shape)} is too large: the product of the lengths above 0 must be at most "
            f"{MAX_ELEMENTS}",
            field=f"{field}.shape",
        )
    if block.dtype == STRING:
        texts = _texts(block, size, field)
        values: Array = np.empty(size, dtype=object)
        values[:] = texts
        values = values.reshape(shape)
    else:
        dtype = np.dtype(np.uint8) if block.dtype == BOOL else NUMERIC[block.dtype]
        if len(block.data) != size * dtype.itemsize:
            raise InvalidInput(
                f"must have {size * dtype.itemsize} bytes for {block.dtype}{list(shape)}, not "
                f"{len(block.data)}",
                field=f"{field}.data",
            )
        values = np.frombuffer(block.data, dtype=dtype).reshape(shape)
        if block.dtype == BOOL:
            values = values != 0
    return Column(values, _nulls(block, field))


def _texts(block: Block, size: int, field: str) -> list[str]:
    lengths = list(block.lengths)
    if len(lengths) != size:
        raise InvalidInput(
            f"expected {size} lengths, one per string, not {len(lengths)}",
            field=f"{field}.lengths",
        )
    if sum(lengths) != len(block.data):
        raise InvalidInput(
            f"the sum of the lengths must be {len(block.data)}, the size of the data in bytes, not "
            f"{sum(lengths)}",
            field=f"{field}.lengths",
        )
    texts, offset = [], 0
    try:
        for length in lengths:
            texts.append(block.data[offset : offset + length].decode())
            offset += length
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
        raise InvalidInput(
            f"must have the same number of bytes for each of the {rows} rows, not "
            f"{len(block.nulls)} bytes",
            field=f"{field}.nulls",
        )
    flags = np.frombuffer(block.nulls, dtype=np.uint8) != 0
    nulls: npt.NDArray[np.bool_] = flags if len(flags) == rows else flags.reshape(rows, -1)
    return nulls


def stacked_nulls(columns: Sequence[Column]) -> npt.NDArray[np.bool_] | None:
    """Return the nulls of scalar columns as `bool[rows, columns]`, None if all masks are None."""
    if all(column.nulls is None for column in columns):
        return None
    no_nulls = np.zeros(len(columns[0].values), dtype=np.bool_)
    nulls = [no_nulls if column.nulls is None else column.nulls for column in columns]
    return np.stack(nulls, axis=1)
