"""A bare Serve application with the calls and payloads of a spread ranking request.

The ingress parses the request and calls the ranker, which calls the features and then the model.
Nothing else is done. The arrays have the sizes of a request of 500 rows x 60. Handles pass
arguments by value with plain pickle, as an expert would set them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from ray import serve

from bench.floors.noop import DECODER, body_of, headers_of
from kirana.deployments.options import OPTIONS

ROWS, COLUMNS, BEST = 500, 60, 50


def by_value(handle: Any) -> Any:
    return handle.options(
        _by_reference=False, request_serialization="pickle", response_serialization="pickle"
    )


@serve.deployment(name="HopFeatures", **OPTIONS)
class HopFeatures:
    def __init__(self) -> None:
        self._matrix = np.zeros((ROWS, COLUMNS), dtype=np.float32)
        self._status = np.zeros(ROWS, dtype=np.uint8)

    async def read(self, keys: list[str]) -> tuple[Any, Any]:
        return self._matrix, self._status


@serve.deployment(name="HopModel", **OPTIONS)
class HopModel:
    def __init__(self) -> None:
        self._scores = np.zeros(ROWS, dtype=np.float32)

    async def run(self, matrix: Any) -> Any:
        return self._scores


@serve.deployment(name="HopRanker", **OPTIONS)
class HopRanker:
    def __init__(self, features: Any, model: Any) -> None:
        self._features, self._model = by_value(features), by_value(model)

    async def rank(self, keys: list[str]) -> tuple[list[str], Any]:
        matrix, _ = await self._features.read.remote(keys)
        scores = await self._model.run.remote(matrix)
        return keys[:BEST], scores[:BEST]


class Forward:
    """An ASGI application that calls the ranker and sends a constant reply."""

    def __init__(self, reply: bytes, ranker: Any) -> None:
        self._reply = reply
        self._ranker = ranker
        self._headers = headers_of(reply)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        infer = DECODER.decode(await body_of(receive))
        await self._ranker.rank.remote(infer.context["product_id"])
        await send({"type": "http.response.start", "status": 200, "headers": self._headers})
        await send({"type": "http.response.body", "body": self._reply})


@serve.deployment(name="HopIngress", **OPTIONS)
@serve.ingress()
class HopIngress:
    def __init__(self, reply: bytes, ranker: Any) -> None:
        self._app = Forward(reply, by_value(ranker))

    def __serve_build_asgi_app__(self) -> Forward:
        return self._app
