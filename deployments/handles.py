"""Handles of other deployments, in the shape of the protocols that `kirana` asks for.

Arguments and answers travel by value over gRPC. A `KiranaError` arrives as itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from kirana.errors import KiranaError, Unavailable
from kirana.features import EntityRows, FeatureQuery
from kirana.features.source import FeatureWrite, WriteResult
from kirana.flow import FlowRequest, FlowResult
from kirana.hop import value_of
from kirana.inferflow import InferRequest, InferResult
from kirana.interactions import Event, InteractionQuery, Interactions
from kirana.interactions.source import Appended
from kirana.models.runner import Scores
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.schema import Array


class _Remote:
    """Plain pickle: arrays cross as one block of bytes, and all else is of importable classes.

    Measured for a read of 500 x 60 and for small arguments: faster than cloudpickle, which is
    the default, and no slower than bytes joined by hand.
    """

    def __init__(self, handle: DeploymentHandle) -> None:
        self._handle = handle.options(
            _by_reference=False, request_serialization="pickle", response_serialization="pickle"
        )
        self._methods: dict[str, Any] = {}

    async def _call(self, method: str, context: RequestContext, *arguments: object) -> Any:
        """Call a method of the part's protocol for a request."""
        return value_of(await self._send("call", method, arguments, context), context)

    async def _send(self, method: str, *arguments: object) -> Any:
        bound = self._methods.get(method)
        if bound is None:
            # a handle makes a new one for each method that it is asked for
            bound = self._methods[method] = getattr(self._handle, method)
        sent = bound.remote(*arguments)
        try:
            return await sent
        except asyncio.CancelledError:
            # whoever waited is gone, or out of time: the far end must not work on
            sent.cancel()
            raise
        except RayTaskError as error:
            if isinstance(error.cause, KiranaError):
                raise error.cause from None
            raise
        except (RayError, RayServeException) as error:
            raise Unavailable(f"{self._handle.deployment_name} does not answer") from error

    async def prepare(self, revision: Revision) -> None:
        await self._send("prepare", revision)


class RemoteFeatures(_Remote):
    async def read(
        self, queries: Sequence[FeatureQuery], context: RequestContext
    ) -> list[EntityRows]:
        rows: list[EntityRows] = await self._call("read", context, queries)
        return rows

    async def write(self, write: FeatureWrite, context: RequestContext) -> WriteResult:
        written: WriteResult = await self._call("write", context, write)
        return written

    async def delete(
        self, group: str, keys: Sequence[str], event_time_ms: Array, context: RequestContext
    ) -> WriteResult:
        deleted: WriteResult = await self._call("delete", context, group, keys, event_time_ms)
        return deleted

    async def health(self) -> dict[str, Any]:
        found: dict[str, Any] = await self._send("health")
        return found


class RemoteInteractions(_Remote):
    async def append(self, events: Sequence[Event], context: RequestContext) -> Appended:
        accepted: Appended = await self._call("append", context, events)
        return accepted

    async def query(
        self, queries: Sequence[InteractionQuery], context: RequestContext
    ) -> list[Interactions]:
        found: list[Interactions] = await self._call("query", context, queries)
        return found

    async def forget(self, user_id: str, context: RequestContext) -> int:
        deleted: int = await self._call("forget", context, user_id)
        return deleted


class RemoteModels(_Remote):
    async def run(
        self,
        model: str,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        outputs: Sequence[str],
        context: RequestContext,
    ) -> dict[str, Scores]:
        scores: dict[str, Scores] = await self._call("run", context, model, inputs, outputs)
        return scores


class RemoteInferflow(_Remote):
    async def infer(self, request: InferRequest, context: RequestContext) -> InferResult:
        result: InferResult = await self._call("infer", context, request)
        return result


class RemoteFlows(_Remote):
    async def run(self, request: FlowRequest, context: RequestContext) -> FlowResult:
        result: FlowResult = await self._call("run", context, request)
        return result


REMOTES: dict[str, type[_Remote]] = {
    "features": RemoteFeatures,
    "interactions": RemoteInteractions,
    "models": RemoteModels,
    "inferflow": RemoteInferflow,
    "flows": RemoteFlows,
}
"""By the name of the part, see `kirana.serving.placement`."""
