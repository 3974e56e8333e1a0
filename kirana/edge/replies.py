"""What replies look like: what handlers return, and the schemas in `/openapi.json`.

Where a list may be large, a handler puts a `fragment` in its place, which is encoded already.
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
    """Return JSON that goes into a reply as it is."""
    return msgspec.Raw(encoded)


class Reply(msgspec.Struct, forbid_unknown_fields=True):
    pass


class ErrorBody(Reply):
    code: str
    message: str
    field: str | None


class ErrorReply(Reply):
    error: ErrorBody


class FeaturesGetReply(Reply):
    features: list[str]
    dtypes: list[str]
    values: list[list[Any]]
    status: dict[str, list[RowStatus]]
    revision: int
    provenance: dict[str, list[CellProvenance]] | UnsetType = UNSET
    age_ms: dict[str, list[int | None]] | UnsetType = UNSET
    tier: dict[str, list[RowTier | None]] | UnsetType = UNSET


class FeaturesPutReply(Reply):
    written: int
    stale: int
    expired: int


class FeaturesDeleteReply(Reply):
    deleted: int
    stale: int


class InteractionsPostReply(Reply):
    accepted: int
    expired: int


class Interaction(Reply):
    product_id: str
    timestamp: int
    metadata: dict[str, Any] | UnsetType = UNSET


class InteractionsGetReply(Reply):
    interactions: list[Interaction]


class InteractionsQueryReply(Reply):
    interactions: dict[str, dict[str, list[Interaction]]]


class InteractionsDeleteReply(Reply):
    deleted: int


class Span(Reply):
    node: str
    op: str
    state: Literal["ok", "skipped", "fallback"]
    start_ms: float
    took_ms: float
    attempts: int
    size: int
    error: str | None


class FlowRunReply(Reply):
    output: dict[str, list[Any]]
    revision: int
    trace: list[Span] | UnsetType = UNSET


class InferMatrix(Reply):
    columns: list[str]
    rows: list[list[Number]]


class InferReply(Reply):
    ids: list[str]
    scores: list[Number]
    defaults: dict[str, int]
    revision: int
    outputs: dict[str, list[Number]] | UnsetType = UNSET
    matrix: InferMatrix | UnsetType = UNSET


class Revision(Reply):
    revision: int
    published_ms: int
    put: list[str]
    deleted: list[str]


class CatalogListReply(Reply):
    """`away_since` (ms) is there while the catalog can't be read: `history` is empty then."""

    revision: int
    catalog: str
    objects: dict[str, list[str]]
    history: list[Revision]
    away_since: int | UnsetType = UNSET


class SchemaVersionRecord(Reply):
    version: int
    fingerprint: str
    features: list[dict[str, Any]]


class CatalogGetReply(Reply):
    object: dict[str, Any]
    revision: int
    schema_versions: list[SchemaVersionRecord] | UnsetType = UNSET


class CatalogChangeReply(Reply):
    revision: int
    warnings: list[str] | UnsetType = UNSET


class DirectPort(Reply):
    replica: str
    url: str


class EndpointsReply(Reply):
    endpoints: list[DirectPort]


class BreakerReport(Reply):
    """Of a database that did not answer three times in a row, calls are refused for a second."""

    state: Literal["closed", "open"]
    failed: int
    opened: int
    refused: int


class CacheReport(Reply):
    """Keys that were looked up, and what became of rows that were fetched."""

    hits: int
    misses: int
    refused: int
    evicted: int
    bytes: int


class PartReport(Reply):
    state: PartState
    reason: str | UnsetType = UNSET
    revision: int | UnsetType = UNSET
    catalog: str | UnsetType = UNSET
    refused_revisions: int | UnsetType = UNSET
    away_since: int | UnsetType = UNSET
    store: str | UnsetType = UNSET
    away: list[str] | UnsetType = UNSET
    breaker: BreakerReport | UnsetType = UNSET
    cache: CacheReport | UnsetType = UNSET


class HealthReply(Reply):
    status: PartState
    parts: dict[str, PartReport]


class OpenApiReply(msgspec.Struct):
    openapi: str
    info: dict[str, Any]
    paths: dict[str, Any]
    components: dict[str, Any]
