"""The columns of archive files, besides the keys and the features of their group.

Their names begin with `_`, which no key and no feature does.
"""

from __future__ import annotations

import pyarrow as pa

from kirana.codecs.arrow_types import arrow_type
from kirana.schema import EVENT_TIME, FeatureGroup, SchemaVersion

DELETED = "_deleted"
"""Whether the row is a delete. Its features are null."""

SCHEMA_VERSION = "_schema_version"
"""The schema version in which the row was written, 0 for a delete."""

EXPIRES = "_expires"
"""When the row expires, by the TTL that its group had when it was written; null for never."""

STORED = "_stored"
"""When the durable store had the row, as its consumer has recorded it."""

TOPIC, PARTITION, OFFSET, ROW = "_topic", "_partition", "_offset", "_row"
"""Where the row was: its message, and its position in the message. No two rows have the same."""

TIME = pa.timestamp("ms", "UTC")

OWN = {
    DELETED: pa.bool_(),
    SCHEMA_VERSION: pa.int32(),
    EXPIRES: TIME,
    STORED: TIME,
    TOPIC: pa.dictionary(pa.int32(), pa.string()),
    PARTITION: pa.int32(),
    OFFSET: pa.int64(),
    ROW: pa.int32(),
}
"""The types of these columns."""

OF_GROUP, OF_VERSION = b"kirana.group", b"kirana.schema_version"
"""The metadata of a file: the name of its group, and the number of its schema version."""


def schema_of(group: FeatureGroup, version: SchemaVersion) -> pa.Schema:
    """Return the schema of the files of a group in a schema version."""
    keys = [(key.name, arrow_key_type(key.dtype)) for key in group.entity.keys]
    features = [(feature.name, arrow_type(feature)) for feature in version.features]
    metadata = {OF_GROUP: group.name.encode(), OF_VERSION: str(version.number).encode()}
    return pa.schema([*keys, (EVENT_TIME, TIME), *features, *OWN.items()], metadata=metadata)


def arrow_key_type(dtype: str) -> pa.DataType:
    """Return the type of a key column."""
    return pa.string() if dtype == "string" else pa.from_numpy_dtype(dtype)
