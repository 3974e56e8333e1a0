"""`/v1/features/...`: read, write and delete rows of the feature store."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from kirana.clock import unit_problem
from kirana.codecs import STATUS_NAMES
from kirana.codecs.rows import PROVENANCE_NAMES, TIER_NAMES
from kirana.edge.exchange import Request, Response, binary_response, json_response
from kirana.edge.json_values import rows_of
from kirana.edge.limits import MAX_CELLS
from kirana.edge.messages import FeaturesDelete, FeaturesGet, FeaturesPut, Ids, Times
from kirana.edge.protobuf import delete_reply, features_reply, put_reply
from kirana.edge.replies import FeaturesDeleteReply, FeaturesGetReply, FeaturesPutReply
from kirana.edge.resources import Resources
from kirana.edge.selection import Selection
from kirana.errors import InvalidInput, TooLarge
from kirana.features import EntityRows, FeatureQuery
from kirana.features.part import FEATURES
from kirana.features.source import FeatureWrite
from kirana.features.values import columns_of
from kirana.key_texts import key_texts
from kirana.loop import INLINE_CELLS, INLINE_ROWS, inline_or_thread
from kirana.schema import Entity


async def get(request: Request, resources: Resources) -> Response:
    message = await request.decode(FeaturesGet)
    selections = await resources.selections.at(request.context.revision)
    selected = selections.of(message.entity, message.features)
    keys = _keys(selected.entity, message.keys, cells=selected.width)
    if request.binary_reply and selected.plain and not message.provenance:
        query = FeatureQuery(message.entity, keys, matrix=selected.names, nulls=True)
    else:
        query = FeatureQuery(
            message.entity, keys, columns=selected.names, provenance=message.provenance
        )
    (rows,) = await resources.parts[FEATURES].read([query], request.context)
    cells = len(keys) * len(selected.asked)
    revision = request.context.revision.number
    if request.binary_reply:
        inline = cells <= (INLINE_ROWS if rows.columns else INLINE_CELLS)
        return binary_response(
            await inline_or_thread(inline, features_reply, selected, rows, revision)
        )
    inline = cells <= INLINE_ROWS
    return await inline_or_thread(inline, _response, message, selected, rows, revision)


async def put(request: Request, resources: Resources) -> Response:
    message = await request.decode(FeaturesPut)
    catalog = await resources.catalogs.at(request.context.revision)
    group = catalog.group(message.group, field="group")
    number = message.schema_version
    version = group.current if number is None else group.version(number)
    keys = _keys(group.entity, message.keys, cells=len(version.features))
    inline = len(keys) * len(message.columns) <= INLINE_ROWS
    columns = await inline_or_thread(inline, columns_of, version, message.columns, len(keys))
    times = _event_times(message.event_time, len(keys), request.context.now_ms)
    write = FeatureWrite(group.name, keys, columns, times, version.number)
    try:
        done = await resources.parts[FEATURES].write(write, request.context)
    except InvalidInput as error:
        raise _without_index(error, message.event_time) from None
    if request.binary_reply:
        return binary_response(put_reply(done))
    return json_response(FeaturesPutReply(done.written, done.stale, done.expired))


async def delete(request: Request, resources: Resources) -> Response:
    message = await request.decode(FeaturesDelete)
    catalog = await resources.catalogs.at(request.context.revision)
    group = catalog.group(message.group, field="group")
    keys = _keys(group.entity, message.keys, cells=1)
    times = _event_times(message.event_time, len(keys), request.context.now_ms)
    try:
        done = await resources.parts[FEATURES].delete(group.name, keys, times, request.context)
    except InvalidInput as error:
        raise _without_index(error, message.event_time) from None
    if request.binary_reply:
        return binary_response(delete_reply(done.written, done.stale))
    return json_response(FeaturesDeleteReply(done.written, done.stale))


def _keys(entity: Entity, keys: Mapping[str, Ids], *, cells: int) -> list[str]:
    """Return the key texts, of no more cells than one request may ask for."""
    texts = key_texts(entity, keys)
    if len(texts) * cells > MAX_CELLS:
        raise TooLarge(
            f"{len(texts)} keys x {cells} values, the limit is {MAX_CELLS} cells",
            field=("keys", entity.keys[0].name),
        )
    return texts


def _response(
    message: FeaturesGet, selected: Selection, rows: EntityRows, revision: int
) -> Response:
    count = len(next(iter(rows.status.values())))
    reply = FeaturesGetReply(
        list(selected.asked),
        list(selected.dtypes),
        rows_of([rows.columns[name] for name in selected.asked], count),
        {
            group: [STATUS_NAMES[code] for code in codes.tolist()]
            for group, codes in rows.status.items()
        },
        revision,
    )
    if message.provenance:
        reply.provenance = {
            name: [PROVENANCE_NAMES[code] for code in codes.tolist()]
            for name, codes in rows.provenance.items()
        }
        reply.age_ms = {
            group: [None if age < 0 else age for age in ages.tolist()]
            for group, ages in rows.age_ms.items()
        }
        reply.tier = {
            group: [TIER_NAMES[code] for code in codes.tolist()]
            for group, codes in rows.tier.items()
        }
    return json_response(reply)


def _without_index(error: InvalidInput, given: Times | None) -> InvalidInput:
    """One event time for all rows has no index in a list."""
    if error.path[:1] == ("event_time",) and not isinstance(given, list):
        error.path = ("event_time",)
    return error


def _event_times(given: Times | None, rows: int, now_ms: int) -> npt.NDArray[np.uint64]:
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
            problem = f"{each} is not a time in milliseconds"
        if problem is not None:
            raise _without_index(InvalidInput(problem, field=("event_time", at)), given)
    return np.array(times, dtype=np.uint64)
