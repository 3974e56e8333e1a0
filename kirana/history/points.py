"""The keys and times for which features are wanted."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kirana.errors import InvalidInput
from kirana.ingest.columns import event_times
from kirana.ingest.keys import key_texts
from kirana.schema import Entity

LATEST_MS = 1 << 50
"""Times of points may be in the future."""


def times_of(points: pa.RecordBatch, column: str) -> npt.NDArray[np.int64]:
    """Return the time of each point in Unix milliseconds.

    Raise `InvalidInput` with the column as its field if it is missing or not a time.
    """
    if column not in points.schema.names:
        raise InvalidInput(
            f"the points lack the column of times: their columns are "
            f"{', '.join(points.schema.names)}",
            field=column,
        )
    try:
        return event_times(points.column(column), LATEST_MS).astype(np.int64)
    except InvalidInput as error:
        raise InvalidInput(error.message, field=column) from None


def keys_of(points: pa.RecordBatch, entity: Entity) -> pa.StringArray:
    """Return the key text of each point for an entity.

    Raise `InvalidInput` with the key as its field if it is missing or not valid.
    """
    columns = []
    for key in entity.keys:
        if key.name not in points.schema.names:
            raise InvalidInput(
                f"entity '{entity.name}' needs this key: the columns of the points are "
                f"{', '.join(points.schema.names)}",
                field=key.name,
            )
        columns.append(_plain(points.column(key.name)))
    return key_texts(entity.keys, columns)


def _plain(column: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(column.type):
        return pc.cast(column, column.type.value_type)
    return column


def numbered(keys: pa.StringArray) -> tuple[pa.StringArray, npt.NDArray[np.int64]]:
    """Return the distinct keys, and the number of each key among them."""
    encoded = keys.dictionary_encode()
    return encoded.dictionary, encoded.indices.to_numpy().astype(np.int64)
