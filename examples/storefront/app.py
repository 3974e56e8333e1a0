"""A separate Serve application that calls Kirana through a handle, in the same Ray cluster."""

from __future__ import annotations

from typing import Any

from ray import serve
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from kirana.client.handles import connect
from kirana.errors import KiranaError, Unknown


@serve.deployment(ray_actor_options={"num_cpus": 0.1}, max_ongoing_requests=100)
class Storefront:
    """The handler of `GET /?user_id=7&products=1,2,3`: the best three products, with titles."""

    def __init__(self, application: str = "kirana", timeout_s: float = 1.0) -> None:
        self._kirana = connect(application, timeout_s=timeout_s)

    async def __call__(self, request: Request) -> Response:
        """Return the shelf as JSON, 404 for an unknown name, or 503 for another Kirana error."""
        query = request.query_params
        try:
            shelf = await self.shelf(query["user_id"], query["products"].split(","))
        except Unknown as error:
            return JSONResponse({"error": error.code, "field": error.field}, 404)
        except KiranaError as error:
            return JSONResponse({"error": error.code, "message": error.message}, 503)
        return JSONResponse(shelf)

    async def shelf(self, user_id: str, products: list[str]) -> list[dict[str, Any]]:
        """Return the three products that suit the user best, best first.

        Each entry has `product_id`, `title` and `score`. Raise `KiranaError` if a call fails.
        """
        context = {"user_id": user_id, "product_id": products}
        ranking = await self._kirana.infer("ranker", context, top_k=3)
        keys = {"product_id": ranking.ids}
        titles = await self._kirana.get_features("product", keys, ["attrs.title"])
        return [
            {"product_id": product, "title": title, "score": score}
            for product, title, score in zip(
                ranking.ids,
                titles.column("attrs.title").values.tolist(),
                ranking.scores.tolist(),
                strict=True,
            )
        ]


def app(arguments: dict[str, Any]) -> serve.Application:
    """Build the application from the `args` of its configuration."""
    return Storefront.bind(**arguments)
