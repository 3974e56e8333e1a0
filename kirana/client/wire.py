"""Arguments into the bytes of a request, and the bytes of a reply into typed replies."""

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


def _sends(encode: Callable[P, T]) -> Callable[P, T]:
    """What numpy or protobuf refuse is refused as bad input."""

    @functools.wraps(encode)
    def checked(*arguments: P.args, **named: P.kwargs) -> T:
        try:
            return encode(*arguments, **named)
        except (TypeError, ValueError) as error:
            raise InvalidInput(f"this can't be sent: {error}") from None

    return checked


@_sends
def path_of(*segments: str) -> str:
    """Join segments to a path; what is in one stays in it, `a/b` as `a%2Fb`."""
    return "/" + "/".join(quote(each, safe="") for each in segments)


@_sends
def json_body(value: Mapping[str, Any]) -> bytes:
    """Raises `InvalidInput` for what JSON can't hold."""
    return orjson.dumps({name: each for name, each in value.items() if each is not None})


def _ids(given: Ids, field: str) -> pb.Ids:
    one = isinstance(given, str | int)
    if isinstance(given, np.ndarray):
        given = given.tolist()
    if isinstance(given, bytes) or not isinstance(given, str | int | Sequence):
        raise InvalidInput(f"{given!r} is not an id", field=field)
    values: list[Any] = [given] if isinstance(given, str | int) else list(given)
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
    raise InvalidInput(f"ids are strings or integers, not {names}", field=field)


def _ids_by_name(given: Mapping[str, Ids], field: str) -> dict[str, pb.Ids]:
    return {name: _ids(each, f"{field}.{name}") for name, each in given.items()}


def _times(given: Times) -> pb.Times | None:
    if given is None:
        return None
    one = isinstance(given, int)
    return pb.Times(ms=[given] if isinstance(given, int) else list(map(int, given)), one=one)


@_sends
def features_get(
    entity: str, keys: Mapping[str, Ids], features: Sequence[str], provenance: bool
) -> bytes:
    return pb.FeaturesGet(
        entity=entity,
        keys=_ids_by_name(keys, "keys"),
        features=features,
        provenance=provenance,
    ).SerializeToString()


def features_reply(body: bytes) -> Features:
    reply = pb.FeaturesReply.FromString(body)
    return Features(
        [*reply.features],
        [*reply.dtypes],
        [([*each.features], from_block(each.block, field="block")) for each in reply.blocks],
        {name: np.frombuffer(codes, dtype=np.uint8) for name, codes in reply.status.items()},
        reply.revision,
        {name: np.frombuffer(codes, dtype=np.uint8) for name, codes in reply.provenance.items()},
        {name: np.frombuffer(ages, dtype="<i8") for name, ages in reply.age_ms.items()},
        {name: np.frombuffer(codes, dtype=np.uint8) for name, codes in reply.tier.items()},
    )


@_sends
def features_put(
    group: str,
    keys: Mapping[str, Ids],
    columns: Mapping[str, Values | Column],
    event_time: Times,
    schema_version: int | None,
) -> tuple[bytes, bool]:
    """Return the body, and whether it is binary: where every column is an array."""
    if all(isinstance(each, np.ndarray | Column) for each in columns.values()):
        blocks = {
            name: to_block(each.values, each.nulls)
            if isinstance(each, Column)
            else to_block(np.asarray(each))
            for name, each in columns.items()
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
        "columns": {name: _listed(each) for name, each in columns.items()},
        "event_time": event_time
        if event_time is None or isinstance(event_time, int)
        else list(event_time),
        "schema_version": schema_version,
    }
    return json_body(body), False


def _listed(given: Values | Column) -> Any:
    if isinstance(given, Column):
        values = given.values.tolist()
        for at in () if given.nulls is None else np.flatnonzero(given.nulls).tolist():
            values[at] = None
        return spelled(values)
    return spelled(given.tolist() if isinstance(given, np.ndarray) else list(given))


@_sends
def features_delete(group: str, keys: Mapping[str, Ids], event_time: Times) -> bytes:
    delete = pb.FeaturesDelete(group=group, keys=_ids_by_name(keys, "keys"))
    times = _times(event_time)
    if times is not None:
        delete.event_time.CopyFrom(times)
    return delete.SerializeToString()


def put_reply(body: bytes, binary: bool) -> Written:
    if binary:
        reply = pb.FeaturesPutReply.FromString(body)
        return Written(reply.written, reply.stale, reply.expired)
    return msgspec.json.decode(body, type=Written)


def delete_reply(body: bytes) -> Deleted:
    reply = pb.FeaturesDeleteReply.FromString(body)
    return Deleted(reply.deleted, reply.stale)


@_sends
def interactions_post(events: Sequence[Event]) -> bytes:
    types = {event.event: 0 for event in events}
    types = {name: at for at, name in enumerate(types)}
    metadata: list[str] = []
    if any(event.metadata is not None for event in events):
        metadata = [
            "" if event.metadata is None else orjson.dumps(event.metadata).decode()
            for event in events
        ]
    return pb.InteractionsPost(
        types=list(types),
        events=[types[event.event] for event in events],
        user_ids=[event.user_id for event in events],
        product_ids=[event.product_id for event in events],
        timestamps=[event.timestamp_ms for event in events],
        metadata=metadata,
    ).SerializeToString()


def accepted_reply(body: bytes) -> Accepted:
    reply = pb.InteractionsPostReply.FromString(body)
    return Accepted(reply.accepted, reply.expired)


def forgotten_reply(body: bytes) -> int:
    return pb.InteractionsDeleteReply.FromString(body).deleted


@_sends
def interactions_query(
    users: Sequence[Id], events: Sequence[str], bounds: Mapping[str, int | None]
) -> bytes:
    given = {name: each for name, each in bounds.items() if each is not None}
    query = pb.InteractionsQuery(user_ids=map(str, users), events=events)
    for name, value in given.items():
        setattr(query, name, value)
    return query.SerializeToString()


def interactions_reply(body: bytes) -> dict[str, dict[str, InteractionList]]:
    """Return the lists by user and event type."""
    reply = pb.InteractionsReply.FromString(body)
    lists = iter(reply.lists)
    return {
        user: {event: _interaction_list(next(lists)) for event in reply.events}
        for user in reply.user_ids
    }


def _interaction_list(given: pb.InteractionList) -> InteractionList:
    metadata: list[dict[str, Any] | None] = [
        orjson.loads(text) if text else None for text in given.metadata
    ]
    return InteractionList(
        [*given.product_ids],
        np.array(given.timestamps, dtype=np.int64),
        metadata or [None] * len(given.product_ids),
    )


@_sends
def infer(
    context: Mapping[str, Ids],
    inputs: Mapping[str, float | Values],
    top_k: int | None,
    returned: Sequence[str],
) -> bytes:
    blocks = {name: to_block(_numbers(each, f"inputs.{name}")) for name, each in inputs.items()}
    message = pb.Infer(context=_ids_by_name(context, "context"), inputs=blocks, returned=returned)
    if top_k is not None:
        message.top_k = top_k
    return message.SerializeToString()


def _numbers(given: float | Values, field: str) -> Array:
    values = np.asarray(given)
    if values.dtype.kind not in "fiu":
        raise InvalidInput("an input must hold numbers", field=field)
    return values


def infer_reply(body: bytes) -> Ranking:
    reply = pb.InferReply.FromString(body)
    matrix: npt.NDArray[np.float32] | None = None
    if reply.HasField("matrix"):
        matrix = from_block(reply.matrix, field="matrix").values
    return Ranking(
        [*reply.ids],
        np.frombuffer(reply.scores, dtype="<f4"),
        {name: np.frombuffer(each, dtype="<f4") for name, each in reply.outputs.items()},
        [*reply.columns],
        matrix,
        dict(reply.defaults),
        reply.revision,
    )


def flow_reply(body: bytes) -> FlowRun:
    reply = orjson.loads(body)
    output = reply["output"]
    columns = {name: _column(each) for name, each in output.items() if name != "ids"}
    return FlowRun(output["ids"], columns, reply.get("trace", []), reply["revision"])


def _column(values: list[Any]) -> Array:
    named = [NON_FINITE.get(each, each) if isinstance(each, str) else each for each in values]
    kinds = set(map(type, named))
    if kinds <= {int, float} or kinds == {bool}:
        return np.array(named, dtype=None if named else np.float64)
    found = np.empty(len(values), dtype=object)
    found[:] = values
    return found


def catalog_reply(body: bytes) -> CatalogListing:
    return msgspec.json.decode(body, type=CatalogListing)


def object_reply(body: bytes) -> CatalogRecord:
    reply = orjson.loads(body)
    return CatalogRecord(reply["object"], reply["revision"], reply.get("schema_versions", []))


def revision_reply(body: bytes) -> int:
    revision: int = orjson.loads(body)["revision"]
    return revision


def plain_reply(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(body)
    return found


def endpoints_reply(body: bytes) -> list[str]:
    return [each["url"] for each in orjson.loads(body)["endpoints"]]
