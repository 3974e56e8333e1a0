"""Functions that measure fetched values, and copy them into the table of the cache.

The compiled code makes no Python object per value.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kirana import native

Positions = npt.NDArray[np.intp]
Values = Sequence[bytes | None]


def sizes_of(values: Values) -> npt.NDArray[np.int64]:
    """Return the size of each value in bytes, or -1 for None: `int64[values]`."""
    if native.COMPILED:
        return native.pointers.sizes_of(_readable(values))
    sizes = (-1 if value is None else len(value) for value in values)
    return np.fromiter(sizes, dtype=np.int64, count=len(values))


def copy_values(
    values: Values, positions: Positions, table: npt.NDArray[np.uint8], slots: Positions
) -> None:
    """Copy the value at `positions[i]` into the row `slots[i]` of `table`, for each i.

    Each of these values must have the size of a row of the table.
    """
    if native.COMPILED:
        native.pointers.copy_values(_readable(values), positions, table, slots)
        return
    row_values = [values[i] for i in positions.tolist()]
    joined = b"".join(row_values)
    table[slots] = np.frombuffer(joined, dtype=np.uint8).reshape(len(slots), -1)


def _readable(values: Values) -> Values:
    """Return `values` as a type that the compiled code reads: a list, or a reply of Redis."""
    return values if isinstance(values, list | native.replies.Values) else list(values)
