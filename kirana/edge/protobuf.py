"""The same messages as Proto3: requests into those of `messages`, answers into bytes."""

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
    """Parse a body. Raises `InvalidInput` with the field, `HttpError` if it is no such message."""
    kind, convert = _REQUESTS[message]
    parsed = kind()
    try:
        parsed.ParseFromString(body)
    except DecodeError as error:
        raise HttpError(
            400, "invalid_protobuf", f"the body is not such a message: {error}"
        ) from None
    converted = cast(M, convert(parsed))
    check_bounds(converted)
    return converted


def _ids(ids: pb.Ids, field: str) -> Any:
    if ids.texts and ids.numbers:
        raise InvalidInput("give texts or numbers, not both", field=field)
    found: list[Any] = [*ids.texts] or [*ids.numbers]
    if not ids.one:
        return found
    if len(found) != 1:
        raise InvalidInput(f"'one' needs exactly one id, not {len(found)}", field=field)
    return found[0]


def _ids_by_name(given: Mapping[str, pb.Ids], field: str) -> dict[str, Any]:
    return {name: _ids(each, f"{field}.{name}") for name, each in given.items()}


def _times(times: pb.Times | None) -> int | list[int] | None:
    if times is None:
        return None
    if not times.one:
        return [*times.ms]
    if len(times.ms) != 1:
        raise InvalidInput(f"'one' needs exactly one time, not {len(times.ms)}", field="event_time")
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
                "a column must have one row for each key", field=f"columns.{name}.shape"
            )
    columns: dict[str, Any] = {
        name: from_block(each, field=f"columns.{name}") for name, each in parsed.columns.items()
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
    return messages.FeaturesDelete(parsed.group, _ids_by_name(parsed.keys, "keys"), times)


def _interactions_post(parsed: pb.InteractionsPost) -> messages.InteractionsPost:
    count = len(parsed.events)
    for name in ("user_ids", "product_ids", "timestamps"):
        if len(getattr(parsed, name)) != count:
            raise InvalidInput(f"it must have one entry for each of the {count} events", field=name)
    if len(parsed.metadata) not in (0, count):
        raise InvalidInput(
            f"it must have one entry for each of the {count} events", field="metadata"
        )
    types = [*parsed.types]
    texts = parsed.metadata or [""] * count
    events = []
    for at, (kind, text) in enumerate(zip(parsed.events, texts, strict=True)):
        if kind >= len(types):
            raise InvalidInput(f"{kind} is not an index into types", field=f"events[{at}].event")
        events.append(
            messages.EventMessage(
                parsed.user_ids[at],
                types[kind],
                parsed.product_ids[at],
                parsed.timestamps[at],
                _metadata(text, at) if text else None,
            )
        )
    return messages.InteractionsPost(events)


def _metadata(text: str, at: int) -> dict[str, Any]:
    try:
        found: dict[str, Any] = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, RecursionError) as error:
        reason = f"this is no JSON object: {error}"
        raise InvalidInput(reason, field=f"events[{at}].metadata") from None
    return found


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
"""The routes that take them: what has no body here has none in JSON either."""


def features_reply(selected: Selection, rows: EntityRows, revision: int) -> bytes:
    """Encode a read; what `rows` has as a matrix, and not as columns, is one block of it."""
    reply = pb.FeaturesReply()
    # names, again and again the same, are parsed faster than they are set one by one
    reply.MergeFromString(_head(selected.asked, selected.dtypes))
    reply.revision = revision
    for group, codes in rows.status.items():
        reply.status[group] = codes.tobytes()
    if not rows.columns:
        block = reply.blocks.add()
        block.MergeFromString(_block_head(selected.names))
        fill_block(block.block, rows.matrix, rows.matrix_nulls)
    features = dict(zip(selected.asked, selected.features, strict=True)) if rows.columns else {}
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
    return pb.FeaturesReply(features=names, dtypes=dtypes).SerializeToString()


@lru_cache(maxsize=MAX_SELECTIONS)
def _block_head(names: tuple[str, ...]) -> bytes:
    return pb.FeatureBlock(features=names).SerializeToString()


def _feature_blocks(
    features: Mapping[str, Feature], columns: Mapping[str, Column]
) -> Iterable[pb.FeatureBlock]:
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
        together = [columns[name] for name in names]
        values: Array = np.stack([each.values for each in together], axis=1)
        block = to_block(values, stacked_nulls(together))
        yield pb.FeatureBlock(features=names, block=block)


def put_reply(done: WriteResult) -> bytes:
    reply = pb.FeaturesPutReply(written=done.written, stale=done.stale, expired=done.expired)
    return reply.SerializeToString()


def delete_reply(deleted: int, stale: int) -> bytes:
    return pb.FeaturesDeleteReply(deleted=deleted, stale=stale).SerializeToString()


def accepted_reply(done: Appended) -> bytes:
    reply = pb.InteractionsPostReply(accepted=done.accepted, expired=done.expired)
    return reply.SerializeToString()


def forgotten_reply(deleted: int) -> bytes:
    return pb.InteractionsDeleteReply(deleted=deleted).SerializeToString()


def interactions_reply(
    users: Sequence[str], types: Sequence[str], found: Sequence[Interactions]
) -> bytes:
    lists = []
    for each in found:
        one = pb.InteractionList(product_ids=each.product_ids)
        one.timestamps.extend(each.timestamps_ms.tolist())
        if any(metadata is not None for metadata in each.metadata):
            one.metadata.extend(
                "" if metadata is None else orjson.dumps(metadata).decode()
                for metadata in each.metadata
            )
        lists.append(one)
    return pb.InteractionsReply(user_ids=users, events=types, lists=lists).SerializeToString()


def infer_reply(message: messages.Infer, result: InferResult, revision: int) -> bytes:
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
