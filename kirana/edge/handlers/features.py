"""`/v1/features/...`: read, write and delete rows of the feature store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kirana.catalog.revisions import Revisions
from kirana.clock import unit_problem
from kirana.codecs import STATUS_NAMES
from kirana.codecs.rows import PROVENANCE_NAMES, TIER_NAMES
from kirana.edge.http import HttpRequest, json_bytes
from kirana.edge.json_values import rows_of
from kirana.edge.limits import Limits
from kirana.edge.messages import FeaturesDelete, FeaturesGet, FeaturesPut, Id
from kirana.edge.protobuf import delete_reply, features_reply, put_reply
from kirana.edge.selection import Selection, Selections
from kirana.errors import InvalidInput, TooLarge
from kirana.features import EntityRows, FeatureQuery, Features
from kirana.features.source import FeatureWrite
from kirana.features.values import columns_of
from kirana.key_texts import key_texts
from kirana.loop import INLINE_CELLS, INLINE_ROWS, inline_or_thread
from kirana.schema import Entity


class FeatureHandlers:
    def __init__(
        self, features: Features, selections: Revisions[Selections], limits: Limits
    ) -> None:
        self._features = features
        self._selections = selections
        self._limits = limits

    async def get(self, request: HttpRequest) -> bytes:
        message = await request.decode(FeaturesGet)
        selections = await self._selections.at(request.context.revision)
        selected = selections.of(message.entity, message.features)
        keys = self._keys(selected.entity, message.keys, cells=selected.width)
        if request.binary_reply and selected.plain and not message.provenance:
            query = FeatureQuery(message.entity, keys, matrix=selected.names, nulls=True)
        else:
            query = FeatureQuery(
                message.entity, keys, columns=selected.names, provenance=message.provenance
            )
        (rows,) = await self._features.read([query], request.context)
        cells = len(keys) * len(selected.asked)
        if request.binary_reply:
            inline = cells <= (INLINE_ROWS if rows.columns else INLINE_CELLS)
            return await inline_or_thread(
                inline, features_reply, selected, rows, request.context.revision.number
            )
        return await inline_or_thread(
            cells <= INLINE_ROWS, _reply, message, selected, rows, request.context.revision.number
        )

    async def put(self, request: HttpRequest) -> bytes:
        message = await request.decode(FeaturesPut)
        catalog = (await self._selections.at(request.context.revision)).catalog
        group = catalog.group(message.group, field="group")
        number = message.schema_version
        version = group.current if number is None else group.version(number)
        keys = self._keys(group.entity, message.keys, cells=len(version.features))
        inline = len(keys) * len(message.columns) <= INLINE_ROWS
        columns = await inline_or_thread(inline, columns_of, version, message.columns, len(keys))
        times = _event_times(message.event_time, len(keys), request.context.now_ms)
        write = FeatureWrite(group.name, keys, columns, times, version.number)
        try:
            done = await self._features.write(write, request.context)
        except InvalidInput as error:
            raise _without_place(error, message.event_time) from None
        if request.binary_reply:
            return put_reply(done)
        return json_bytes({"written": done.written, "stale": done.stale, "expired": done.expired})

    async def delete(self, request: HttpRequest) -> bytes:
        message = await request.decode(FeaturesDelete)
        catalog = (await self._selections.at(request.context.revision)).catalog
        group = catalog.group(message.group, field="group")
        keys = self._keys(group.entity, message.keys, cells=1)
        times = _event_times(message.event_time, len(keys), request.context.now_ms)
        try:
            done = await self._features.delete(group.name, keys, times, request.context)
        except InvalidInput as error:
            raise _without_place(error, message.event_time) from None
        if request.binary_reply:
            return delete_reply(done.written, done.stale)
        return json_bytes({"deleted": done.written, "stale": done.stale})

    def _keys(self, entity: Entity, keys: Mapping[str, Id | list[Id]], *, cells: int) -> list[str]:
        texts = key_texts(entity, keys)
        field = f"keys.{entity.keys[0].name}"
        if not texts:
            raise InvalidInput("name at least one key", field=field)
        if len(texts) > self._limits.max_keys:
            raise TooLarge(f"{len(texts)} keys, the limit is {self._limits.max_keys}", field=field)
        if len(texts) * cells > self._limits.max_cells:
            raise TooLarge(
                f"{len(texts)} keys x {cells} values, the limit is {self._limits.max_cells} cells",
                field=field,
            )
        return texts


def _reply(message: FeaturesGet, selected: Selection, rows: EntityRows, revision: int) -> bytes:
    count = len(next(iter(rows.status.values())))
    reply = {
        "features": selected.asked,
        "dtypes": selected.dtypes,
        "values": rows_of([rows.columns[name] for name in selected.asked], count),
        "status": {
            group: [STATUS_NAMES[code] for code in codes.tolist()]
            for group, codes in rows.status.items()
        },
        "revision": revision,
    }
    if message.provenance:
        reply["provenance"] = {
            name: [PROVENANCE_NAMES[code] for code in codes.tolist()]
            for name, codes in rows.provenance.items()
        }
        reply["age_ms"] = {
            group: [None if age < 0 else age for age in ages.tolist()]
            for group, ages in rows.age_ms.items()
        }
        reply["tier"] = {
            group: [TIER_NAMES[code] for code in codes.tolist()]
            for group, codes in rows.tier.items()
        }
    return json_bytes(reply)


def _without_place(error: InvalidInput, given: int | list[int] | None) -> InvalidInput:
    """One event time for all rows has no place in a list."""
    if error.field and error.field.startswith("event_time[") and not isinstance(given, list):
        error.field = "event_time"
    return error


def _event_times(given: int | list[int] | None, rows: int, now_ms: int) -> npt.NDArray[np.uint64]:
    """One event time a row, in ms; now where none is given."""
    if isinstance(given, list):
        if len(given) != rows:
            raise InvalidInput(f"{len(given)} event times for {rows} keys", field="event_time")
        times = given
    else:
        times = [now_ms if given is None else given] * rows
    for at, each in enumerate(times):
        problem = unit_problem(each)
        if problem is None and not 0 <= each < 1 << 53:
            problem = f"{each} is no time in milliseconds"
        if problem is not None:
            field = f"event_time[{at}]" if isinstance(given, list) else "event_time"
            raise InvalidInput(problem, field=field)
    return np.array(times, dtype=np.uint64)
