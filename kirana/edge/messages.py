"""What requests look like. Unknown and missing fields, and wrong types, are refused by name."""

from __future__ import annotations

from typing import Any

import msgspec

Id = str | int


class Request(msgspec.Struct, forbid_unknown_fields=True):
    pass


class FeaturesGet(Request):
    entity: str
    keys: dict[str, Id | list[Id]]
    features: list[str]
    provenance: bool = False


class FeaturesPut(Request):
    group: str
    keys: dict[str, Id | list[Id]]
    columns: dict[str, list[Any]]
    event_time: int | list[int] | None = None
    schema_version: int | None = None


class FeaturesDelete(Request):
    group: str
    keys: dict[str, Id | list[Id]]
    event_time: int | list[int] | None = None


class EventMessage(Request):
    user_id: Id
    event: str
    product_id: Id
    timestamp: int
    metadata: dict[str, Any] | None = None


class InteractionsPost(Request):
    events: list[EventMessage]


class InteractionsQuery(Request):
    user_ids: list[Id]
    events: list[str]
    last: int | None = None
    since: int | None = None
    until: int | None = None
    limit: int | None = None


class CatalogPut(Request):
    object: dict[str, Any]
    expected_revision: int | None = None


class ObjectName(Request):
    kind: str
    name: str


class CatalogPost(Request):
    objects: list[dict[str, Any]] = []
    delete: list[ObjectName] = []
    expected_revision: int | None = None


class FlowRun(Request):
    context: dict[str, Any]
    trace: bool = False


class Infer(Request):
    context: dict[str, Id | list[Id]]
    inputs: dict[str, float | list[float]] = {}
    top_k: int | None = None
    returned: list[str] = msgspec.field(name="return", default_factory=list)
