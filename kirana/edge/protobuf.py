"""Protobuf bodies: requests are decoded into `kirana.edge.messages`, replies are encoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeVar, cast

import msgspec
import numpy as np
import orjson
from google.protobuf.message import DecodeError, Message

from kirana.codecs import Column
from kirana.edge import messages
from kirana.edge.errors import HttpError
from kirana.edge.selection import MAX_SELECTIONS, Selection
from kirana.edge.validation import check_bounds
from kirana.errors import InvalidInput
from kirana.features import EntityRows
from kirana.features.source import WriteResult
from kirana.inferflow import InferResult
from kirana.interactions import Interactions
from kirana.interactions.source import Appended
from kirana.schema import Array, Feature
from kirana.wire import messages_pb2 as pb
from kirana.wire.blocks import fill_block, from_block, stacked_nulls, to_block

CONTENT_TYPE = b"application/x-protobuf"

M = TypeVar("M", bound=msgspec.Struct)


def decode(message: type[M], body: bytes) -> M:
    """Decode a Protobuf body into a `message`.

    Raise `HttpError` if the body can't be parsed, `InvalidInput` with the field if a value is
    wrong.
    """
    kind, convert = _REQUESTS[message]
    parsed = kind()
    try:
        parsed.ParseFromString(body)
    except DecodeError as error:
        raise HttpError(
            400, "invalid_protobuf", f"the body is not a {kind.DESCRIPTOR.name} message: {error}"
        ) from None
    converted = cast(M, convert(parsed))
    check_bounds(converted)
    return converted


def _ids(ids: pb.Ids, field: str) -> Any:
    if ids.texts and ids.numbers:
        raise InvalidInput("give either 'texts' or 'numbers', not both", field=field)
    values: list[Any] = [*ids.texts] or [*ids.numbers]
    if not ids.one:
        return values
    if len(values) != 1:
        raise InvalidInput(
            f"must have exactly one id, not {len(values)}, because 'one' is set", field=field
        )
    return values[0]


def _ids_by_name(ids_by_name: Mapping[str, pb.Ids], field: str) -> dict[str, Any]:
    return {name: _ids(ids, f"{field}.{name}") for name, ids in ids_by_name.items()}


def _times(times: pb.Times | None) -> int | list[int] | None:
    if times is None:
        return None
    if not times.one:
        return [*times.ms]
    if len(times.ms) != 1:
        raise InvalidInput(
            f"must have exactly one time, not {len(times.ms)}, because 'one' is set",
            field="event_time",
        )
    return times.ms[0]


def _optional(parsed: Any, name: str) -> Any:
    return getattr(parsed, name) if parsed.HasField(name) else None


def _features_get(parsed: pb.FeaturesGet) -> messages.FeaturesGet:
    keys = _ids_by_name(parsed.keys, "keys")
    return messages.FeaturesGet(parsed.entity, keys, [*parsed.features], parsed.provenance)


def _features_put(parsed: pb.FeaturesPut) -> messages.FeaturesPut:
    for name, block in parsed.columns.items():
        if not block.shape:
            raise InvalidInput(
                "the first dimension must be the number of rows, one per key",
                field=f"columns.{name}.shape",
            )
    columns: dict[str, Any] = {
        name: from_block(block, field=f"columns.{name}") for name, block in parsed.columns.items()
    }
    return messages.FeaturesPut(
        parsed.group,
        _ids_by_name(parsed.keys, "keys"),
        columns,
        _times(_optional(parsed, "event_time")),
        _optional(parsed, "schema_version"),
    )


def _features_delete(parsed: pb.FeaturesDelete) -> messages.FeaturesDelete:
    times = _times(_optional(parsed, "event_time"))
    keys = _ids_by_name(parsed.keys, "keys")
    return messages.FeaturesDelete(parsed.group, keys, times, parsed.force)


def _interactions_post(parsed: pb.InteractionsPost) -> messages.InteractionsPost:
    count = len(parsed.events)
    for name in ("user_ids", "product_ids", "timestamps"):
        _require_count(name, len(getattr(parsed, name)), count)
    if parsed.metadata:
        _require_count("metadata", len(parsed.metadata), count)
    types = [*parsed.types]
    texts = parsed.metadata or [""] * count
    events = []
    for i, (type_index, text) in enumerate(zip(parsed.events, texts, strict=True)):
        if type_index >= len(types):
            raise InvalidInput(
                f"{type_index} is not the index of an entry in 'types'", field=f"events[{i}].event"
            )
        events.append(
            messages.EventMessage(
                parsed.user_ids[i],
                types[type_index],
                parsed.product_ids[i],
                parsed.timestamps[i],
                _metadata(text, i) if text else None,
            )
        )
    return messages.InteractionsPost(events)


def _require_count(name: str, entries: int, events: int) -> None:
    if entries != events:
        raise InvalidInput(f"expected {events} entries, one per event, not {entries}", field=name)


def _metadata(text: str, index: int) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        reason = f"must be a JSON object: {error}"
        raise InvalidInput(reason, field=f"events[{index}].metadata") from None
    return metadata


def _interactions_query(parsed: pb.InteractionsQuery) -> messages.InteractionsQuery:
    names = ("last", "since", "until", "limit")
    bounds = {name: _optional(parsed, name) for name in names}
    return messages.InteractionsQuery([*parsed.user_ids], [*parsed.events], **bounds)


def _infer(parsed: pb.Infer) -> messages.Infer:
    inputs: dict[str, Any] = {}
    for name, block in parsed.inputs.items():
        column = from_block(block, field=f"inputs.{name}")
        if column.values.dtype.kind not in "fiu" or column.nulls is not None:
            raise InvalidInput("an input must hold numbers", field=f"inputs.{name}")
        inputs[name] = column.values
    context = _ids_by_name(parsed.context, "context")
    returned = cast(list[messages.Returned], [*parsed.returned])
    return messages.Infer(context, inputs, _optional(parsed, "top_k"), returned)


_REQUESTS: dict[type[msgspec.Struct], tuple[type[Message], Callable[[Any], msgspec.Struct]]] = {
    messages.FeaturesGet: (pb.FeaturesGet, _features_get),
    messages.FeaturesPut: (pb.FeaturesPut, _features_put),
    messages.FeaturesDelete: (pb.FeaturesDelete, _features_delete),
    messages.InteractionsPost: (pb.InteractionsPost, _interactions_post),
    messages.InteractionsQuery: (pb.InteractionsQuery, _interactions_query),
    messages.Infer: (pb.Infer, _infer),
}
"""The Protobuf type of each message, and the function that converts from it.

Binary routes without a request body have no entry.
"""


def features_reply(selected: Selection, rows: EntityRows, revision: int) -> bytes:
    """Return an encoded `FeaturesReply`. If `rows` has no columns, its matrix is the only block."""
    reply = pb.FeaturesReply()
    # Requests repeat the same names. Parsing their cached bytes is faster than setting each name.
    reply.MergeFromString(_head(selected.requested, selected.dtypes))
    reply.revision = revision
    for group, codes in rows.status.items():
        reply.status[group] = codes.tobytes()
    if not rows.columns:
        block = reply.blocks.add()
        block.MergeFromString(_block_head(selected.names))
        fill_block(block.block, rows.matrix, rows.matrix_nulls)
    features = dict(zip(selected.requested, selected.features, strict=True)) if rows.columns else {}
    reply.blocks.extend(_feature_blocks(features, rows.columns))
    for name, codes in rows.provenance.items():
        reply.provenance[name] = codes.astype(np.uint8).tobytes()
    for group, ages in rows.age_ms.items():
        reply.age_ms[group] = ages.astype("<i8").tobytes()
    for group, tiers in rows.tier.items():
        reply.tier[group] = tiers.tobytes()
    return reply.SerializeToString()


@lru_cache(maxsize=MAX_SELECTIONS)
def _head(names: tuple[str, ...], dtypes: tuple[str, ...]) -> bytes:
    """Return the encoded names and dtypes of a `FeaturesReply`."""
    return pb.FeaturesReply(features=names, dtypes=dtypes).SerializeToString()


@lru_cache(maxsize=MAX_SELECTIONS)
def _block_head(names: tuple[str, ...]) -> bytes:
    """Return the encoded names of a `FeatureBlock`."""
    return pb.FeatureBlock(features=names).SerializeToString()


def _feature_blocks(
    features: Mapping[str, Feature], columns: Mapping[str, Column]
) -> Iterable[pb.FeatureBlock]:
    """Yield a block for each vector, then a block for each dtype with its scalars side by side."""
    scalars: dict[str, list[str]] = {}
    for name in columns:
        feature = features[name]
        if feature.shape:
            column = columns[name]
            block = to_block(column.values, column.nulls)
            yield pb.FeatureBlock(features=[name], block=block)
        else:
            scalars.setdefault(feature.dtype, []).append(name)
    for names in scalars.values():
        same_dtype = [columns[name] for name in names]
        values: Array = np.stack([column.values for column in same_dtype], axis=1)
        block = to_block(values, stacked_nulls(same_dtype))
        yield pb.FeatureBlock(features=names, block=block)


def put_reply(result: WriteResult) -> bytes:
    """Return an encoded `FeaturesPutReply`."""
    reply = pb.FeaturesPutReply(
        written=result.written,
        stale=result.stale,
        expired=result.expired,
        accepted=result.accepted,
    )
    return reply.SerializeToString()


def delete_reply(result: WriteResult) -> bytes:
    """Return an encoded `FeaturesDeleteReply`."""
    reply = pb.FeaturesDeleteReply(
        deleted=result.written, stale=result.stale, accepted=result.accepted
    )
    return reply.SerializeToString()


def accepted_reply(result: Appended) -> bytes:
    """Return an encoded `InteractionsPostReply`."""
    reply = pb.InteractionsPostReply(accepted=result.accepted, expired=result.expired)
    return reply.SerializeToString()


def forgotten_reply(deleted: int) -> bytes:
    """Return an encoded `InteractionsDeleteReply`."""
    return pb.InteractionsDeleteReply(deleted=deleted).SerializeToString()


def interactions_reply(
    users: Sequence[str], types: Sequence[str], interactions_by_query: Sequence[Interactions]
) -> bytes:
    """Return an encoded `InteractionsReply`.

    `interactions_by_query` is ordered by user, then by type.
    """
    lists = []
    for interactions in interactions_by_query:
        encoded = pb.InteractionList(product_ids=interactions.product_ids)
        encoded.timestamps.extend(interactions.timestamps_ms.tolist())
        if any(metadata is not None for metadata in interactions.metadata):
            encoded.metadata.extend(
                "" if metadata is None else orjson.dumps(metadata).decode()
                for metadata in interactions.metadata
            )
        lists.append(encoded)
    return pb.InteractionsReply(user_ids=users, events=types, lists=lists).SerializeToString()


def infer_reply(message: messages.Infer, result: InferResult, revision: int) -> bytes:
    """Return an encoded `InferReply`.

    It has outputs if `message` asks for them, and the matrix if `result` has one.
    """
    reply = pb.InferReply(
        ids=result.ids,
        scores=result.scores.astype("<f4", copy=False).tobytes(),
        defaults=dict(result.defaults),
        revision=revision,
    )
    if "outputs" in message.returned:
        for name, values in result.outputs.items():
            reply.outputs[name] = values.astype("<f4", copy=False).tobytes()
    if result.matrix is not None:
        reply.columns.extend(result.columns)
        reply.matrix.CopyFrom(to_block(result.matrix))
    return reply.SerializeToString()
