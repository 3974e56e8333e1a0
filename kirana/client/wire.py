"""Encoding of arguments into paths and bodies of requests, and decoding of replies."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar
from urllib.parse import quote

import msgspec
import numpy as np
import numpy.typing as npt
import orjson

from kirana.client.replies import (
    Accepted,
    CatalogListing,
    CatalogRecord,
    Deleted,
    Features,
    FlowRun,
    InteractionList,
    Ranking,
    Written,
)
from kirana.codecs.rows import Column
from kirana.errors import InvalidInput
from kirana.interactions import Event
from kirana.schema import NON_FINITE, Array, spelled
from kirana.wire import messages_pb2 as pb
from kirana.wire.blocks import from_block, to_block

Id = str | int
Ids = Id | Sequence[Id]
Times = int | Sequence[int] | None
Values = Sequence[Any] | Array


P = ParamSpec("P")
T = TypeVar("T")


def _encoder(encode: Callable[P, T]) -> Callable[P, T]:
    """Make a function raise `InvalidInput` instead of `TypeError` and `ValueError`."""

    @functools.wraps(encode)
    def checked(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return encode(*arguments, **named)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"the request can't be sent: {error}") from None

    return checked


@_encoder
def path_of(*segments: str) -> str:
    """Join segments into a percent-encoded path. A segment `a/b` becomes `a%2Fb`."""
    return "/" + "/".join(quote(segment, safe="") for segment in segments)


@_encoder
def json_body(fields: Mapping[str, Any]) -> bytes:
    """Return fields as a JSON object, without those that are None."""
    return orjson.dumps({name: value for name, value in fields.items() if value is not None})


def _ids(ids: Ids, field: str) -> pb.Ids:
    one = isinstance(ids, str | int)
    if isinstance(ids, np.ndarray):
        ids = ids.tolist()
    if isinstance(ids, bytes) or not isinstance(ids, str | int | Sequence):
        raise InvalidInput(
            f"an id must be a string or an integer, not {type(ids).__name__}", field=field
        )
    values: list[Any] = [ids] if isinstance(ids, str | int) else list(ids)
    kinds = set(map(type, values))
    try:
        if kinds <= {str}:
            return pb.Ids(texts=values, one=one)
        if kinds <= {int}:
            return pb.Ids(numbers=values, one=one)
        if kinds <= {str, int}:
            return pb.Ids(texts=map(str, values), one=one)
    except ValueError as error:
        raise InvalidInput(f"an id can't be sent: {error}", field=field) from None
    names = ", ".join(sorted(kind.__name__ for kind in kinds))
    raise InvalidInput(f"an id must be a string or an integer, not {names}", field=field)


def _ids_by_name(ids_by_name: Mapping[str, Ids], field: str) -> dict[str, pb.Ids]:
    return {name: _ids(ids, f"{field}.{name}") for name, ids in ids_by_name.items()}


def _times(times: Times) -> pb.Times | None:
    if times is None:
        return None
    one = isinstance(times, int)
    return pb.Times(ms=[times] if isinstance(times, int) else list(map(int, times)), one=one)


@_encoder
def features_get(
    entity: str, keys: Mapping[str, Ids], features: Sequence[str], provenance: bool
) -> bytes:
    """Return an encoded `FeaturesGet`."""
    return pb.FeaturesGet(
        entity=entity,
        keys=_ids_by_name(keys, "keys"),
        features=features,
        provenance=provenance,
    ).SerializeToString()


def features_reply(body: bytes) -> Features:
    """Decode a `FeaturesReply`. Arrays of numbers are read-only."""
    reply = pb.FeaturesReply.FromString(body)
    return Features(
        [*reply.features],
        [*reply.dtypes],
        [([*block.features], from_block(block.block, field="block")) for block in reply.blocks],
        {name: np.frombuffer(codes, dtype=np.uint8) for name, codes in reply.status.items()},
        reply.revision,
        {name: np.frombuffer(codes, dtype=np.uint8) for name, codes in reply.provenance.items()},
        {name: np.frombuffer(ages, dtype="<i8") for name, ages in reply.age_ms.items()},
        {name: np.frombuffer(codes, dtype=np.uint8) for name, codes in reply.tier.items()},
    )


@_encoder
def features_put(
    group: str,
    keys: Mapping[str, Ids],
    columns: Mapping[str, Values | Column],
    event_time: Times,
    schema_version: int | None,
) -> tuple[bytes, bool]:
    """Return an encoded body, and whether it is Protobuf.

    It is Protobuf if every column is an array or a `Column`, else JSON.
    """
    if all(isinstance(column, np.ndarray | Column) for column in columns.values()):
        blocks = {
            name: to_block(column.values, column.nulls)
            if isinstance(column, Column)
            else to_block(np.asarray(column))
            for name, column in columns.items()
        }
        put = pb.FeaturesPut(group=group, keys=_ids_by_name(keys, "keys"), columns=blocks)
        times = _times(event_time)
        if times is not None:
            put.event_time.CopyFrom(times)
        if schema_version is not None:
            put.schema_version = schema_version
        return put.SerializeToString(), True
    body = {
        "group": group,
        "keys": dict(keys),
        "columns": {name: _as_list(column) for name, column in columns.items()},
        "event_time": event_time
        if event_time is None or isinstance(event_time, int)
        else list(event_time),
        "schema_version": schema_version,
    }
    return json_body(body), False


def _as_list(column: Values | Column) -> Any:
    """Return values as a list for JSON, with None for nulls and strings for non-finite floats."""
    if isinstance(column, Column):
        values = column.values.tolist()
        for row in () if column.nulls is None else np.flatnonzero(column.nulls).tolist():
            values[row] = None
        return spelled(values)
    return spelled(column.tolist() if isinstance(column, np.ndarray) else list(column))


@_encoder
def features_delete(group: str, keys: Mapping[str, Ids], event_time: Times, force: bool) -> bytes:
    """Return an encoded `FeaturesDelete`."""
    delete = pb.FeaturesDelete(group=group, keys=_ids_by_name(keys, "keys"), force=force)
    times = _times(event_time)
    if times is not None:
        delete.event_time.CopyFrom(times)
    return delete.SerializeToString()


def put_reply(body: bytes, binary: bool) -> Written:
    """Decode the reply to a write, from Protobuf or from JSON."""
    if binary:
        reply = pb.FeaturesPutReply.FromString(body)
        return Written(reply.written, reply.stale, reply.expired, reply.accepted)
    return msgspec.json.decode(body, type=Written)


def delete_reply(body: bytes) -> Deleted:
    """Decode a `FeaturesDeleteReply`."""
    reply = pb.FeaturesDeleteReply.FromString(body)
    return Deleted(reply.deleted, reply.stale, reply.accepted)


@_encoder
def interactions_post(events: Sequence[Event]) -> bytes:
    """Return an encoded `InteractionsPost`."""
    names = dict.fromkeys(event.event for event in events)
    indexes = {name: index for index, name in enumerate(names)}
    metadata: list[str] = []
    if any(event.metadata is not None for event in events):
        metadata = [
            "" if event.metadata is None else orjson.dumps(event.metadata).decode()
            for event in events
        ]
    return pb.InteractionsPost(
        types=list(names),
        events=[indexes[event.event] for event in events],
        user_ids=[event.user_id for event in events],
        product_ids=[event.product_id for event in events],
        timestamps=[event.timestamp_ms for event in events],
        metadata=metadata,
    ).SerializeToString()


def accepted_reply(body: bytes) -> Accepted:
    """Decode an `InteractionsPostReply`."""
    reply = pb.InteractionsPostReply.FromString(body)
    return Accepted(reply.accepted, reply.expired)


def forgotten_reply(body: bytes) -> int:
    """Decode an `InteractionsDeleteReply`, and return the number of deleted events."""
    return pb.InteractionsDeleteReply.FromString(body).deleted


@_encoder
def interactions_query(
    users: Sequence[Id], events: Sequence[str], bounds: Mapping[str, int | None]
) -> bytes:
    """Return an encoded `InteractionsQuery`, with the bounds that are not None."""
    query = pb.InteractionsQuery(user_ids=map(str, users), events=events)
    for name, bound in bounds.items():
        if bound is not None:
            setattr(query, name, bound)
    return query.SerializeToString()


def interactions_reply(body: bytes) -> dict[str, dict[str, InteractionList]]:
    """Decode an `InteractionsReply`, and return its lists by user and event type."""
    reply = pb.InteractionsReply.FromString(body)
    lists = iter(reply.lists)
    return {
        user: {event: _interaction_list(next(lists)) for event in reply.events}
        for user in reply.user_ids
    }


def _interaction_list(encoded: pb.InteractionList) -> InteractionList:
    metadata: list[dict[str, Any] | None] = [
        orjson.loads(text) if text else None for text in encoded.metadata
    ]
    return InteractionList(
        [*encoded.product_ids],
        np.array(encoded.timestamps, dtype=np.int64),
        metadata or [None] * len(encoded.product_ids),
    )


@_encoder
def infer(
    context: Mapping[str, Ids],
    inputs: Mapping[str, float | Values],
    top_k: int | None,
    returned: Sequence[str],
) -> bytes:
    """Return an encoded `Infer`. Raise `InvalidInput` if an input does not hold numbers."""
    blocks = {name: to_block(_numbers(value, f"inputs.{name}")) for name, value in inputs.items()}
    message = pb.Infer(context=_ids_by_name(context, "context"), inputs=blocks, returned=returned)
    if top_k is not None:
        message.top_k = top_k
    return message.SerializeToString()


def _numbers(value: float | Values, field: str) -> Array:
    numbers = np.asarray(value)
    if numbers.dtype.kind not in "fiu":
        raise InvalidInput("an input must hold numbers", field=field)
    return numbers


def infer_reply(body: bytes) -> Ranking:
    """Decode an `InferReply`. The arrays are read-only."""
    reply = pb.InferReply.FromString(body)
    matrix: npt.NDArray[np.float32] | None = None
    if reply.HasField("matrix"):
        matrix = from_block(reply.matrix, field="matrix").values
    return Ranking(
        [*reply.ids],
        np.frombuffer(reply.scores, dtype="<f4"),
        {name: np.frombuffer(output, dtype="<f4") for name, output in reply.outputs.items()},
        [*reply.columns],
        matrix,
        dict(reply.defaults),
        reply.revision,
    )


def flow_reply(body: bytes) -> FlowRun:
    """Decode the reply of a flow from JSON."""
    reply = orjson.loads(body)
    output = reply["output"]
    columns = {name: _column(values) for name, values in output.items() if name != "ids"}
    return FlowRun(output["ids"], columns, reply.get("trace", []), reply["revision"])


def _column(values: list[Any]) -> Array:
    """Return an array of numbers or of booleans if all values are, else an array of objects.

    Strings such as "NaN" count as numbers, because replies have non-finite floats in this form.
    """
    plain = [NON_FINITE.get(value, value) if isinstance(value, str) else value for value in values]
    kinds = set(map(type, plain))
    if kinds <= {int, float} or kinds == {bool}:
        return np.array(plain, dtype=None if plain else np.float64)
    objects = np.empty(len(values), dtype=object)
    objects[:] = values
    return objects


def catalog_reply(body: bytes) -> CatalogListing:
    """Decode the list of live objects from JSON."""
    return msgspec.json.decode(body, type=CatalogListing)


def object_reply(body: bytes) -> CatalogRecord:
    """Decode an object of the catalog from JSON."""
    reply = orjson.loads(body)
    return CatalogRecord(reply["object"], reply["revision"], reply.get("schema_versions", []))


def revision_reply(body: bytes) -> int:
    """Return the number of the revision in a JSON reply."""
    revision: int = orjson.loads(body)["revision"]
    return revision


def plain_reply(body: bytes) -> dict[str, Any]:
    """Return a JSON reply as a dictionary."""
    reply: dict[str, Any] = orjson.loads(body)
    return reply


def endpoints_reply(body: bytes) -> list[str]:
    """Return the URLs in a JSON list of direct ports."""
    return [endpoint["url"] for endpoint in orjson.loads(body)["endpoints"]]
