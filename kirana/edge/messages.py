"""What requests look like. What is unknown, missing, of a wrong type or out of bounds is refused.

Bounds and choices stand here, and `/openapi.json` has them from here. A list that is too long gets
a 413, all else a 400, with the name of the field.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from kirana.edge.limits import MAX_EVENTS, MAX_HISTORY, MAX_INTERACTIONS, MAX_KEYS
from kirana.inferflow.source import MAX_ROWS

Id = str | int
Ids = Id | Annotated[list[Id], Meta(min_length=1, max_length=MAX_KEYS)]
Times = int | list[int]
Count = Annotated[int, Meta(ge=1, le=MAX_INTERACTIONS)]


Returned = Literal["outputs", "matrix"]


class Message(msgspec.Struct, forbid_unknown_fields=True):
    pass


class FeaturesGet(Message):
    entity: str
    keys: dict[str, Ids]
    features: Annotated[list[str], Meta(min_length=1)]
    provenance: bool = False


class FeaturesPut(Message):
    group: str
    keys: dict[str, Ids]
    columns: dict[str, list[Any]]
    event_time: Times | None = None
    schema_version: int | None = None


class FeaturesDelete(Message):
    group: str
    keys: dict[str, Ids]
    event_time: Times | None = None


class EventMessage(Message):
    user_id: Id
    event: str
    product_id: Id
    timestamp: int
    metadata: dict[str, Any] | None = None


class InteractionsPost(Message):
    events: Annotated[list[EventMessage], Meta(min_length=1, max_length=MAX_EVENTS)]


class InteractionsQuery(Message):
    user_ids: Annotated[list[Id], Meta(min_length=1)]
    events: Annotated[list[str], Meta(min_length=1)]
    last: Count | None = None
    since: int | None = None
    until: int | None = None
    limit: Count | None = None


class InteractionsBounds(Message):
    """The query string of `GET /v1/interactions/{user_id}/{event}`."""

    last: Annotated[Count, Meta(description="how many, newest first")] | UnsetType = UNSET
    since: Annotated[int, Meta(description="from this time in ms, included")] | UnsetType = UNSET
    until: Annotated[int, Meta(description="to this time in ms, included")] | UnsetType = UNSET
    limit: Annotated[Count, Meta(description="at most how many of a range")] | UnsetType = UNSET


class CatalogHistory(Message):
    """The query string of `GET /v1/catalog`."""

    history: Annotated[
        int, Meta(ge=0, le=MAX_HISTORY, description="how many revisions, the newest first")
    ] = 20


class ExpectedRevision(Message):
    """The query string of `DELETE /v1/catalog/{kind}/{name}`."""

    expected_revision: (
        Annotated[int, Meta(description="the revision that is live now")] | UnsetType
    ) = UNSET


class CatalogPut(Message):
    object: dict[str, Any]
    expected_revision: int | None = None


class ObjectName(Message):
    kind: str
    name: str


class CatalogPost(Message):
    objects: list[dict[str, Any]] = []
    delete: list[ObjectName] = []
    expected_revision: int | None = None


class FlowRun(Message):
    context: dict[str, Any]
    trace: bool = False


class Infer(Message):
    context: dict[str, Id | Annotated[list[Id], Meta(min_length=1, max_length=MAX_ROWS)]]
    inputs: dict[str, float | list[float]] = {}
    top_k: Annotated[int, Meta(ge=1)] | None = None
    returned: list[Returned] = msgspec.field(name="return", default_factory=list)
