"""The handlers of `/v1/features`: read, write and delete rows of feature groups."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from kirana import byte_limit
from kirana.byte_limit import check_bytes
from kirana.clock import unit_problem
from kirana.codecs import STATUS_NAMES
from kirana.codecs.rows import PROVENANCE_NAMES, TIER_NAMES
from kirana.edge.exchange import Request, Response, binary_response, json_response
from kirana.edge.json_values import rows_of
from kirana.edge.limits import MAX_CELLS
from kirana.edge.messages import FeaturesDelete, FeaturesGet, FeaturesPut, Ids, Times
from kirana.edge.protobuf import delete_reply, features_reply, put_reply
from kirana.edge.replies import (
    AcceptedReply,
    FeaturesDeleteReply,
    FeaturesGetReply,
    FeaturesPutReply,
)
from kirana.edge.resources import Resources
from kirana.edge.selection import Selection
from kirana.errors import InvalidInput, TooLarge
from kirana.features import EntityRows, FeatureQuery
from kirana.features.event_times import check_event_times
from kirana.features.part import FEATURES
from kirana.features.source import FeatureWrite, WriteResult
from kirana.features.values import columns_of
from kirana.key_texts import key_texts
from kirana.loop import INLINE_BYTES, INLINE_CELLS, INLINE_ROWS, inline_or_thread
from kirana.schema import Entity

ACCEPTED = 202

MAX_JSON_BYTES = 6
"""The most bytes of a character in JSON, as in `\\u0007`."""


class FeatureDelete(NamedTuple):
    """Rows of one group to be deleted: the arguments of `FeatureSink.delete`."""

    group: str
    keys: list[str]
    event_time_ms: npt.NDArray[np.uint64]
    force: bool


async def get(request: Request, resources: Resources) -> Response:
    """Return features of one entity, one row per key."""
    message = await request.decode(FeaturesGet)
    selections = await resources.selections.of(request.context)
    selected = selections.of(message.entity, message.features)
    keys = _keys(selected.entity, message.keys, cells=selected.width)
    if request.binary_reply and selected.plain and not message.provenance:
        # A matrix becomes one block of the reply, which is faster than a column per feature.
        query = FeatureQuery(message.entity, keys, matrix=selected.names, nulls=True)
    else:
        query = FeatureQuery(
            message.entity, keys, columns=selected.names, provenance=message.provenance
        )
    try:
        (rows,) = await resources.parts[FEATURES].read([query], request.context)
    except TooLarge as error:
        error.path = error.path or ("keys",)
        raise
    cells = len(keys) * len(selected.requested)
    small = cells <= INLINE_ROWS
    if selected.texts:
        small = await inline_or_thread(small, _text_bytes, selected, rows) <= INLINE_BYTES and small
    revision = request.context.revision.number
    if request.binary_reply:
        inline = small if rows.columns else cells <= INLINE_CELLS
        return binary_response(
            await inline_or_thread(inline, features_reply, selected, rows, revision)
        )
    return await inline_or_thread(small, _response, message, selected, rows, revision)


async def put(request: Request, resources: Resources) -> Response:
    """Write whole rows of a feature group, in the newest schema version by default."""
    write = await decode_put(request, resources)
    result = await resources.sink.write(write, request.context)
    if request.binary_reply:
        return binary_response(put_reply(result), _status(result))
    if result.accepted:
        return json_response(AcceptedReply(result.accepted), ACCEPTED)
    return json_response(FeaturesPutReply(result.written, result.stale, result.expired))


async def decode_put(
    request: Request, resources: Resources, time_ms: int | None = None
) -> FeatureWrite:
    """Return the rows of a write. Raise the errors of a wrong request.

    Rows without an event time have `time_ms`, which is by default that of the request.
    """
    message = await request.decode(FeaturesPut)
    catalog = await resources.catalogs.of(request.context)
    group = catalog.group(message.group, field="group")
    number = message.schema_version
    version = group.current if number is None else group.version(number)
    keys = _keys(group.entity, message.keys, cells=len(version.features))
    inline = len(keys) * len(message.columns) <= INLINE_ROWS
    columns = await inline_or_thread(inline, columns_of, version, message.columns, len(keys))
    times = _event_times(message.event_time, len(keys), request.context.now_ms, time_ms)
    return FeatureWrite(group.name, keys, columns, times, version.number)


async def delete(request: Request, resources: Resources) -> Response:
    """Delete rows of a feature group, unless they are newer than the event time."""
    delete = await decode_delete(request, resources)
    result = await resources.sink.delete(*delete, request.context)
    if request.binary_reply:
        return binary_response(delete_reply(result), _status(result))
    if result.accepted:
        return json_response(AcceptedReply(result.accepted), ACCEPTED)
    return json_response(FeaturesDeleteReply(result.written, result.stale))


async def decode_delete(
    request: Request, resources: Resources, time_ms: int | None = None
) -> FeatureDelete:
    """Return the rows of a delete. `time_ms` and the errors are as in `decode_put`."""
    message = await request.decode(FeaturesDelete)
    catalog = await resources.catalogs.of(request.context)
    group = catalog.group(message.group, field="group")
    keys = _keys(group.entity, message.keys, cells=1)
    times = _event_times(message.event_time, len(keys), request.context.now_ms, time_ms)
    return FeatureDelete(group.name, keys, times, message.force)


def _status(result: WriteResult) -> int:
    return ACCEPTED if result.accepted else 200


def _keys(entity: Entity, keys: Mapping[str, Ids], *, cells: int) -> list[str]:
    """Return one key text per row. `cells` is the number of cells per row.

    Raise `TooLarge` if the request has more than `MAX_CELLS` cells.
    """
    texts = key_texts(entity, keys)
    if len(texts) * cells > MAX_CELLS:
        raise TooLarge(
            f"{len(texts)} keys x {cells} values are {len(texts) * cells} cells, the limit is "
            f"{MAX_CELLS}",
            field=("keys", entity.keys[0].name),
        )
    return texts


def _text_bytes(selected: Selection, rows: EntityRows) -> int:
    """Return how many bytes the strings of a reply have; of a small reply, how many characters.

    A string counts as often as the request names its feature and its key. Raise `TooLarge` if the
    strings have more than `MAX_READ_BYTES` in JSON.
    """
    texts = {name: rows.columns[name].values.ravel().tolist() for name in set(selected.texts)}
    lengths = {name: sum(map(len, of_feature)) for name, of_feature in texts.items()}
    total = sum(lengths[name] for name in selected.texts)
    if total * MAX_JSON_BYTES <= byte_limit.MAX_READ_BYTES:
        return total
    lengths = {name: len(orjson.dumps(of_feature)) for name, of_feature in texts.items()}
    total = sum(lengths[name] for name in selected.texts)
    check_bytes(total, "the strings", "read fewer keys or features", field=("keys",))
    return total


def _response(
    message: FeaturesGet, selected: Selection, rows: EntityRows, revision: int
) -> Response:
    count = len(next(iter(rows.status.values())))
    reply = FeaturesGetReply(
        list(selected.requested),
        list(selected.dtypes),
        rows_of([rows.columns[name] for name in selected.requested], count),
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


def _without_index(error: InvalidInput, event_time: Times | None) -> InvalidInput:
    """Remove the index from the error's path `event_time[i]`, unless `event_time` is a list.

    Otherwise the error would name an entry of a list that the request does not have.
    """
    if error.path[:1] == ("event_time",) and not isinstance(event_time, list):
        error.path = ("event_time",)
    return error


def _event_times(
    event_time: Times | None, rows: int, now_ms: int, time_ms: int | None
) -> npt.NDArray[np.uint64]:
    """Return one event time per row in Unix milliseconds, by default `time_ms`, or else `now_ms`.

    Raise `InvalidInput` if the number of times is wrong, or if a time can't be in milliseconds or
    is too far in the future.
    """
    if isinstance(event_time, list):
        if len(event_time) != rows:
            raise InvalidInput(
                f"expected {rows} event times, one per key, not {len(event_time)}",
                field="event_time",
            )
        times = event_time
    else:
        default_ms = now_ms if time_ms is None else time_ms
        times = [default_ms if event_time is None else event_time] * rows
    for row, time_ms in enumerate(times):
        problem = unit_problem(time_ms)
        if problem is None and not 0 <= time_ms < 1 << 53:
            problem = f"{time_ms} is not a time in milliseconds"
        if problem is not None:
            raise _without_index(InvalidInput(problem, field=("event_time", row)), event_time)
    array = np.array(times, dtype=np.uint64)
    try:
        check_event_times(array, now_ms)
    except InvalidInput as error:
        raise _without_index(error, event_time) from None
    return array
