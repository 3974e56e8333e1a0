"""The shape of a spread rank as a bare Serve application: the same hops and payloads, no work.

ingress -> ranker -> features, and then -> model; arrays of the sizes that a rank of 500 x 60
moves, by value and by plain pickle, as an expert would set the handles.
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
    """An ASGI application that asks the ranker and sends a constant reply."""

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
