"""The routes: what the application matches, and what `/openapi.json` describes."""

from __future__ import annotations

from dataclasses import dataclass

import msgspec

from kirana.edge import messages, replies
from kirana.request import Priority


@dataclass(frozen=True, slots=True)
class RouteSpec:
    """`template` has its open segments in braces; `request` and `reply` are the bodies."""

    name: str
    method: str
    template: str
    summary: str
    reply: type[msgspec.Struct]
    request: type[msgspec.Struct] | None = None
    query: tuple[str, ...] = ()
    binary: bool = False
    """Whether it also takes and gives `application/x-protobuf`."""
    priority: Priority = "shopper"

    @property
    def segments(self) -> tuple[str | None, ...]:
        """The path in parts, None where it is open."""
        parts = self.template.split("/")[1:]
        return tuple(None if part.startswith("{") else part for part in parts)

    @property
    def open_segments(self) -> tuple[str, ...]:
        return tuple(p[1:-1] for p in self.template.split("/") if p.startswith("{"))


ROUTES = (
    RouteSpec(
        "features_get",
        "POST",
        "/v1/features/get",
        "Read features of an entity, one row a key",
        replies.FeaturesGetReply,
        messages.FeaturesGet,
        binary=True,
    ),
    RouteSpec(
        "features_put",
        "POST",
        "/v1/features/put",
        "Write rows of a feature group",
        replies.FeaturesPutReply,
        messages.FeaturesPut,
        binary=True,
        priority="writer",
    ),
    RouteSpec(
        "features_delete",
        "POST",
        "/v1/features/delete",
        "Delete rows of a feature group",
        replies.FeaturesDeleteReply,
        messages.FeaturesDelete,
        binary=True,
        priority="writer",
    ),
    RouteSpec(
        "interactions_post",
        "POST",
        "/v1/interactions",
        "Store events, all or none",
        replies.InteractionsPostReply,
        messages.InteractionsPost,
        binary=True,
        priority="writer",
    ),
    RouteSpec(
        "interactions_query",
        "POST",
        "/v1/interactions/query",
        "Read the events of many users and types",
        replies.InteractionsQueryReply,
        messages.InteractionsQuery,
        binary=True,
    ),
    RouteSpec(
        "interactions_get",
        "GET",
        "/v1/interactions/{user_id}/{event}",
        "Read the newest events of a user and type, or those of a time range",
        replies.InteractionsGetReply,
        query=("last", "since", "until", "limit"),
        binary=True,
    ),
    RouteSpec(
        "interactions_delete",
        "DELETE",
        "/v1/interactions/{user_id}",
        "Forget everything that a user did",
        replies.InteractionsDeleteReply,
        binary=True,
        priority="writer",
    ),
    RouteSpec(
        "flow_run",
        "POST",
        "/v1/flows/{name}",
        "Run a flow",
        replies.FlowRunReply,
        messages.FlowRun,
    ),
    RouteSpec(
        "infer",
        "POST",
        "/v1/infer/{model_id}",
        "Score rows by an inferflow",
        replies.InferReply,
        messages.Infer,
        binary=True,
    ),
    RouteSpec(
        "catalog_list",
        "GET",
        "/v1/catalog",
        "What is live, and how it came to be",
        replies.CatalogListReply,
        query=("history",),
        priority="operator",
    ),
    RouteSpec(
        "catalog_post",
        "POST",
        "/v1/catalog",
        "Publish several objects as one revision",
        replies.CatalogChangeReply,
        messages.CatalogPost,
        priority="operator",
    ),
    RouteSpec(
        "catalog_get",
        "GET",
        "/v1/catalog/{kind}/{name}",
        "Read an object",
        replies.CatalogGetReply,
        priority="operator",
    ),
    RouteSpec(
        "catalog_put",
        "PUT",
        "/v1/catalog/{kind}/{name}",
        "Publish an object",
        replies.CatalogChangeReply,
        messages.CatalogPut,
        priority="operator",
    ),
    RouteSpec(
        "catalog_delete",
        "DELETE",
        "/v1/catalog/{kind}/{name}",
        "Remove an object",
        replies.CatalogChangeReply,
        query=("expected_revision",),
        priority="operator",
    ),
    RouteSpec(
        "endpoints",
        "GET",
        "/v1/endpoints",
        "The live direct ports",
        replies.EndpointsReply,
        priority="operator",
    ),
    RouteSpec(
        "healthz",
        "GET",
        "/healthz",
        "The state of each part",
        replies.HealthReply,
        priority="operator",
    ),
    RouteSpec(
        "openapi",
        "GET",
        "/openapi.json",
        "This contract",
        replies.OpenApiReply,
        priority="operator",
    ),
)
