"""The values of a batch on their way into the cache, without an object per value."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from kirana import native

Positions = npt.NDArray[np.intp]
Values = Sequence[bytes | None]


def sizes_of(values: Values) -> npt.NDArray[np.int64]:
    """Return the bytes of each value, -1 where there is none."""
    if native.COMPILED:
        return native.pointers.sizes_of(_as_it_is(values))
    sizes = (-1 if value is None else len(value) for value in values)
    return np.fromiter(sizes, dtype=np.int64, count=len(values))


def copy_values(
    values: Values, positions: Positions, table: npt.NDArray[np.uint8], slots: Positions
) -> None:
    """Copy the values at some positions into slots of a table: each has the bytes of a row."""
    if native.COMPILED:
        native.pointers.copy_values(_as_it_is(values), positions, table, slots)
        return
    chosen = [values[at] for at in positions.tolist()]
    together = b"".join(chosen)
    table[slots] = np.frombuffer(together, dtype=np.uint8).reshape(len(slots), -1)


def _as_it_is(values: Values) -> Values:
    return values if isinstance(values, list | native.replies.Values) else list(values)
