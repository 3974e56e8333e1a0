"""The rows of one group at the times of points, found by reading the archive once."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from kirana.archive.columns import DELETED, EXPIRES, OFFSET, ROW, STORED
from kirana.clock import MAX_FUTURE_MS
from kirana.codecs import CODECS, Rows, Status
from kirana.history.files import DAY_MS, RowGroups, archive_files
from kirana.history.newest import Ints, RowOrder, newest_before
from kirana.history.points import numbered
from kirana.ingest.columns import values
from kirana.ingest.keys import key_texts
from kirana.schema import EVENT_TIME, FeatureGroup

_ORDER = [EVENT_TIME, DELETED, EXPIRES, STORED, OFFSET, ROW]


class GroupHistory:
    """Finds, for each point, the row of a group that reads would have had.

    `keys` are key texts, and `times_ms` the times of the points. By default, a row counts from its
    event time on. With `as_known`, it counts from when the store had it.
    """

    def __init__(
        self, group: FeatureGroup, keys: pa.StringArray, times_ms: Ints, *, as_known: bool
    ) -> None:
        self._group = group
        self._times_ms = times_ms
        self._as_known = as_known
        self._distinct, self._keys = numbered(keys)
        count = len(times_ms)
        self._order = RowOrder.nothing(count)
        self._expires_ms = np.zeros(count, np.int64)
        self._rows: list[bytes | None] = [None] * count

    def read(self, archive: str) -> None:
        """Read all files of the archive that may have rows for the points.

        Raise `InvalidInput` if there is no archive, and `Unavailable` if it can't be read.
        """
        if not len(self._times_ms):
            return
        # A row that is a little ahead is served all the same.
        latest_ms = int(self._times_ms.max()) + (MAX_FUTURE_MS if self._as_known else 0)
        for file in archive_files(archive, self._group.name):
            if file.day <= latest_ms // DAY_MS:
                groups = RowGroups(file)
                for number in groups:
                    self._read(groups, number)
                groups.close()

    def _read(self, groups: RowGroups, number: int) -> None:
        """Take the rows of a row group that are newer than those found so far."""
        entity = self._group.entity
        names = [key.name for key in entity.keys]
        table = groups.read(number, [*names, *_ORDER]).combine_chunks()
        texts = key_texts(entity.keys, [_chunk(table, name) for name in names])
        places = pc.index_in(texts, value_set=self._distinct)
        wanted = np.flatnonzero(places.is_valid().to_numpy(zero_copy_only=False))
        if not len(wanted):
            return
        keys = places.take(pa.array(wanted)).to_numpy().astype(np.int64)
        columns = {name: _integers(table, name)[wanted] for name in _ORDER}
        order = RowOrder(*(columns[name] for name in _ORDER if name != EXPIRES))
        known_ms = order.stored_ms if self._as_known else order.event_time_ms
        points, found = newest_before(keys, known_ms, order, self._keys, self._times_ms)
        is_after = order.taken(found).is_after(self._order.taken(points))
        points, found = points[is_after], found[is_after]
        if not len(points):
            return
        self._order.put(points, order.taken(found))
        self._expires_ms[points] = columns[EXPIRES][found]
        used, of_points = np.unique(found, return_inverse=True)
        rows = self._encoded(groups, number, wanted[used], order.taken(used))
        for point, row in zip(points.tolist(), of_points.tolist(), strict=True):
            self._rows[point] = rows[row]

    def _encoded(
        self, groups: RowGroups, number: int, positions: Ints, order: RowOrder
    ) -> Sequence[bytes | None]:
        """Return rows of a row group as a store has them; None for those that are deletes."""
        version = self._group.version(groups.version)
        names = [feature.name for feature in version.features]
        table = groups.read(number, names).take(pa.array(positions)).combine_chunks()
        columns = {
            feature.name: values(feature, _chunk(table, feature.name))
            for feature in version.features
        }
        codec = CODECS[self._group.codec]
        times = order.event_time_ms.astype(np.uint64)
        joined, ends = codec.encode_block(self._group, version, columns, times)
        data = joined.tobytes()
        bounds = [0, *ends.tolist()]
        return [
            None if deleted else data[bounds[i] : bounds[i + 1]]
            for i, deleted in enumerate(order.deleted.tolist())
        ]

    def rows(self) -> tuple[Rows, npt.NDArray[np.uint8]]:
        """Return the row of each point, decoded as a read does, and its status."""
        expired = (self._expires_ms > 0) & (self._expires_ms <= self._times_ms)
        found = list(self._rows)
        for point in np.flatnonzero(expired).tolist():
            found[point] = None
        # Whether a row had expired was decided at the time of its point, not now.
        rows = CODECS[self._group.codec].decode(found, self._group, now_s=0.0)
        status = rows.status.copy()
        status[expired & (self._order.deleted == 0)] = Status.EXPIRED
        return rows, status


def _chunk(table: pa.Table, name: str) -> pa.Array:
    column = table.column(name)
    return column.chunk(0) if column.num_chunks else pa.array([], column.type)


def _integers(table: pa.Table, name: str) -> Ints:
    """Return a column as integers: times in milliseconds, null as 0."""
    column = pc.fill_null(pc.cast(_chunk(table, name), pa.int64()), 0)
    result: Ints = column.to_numpy(zero_copy_only=False)
    return result
