"""The table of the routes that the edge answers and `/openapi.json` describes."""

from __future__ import annotations

from kirana.edge import messages, replies
from kirana.edge.exchange import Request, Response
from kirana.edge.handlers import catalog, features, interactions, ranking
from kirana.edge.handlers.endpoints import endpoints
from kirana.edge.handlers.health import health
from kirana.edge.openapi import openapi_document
from kirana.edge.resources import Resources
from kirana.edge.route import Route


async def openapi(request: Request, resources: Resources) -> Response:
    """Return the OpenAPI document of `ROUTES`."""
    return Response(openapi_document(ROUTES))


ROUTES: tuple[Route, ...] = (
    Route(
        "features_get",
        "POST",
        "/v1/features/get",
        "Read features of an entity, one row per key",
        features.get,
        replies.FeaturesGetReply,
        messages.FeaturesGet,
        binary=True,
    ),
    Route(
        "features_put",
        "POST",
        "/v1/features/put",
        "Write rows of a feature group",
        features.put,
        replies.FeaturesPutReply,
        messages.FeaturesPut,
        accepted=replies.AcceptedReply,
        binary=True,
        priority="writer",
    ),
    Route(
        "features_delete",
        "POST",
        "/v1/features/delete",
        "Delete rows of a feature group",
        features.delete,
        replies.FeaturesDeleteReply,
        messages.FeaturesDelete,
        accepted=replies.AcceptedReply,
        binary=True,
        priority="writer",
    ),
    Route(
        "interactions_post",
        "POST",
        "/v1/interactions",
        "Store events, all or none",
        interactions.post,
        replies.InteractionsPostReply,
        messages.InteractionsPost,
        binary=True,
        priority="writer",
    ),
    Route(
        "interactions_query",
        "POST",
        "/v1/interactions/query",
        "Read the events of many users and types",
        interactions.query,
        replies.InteractionsQueryReply,
        messages.InteractionsQuery,
        binary=True,
    ),
    Route(
        "interactions_get",
        "GET",
        "/v1/interactions/{user_id}/{event}",
        "Read the newest events of a user and type, or those of a time range",
        interactions.get,
        replies.InteractionsGetReply,
        query=messages.InteractionsBounds,
        binary=True,
    ),
    Route(
        "interactions_delete",
        "DELETE",
        "/v1/interactions/{user_id}",
        "Delete every event of a user",
        interactions.delete,
        replies.InteractionsDeleteReply,
        binary=True,
        priority="writer",
    ),
    Route(
        "flow_run",
        "POST",
        "/v1/flows/{name}",
        "Run a flow",
        ranking.run_flow,
        replies.FlowRunReply,
        messages.FlowRun,
    ),
    Route(
        "infer",
        "POST",
        "/v1/infer/{model_id}",
        "Score rows with an inferflow",
        ranking.infer,
        replies.InferReply,
        messages.Infer,
        binary=True,
    ),
    Route(
        "catalog_list",
        "GET",
        "/v1/catalog",
        "List the live objects and the newest revisions",
        catalog.list_objects,
        replies.CatalogListReply,
        query=messages.CatalogHistory,
        priority="operator",
    ),
    Route(
        "catalog_post",
        "POST",
        "/v1/catalog",
        "Publish several changes as one revision",
        catalog.post,
        replies.CatalogChangeReply,
        messages.CatalogPost,
        priority="operator",
    ),
    Route(
        "catalog_get",
        "GET",
        "/v1/catalog/{kind}/{name}",
        "Read an object",
        catalog.get,
        replies.CatalogGetReply,
        priority="operator",
    ),
    Route(
        "catalog_put",
        "PUT",
        "/v1/catalog/{kind}/{name}",
        "Publish an object",
        catalog.put,
        replies.CatalogChangeReply,
        messages.CatalogPut,
        priority="operator",
    ),
    Route(
        "catalog_delete",
        "DELETE",
        "/v1/catalog/{kind}/{name}",
        "Delete an object",
        catalog.delete,
        replies.CatalogChangeReply,
        query=messages.ExpectedRevision,
        priority="operator",
    ),
    Route(
        "endpoints",
        "GET",
        "/v1/endpoints",
        "List the live direct ports",
        endpoints,
        replies.EndpointsReply,
        priority="operator",
        queued=False,
    ),
    Route(
        "healthz",
        "GET",
        "/healthz",
        "Report the state of each part",
        health,
        replies.HealthReply,
        priority="operator",
        queued=False,
    ),
    Route(
        "openapi",
        "GET",
        "/openapi.json",
        "Return this document",
        openapi,
        replies.OpenApiReply,
        priority="operator",
    ),
)
