"""Bodies of replies: handlers return them, and `/openapi.json` shows their schemas.

For a large list, a handler may put a `fragment` into the field instead.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import UNSET, UnsetType

Number = float | Literal["NaN", "Infinity", "-Infinity"]
RowStatus = Literal["ok", "missing", "expired", "unavailable", "corrupt"]
CellProvenance = Literal["stored", "null", "no_row", "not_in_version"]
RowTier = Literal["cache", "durable", "hot"]
PartState = Literal["ok", "unavailable"]


def fragment(encoded: bytes) -> Any:
    """Return JSON as a value that is copied into a reply unchanged."""
    return msgspec.Raw(encoded)


class Reply(msgspec.Struct, forbid_unknown_fields=True):
    """Base of all replies. Their schemas allow no other fields."""


class ErrorBody(Reply):
    """An error."""

    code: str
    """Stable, and meant for programs."""
    message: str
    """Meant for people."""
    field: str | None
    """The field of the request that is wrong, like `events[3].timestamp`; null if none is known."""


class ErrorReply(Reply):
    """The body of a response with a status of 400 or more, unless `/healthz` reports the parts."""

    error: ErrorBody


class FeaturesGetReply(Reply):
    """Features of one entity, one row per key."""

    features: list[str]
    dtypes: list[str]
    """One per feature, like `float32` or `float16[32]`."""
    values: list[list[Any]]
    """Rows in the order of the keys, with one value per feature."""
    status: dict[str, list[RowStatus]]
    """By feature group, one per row."""
    revision: int
    provenance: dict[str, list[CellProvenance]] | UnsetType = UNSET
    """By feature, one per row."""
    age_ms: dict[str, list[int | None]] | UnsetType = UNSET
    """By feature group, one per row; null unless the status of the row is `ok` or `expired`."""
    tier: dict[str, list[RowTier | None]] | UnsetType = UNSET
    """By feature group, one per row; null unless the status of the row is `ok` or `expired`."""


class FeaturesPutReply(Reply):
    """How many rows were written and are readable, and how many are not.

    `stale` rows were older than the stored ones. `expired` rows were already past their TTL. If the
    store can't tell whether a row was stale, the row counts as written.
    """

    written: int
    stale: int
    expired: int


class AcceptedReply(Reply):
    """How many rows Kafka has taken. They are not in the store yet."""

    accepted: int
    by: Literal["kafka"] = "kafka"


class FeaturesDeleteReply(Reply):
    """How many keys were deleted, and how many rows were kept because they are newer (`stale`).

    If the store can't tell whether a row was kept, its key counts as deleted.
    """

    deleted: int
    stale: int


class InteractionsPostReply(Reply):
    """How many events are within the TTL of their type, and how many were already past it."""

    accepted: int
    expired: int


class Interaction(Reply):
    """One event of a user. The request or the surrounding object has its type."""

    product_id: str
    timestamp: int
    """In Unix milliseconds."""
    metadata: dict[str, Any] | UnsetType = UNSET


class InteractionsGetReply(Reply):
    """Events of one user and type, newest first."""

    interactions: list[Interaction]


class InteractionsQueryReply(Reply):
    """Events by user and then by event type, newest first."""

    interactions: dict[str, dict[str, list[Interaction]]]


class InteractionsDeleteReply(Reply):
    """How many events were deleted."""

    deleted: int


class Span(Reply):
    """The run of one node of a flow."""

    node: str
    op: str
    state: Literal["ok", "skipped", "fallback"]
    start_ms: float
    """Milliseconds since the start of the flow."""
    took_ms: float
    attempts: int
    size: int
    """How many entries the node's value has."""
    error: str | None


class FlowRunReply(Reply):
    """The candidates of a flow, and a trace if the request asks for one."""

    output: dict[str, list[Any]]
    """`ids`, and columns with one value per id, for example `scores`."""
    revision: int
    trace: list[Span] | UnsetType = UNSET


class InferMatrix(Reply):
    """The feature matrix that the models of an inferflow received."""

    columns: list[str]
    rows: list[list[Number]]


class InferReply(Reply):
    """Scores of an inferflow, in the order of the request, or best first with `top_k`."""

    ids: list[str]
    scores: list[Number]
    defaults: dict[str, int]
    """By feature group, how many rows of the request had its defaults. 0 is left out."""
    revision: int
    outputs: dict[str, list[Number]] | UnsetType = UNSET
    matrix: InferMatrix | UnsetType = UNSET


class Revision(Reply):
    """One revision in the history of the catalog."""

    revision: int
    published_ms: int
    put: list[str]
    """Objects that the revision added or changed, as `kind name`."""
    deleted: list[str]
    """Objects that the revision removed, as `kind name`."""


class CatalogListReply(Reply):
    """The live objects, and the newest revisions."""

    revision: int
    catalog: str
    """The identity of the catalog."""
    objects: dict[str, list[str]]
    """Names by kind."""
    history: list[Revision]
    """Newest first; empty while the catalog can't be read."""
    away_since: int | UnsetType = UNSET
    """In Unix milliseconds; present only while the catalog can't be read."""


class SchemaVersionRecord(Reply):
    """One schema version of a feature group."""

    version: int
    fingerprint: str
    """8 hexadecimal digits."""
    features: list[dict[str, Any]]


class CatalogGetReply(Reply):
    """One object, and the schema versions if it is a feature group."""

    object: dict[str, Any]
    revision: int
    schema_versions: list[SchemaVersionRecord] | UnsetType = UNSET


class CatalogChangeReply(Reply):
    """The number of the newest revision after the change, and warnings about the catalog."""

    revision: int
    warnings: list[str] | UnsetType = UNSET


class DirectPort(Reply):
    """The direct port of one replica."""

    replica: str
    url: str


class EndpointsReply(Reply):
    """The live direct ports."""

    endpoints: list[DirectPort]


class BreakerReport(Reply):
    """A circuit breaker: it opens after three failed calls in a row.

    While it is open, it lets one call per second through and refuses the others. It closes when a
    call succeeds.
    """

    state: Literal["closed", "open"]
    failed: int
    """How many calls failed."""
    opened: int
    """How many times the breaker opened."""
    refused: int
    """How many calls it refused while it was open."""


class CacheReport(Reply):
    """Counters of the feature cache in one replica."""

    hits: int
    """Keys that were found."""
    misses: int
    """Keys that were not found."""
    refused: int
    """Fetched rows that were not admitted."""
    evicted: int
    """Rows that were removed to make space for others."""
    bytes: int
    """The current size of the cache in bytes."""


class HotRowsReport(Reply):
    """How many rows a replica has read and copied since its start."""

    hot: int
    """Rows that were read from copies in the hot tier."""
    durable: int
    """Rows that were read from the durable store."""
    unreachable: int
    """Rows that were read from the durable store because the hot tier did not answer."""
    filled: int
    """Copies that were stored."""
    not_filled: int
    """Copies that were left out, because a write came first or another reader was faster."""


class HotTierReport(Reply):
    """The hot tier of the features, as one replica sees it."""

    store: str
    breaker: BreakerReport
    rows: HotRowsReport
    untold: int
    """How many writes the hot tier could not be told of."""
    generations: int
    """How many generations of copies the replica has begun."""
    away: list[str] | UnsetType = UNSET
    """Nodes of a cluster that do not answer."""
    reason: str | UnsetType = UNSET
    """Why copies are not used."""


class ConsumerReport(Reply):
    """The state of one consumer of the feature stream."""

    partitions: list[int]
    """The partitions that it reads."""
    lag: int | None
    """How many messages wait; null before it is known."""
    done: int
    """Messages whose rows were written since the consumer was started."""
    refused: int
    """Messages that became dead letters since then."""


class ArchiveReport(Reply):
    """The state of the archiver of the feature stream."""

    lag: int | None
    """How many messages are not in the archive yet; null before it is known."""
    rows: int
    """Rows that were written since the archiver was started."""
    files: int
    """Files that were written since then."""
    skipped: int
    """Messages that could not be read any more, because the catalog lacks their group."""


class PartReport(Reply):
    """The state of one part, or of the catalog. Fields that don't apply are left out."""

    state: PartState
    reason: str | UnsetType = UNSET
    """Why the part is unavailable."""
    revision: int | UnsetType = UNSET
    catalog: str | UnsetType = UNSET
    """The identity of the catalog."""
    refused_revisions: int | UnsetType = UNSET
    """How many published revisions could not become live."""
    away_since: int | UnsetType = UNSET
    """In Unix milliseconds; present only while the catalog can't be read."""
    store: str | UnsetType = UNSET
    """The store of the part, for example `lmdb`."""
    away: list[str] | UnsetType = UNSET
    """Nodes of a cluster that do not answer."""
    breaker: BreakerReport | UnsetType = UNSET
    cache: CacheReport | UnsetType = UNSET
    hot: HotTierReport | UnsetType = UNSET
    consumers: list[ConsumerReport] | UnsetType = UNSET
    """Of the feature stream: those that answer."""
    lag: int | UnsetType = UNSET
    """How many messages of the feature stream wait; present if all consumers know it."""
    archive: ArchiveReport | UnsetType = UNSET
    clock: str | UnsetType = UNSET
    """Why writes are refused; present only if the clocks of the replica and the store differ."""


class HealthReply(Reply):
    """The state of each part and of the catalog; `status` is "ok" only if all of them are."""

    status: PartState
    parts: dict[str, PartReport]
    age_ms: int
    """How many milliseconds ago the parts were checked. They are checked about once a second."""


class OpenApiReply(msgspec.Struct):
    """The OpenAPI document."""

    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]
