"""Bodies and query strings of requests.

A field that is unknown, missing, of a wrong type or out of bounds gets a 400 with its path; a list
that is too long gets a 413. Bounds and choices are declared on the fields, and `/openapi.json`
shows them.
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
    """Base of all bodies and query strings. Unknown fields are refused."""


class FeaturesGet(Message):
    """The body of `POST /v1/features/get`."""

    entity: str
    keys: dict[str, Ids]
    """Ids by key name: a list with one id per row, or one id for all rows."""
    features: Annotated[list[str], Meta(min_length=1)]
    """Names like `group.feature`, without the entity."""
    provenance: bool = False
    """Whether the reply has `provenance`, `age_ms` and `tier`."""


class FeaturesPut(Message):
    """The body of `POST /v1/features/put`."""

    group: str
    keys: dict[str, Ids]
    columns: dict[str, list[Any]]
    """Values by feature, one per row."""
    event_time: Times | None = None
    """In Unix milliseconds, one for all rows or one per row; the time of the request by default."""
    schema_version: int | None = None
    """The schema version of `columns`, the newest by default."""


class FeaturesDelete(Message):
    """The body of `POST /v1/features/delete`."""

    group: str
    keys: dict[str, Ids]
    event_time: Times | None = None
    """In Unix milliseconds, one for all rows or one per row; the time of the request by default."""
    force: bool = False
    """Remove rows that are more than five minutes in the future, without a trace."""


class EventMessage(Message):
    """One event of a user."""

    user_id: Id
    event: str
    """The event type."""
    product_id: Id
    timestamp: int
    """In Unix milliseconds."""
    metadata: dict[str, Any] | None = None


class InteractionsPost(Message):
    """The body of `POST /v1/interactions`."""

    events: Annotated[list[EventMessage], Meta(min_length=1, max_length=MAX_EVENTS)]


class InteractionsQuery(Message):
    """The body of `POST /v1/interactions/query`; its bounds apply to each list of events."""

    user_ids: Annotated[list[Id], Meta(min_length=1)]
    events: Annotated[list[str], Meta(min_length=1)]
    """Event types."""
    last: Count | None = None
    """The number of newest events."""
    since: int | None = None
    """Start of the range in Unix milliseconds, inclusive."""
    until: int | None = None
    """End of the range in Unix milliseconds, inclusive."""
    limit: Count | None = None
    """The maximum number of events of the range."""


class InteractionsBounds(Message):
    """The query string of `GET /v1/interactions/{user_id}/{event}`."""

    last: (
        Annotated[Count, Meta(description="how many events to return, newest first")] | UnsetType
    ) = UNSET
    since: (
        Annotated[int, Meta(description="start of the range in Unix milliseconds, inclusive")]
        | UnsetType
    ) = UNSET
    until: (
        Annotated[int, Meta(description="end of the range in Unix milliseconds, inclusive")]
        | UnsetType
    ) = UNSET
    limit: (
        Annotated[Count, Meta(description="the maximum number of events of the range")] | UnsetType
    ) = UNSET


class CatalogHistory(Message):
    """The query string of `GET /v1/catalog`."""

    history: Annotated[
        int, Meta(ge=0, le=MAX_HISTORY, description="how many revisions to list, newest first")
    ] = 20


class ExpectedRevision(Message):
    """The query string of `DELETE /v1/catalog/{kind}/{name}`."""

    expected_revision: (
        Annotated[int, Meta(description="the revision that must be live; otherwise a 409")]
        | UnsetType
    ) = UNSET


class CatalogPut(Message):
    """The body of `PUT /v1/catalog/{kind}/{name}`."""

    object: dict[str, Any]
    expected_revision: int | None = None


class ObjectName(Message):
    """The kind and name of an object."""

    kind: str
    name: str


class CatalogPost(Message):
    """The body of `POST /v1/catalog`: objects to put and to delete as one revision."""

    objects: list[dict[str, Any]] = []
    delete: list[ObjectName] = []
    expected_revision: int | None = None


class FlowRun(Message):
    """The body of `POST /v1/flows/{name}`."""

    context: dict[str, Any]
    """The ids and values that the flow reads."""
    trace: bool = False
    """Whether the reply has a trace."""


class Infer(Message):
    """The body of `POST /v1/infer/{model_id}`."""

    context: dict[str, Id | Annotated[list[Id], Meta(min_length=1, max_length=MAX_ROWS)]]
    """Ids by name: a list with one id per row for the name in `rows` of the inferflow, else one."""
    inputs: dict[str, float | list[float]] = {}
    """Inputs by name: a list with one number per row, or one number for all rows."""
    top_k: Annotated[int, Meta(ge=1)] | None = None
    """The number of rows to return, best first; by default all, in the order of the request."""
    returned: list[Returned] = msgspec.field(name="return", default_factory=list)
    """The optional fields that the reply must have."""
