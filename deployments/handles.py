"""Parts that run elsewhere, in the shape of the protocols that `kirana` asks for.

Arguments and answers travel by value over gRPC. A `KiranaError` arrives as itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.handle import DeploymentHandle

from kirana.errors import KiranaError, Unavailable
from kirana.hop import value_of
from kirana.part import Part
from kirana.request import RequestContext
from kirana.revision import NO_REVISION, Revision
from kirana.service import Health


class Remote:
    """A part as its protocol has it: each call of a method goes to the part's deployment.

    Plain pickle: arrays cross as one block of bytes, and all else is of importable classes.
    Measured for a read of 500 x 60 and for small arguments: faster than cloudpickle, which is
    the default, and no slower than bytes joined by hand.
    """

    def __init__(self, part: Part[Any], handle: DeploymentHandle) -> None:
        self._handle = handle.options(
            _by_reference=False, request_serialization="pickle", response_serialization="pickle"
        )
        self._methods: dict[str, Any] = {}
        for method in part.methods:
            setattr(self, method, partial(self._call, method))

    async def prepare(self, revision: Revision) -> None:
        await self._send("prepare", revision)

    async def health(self, revision: Revision) -> Health:
        found: Health = await self._send("health", revision)
        return found

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method for a request, whose context is the last argument; none has a name."""
        context: RequestContext = arguments[-1]
        outcome = await self._send("call", method, arguments[:-1], context)
        return value_of(outcome, context)

    async def _send(self, method: str, *arguments: object) -> Any:
        bound = self._methods.get(method)
        if bound is None:
            # a handle makes a new one for each method that it is asked for
            bound = self._methods[method] = getattr(self._handle, method)
        sent = bound.remote(*arguments)
        return await _answer(sent, sent.cancel, self._handle.deployment_name)


class RemoteActor:
    """An actor of this deployment. A method that is awaited runs in the actor.

    Serve starts an actor anew when it dies, so its handle is looked up for each call.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return partial(self._call, method)

    async def _call(self, method: str, *arguments: object) -> Any:
        last = arguments[-1] if arguments else None
        if isinstance(last, RequestContext):
            outcome = await self._send(method, arguments[:-1], last, True)
            return value_of(outcome, last)
        context = RequestContext.begin(NO_REVISION)
        return value_of(await self._send(method, arguments, context, False), context)

    async def _send(self, *call: object) -> Any:
        try:
            sent = serve.get_deployment_actor(self._name).call.remote(*call)
        except (RayError, RayServeException, ValueError) as error:
            raise Unavailable(f"the actor '{self._name}' is not there") from error
        return await _answer(sent, partial(ray.cancel, sent), f"the actor '{self._name}'")


async def _answer(sent: Awaitable[Any], cancel: Callable[[], object], who: str) -> Any:
    """Wait for what was sent; `who` does not answer where Ray says so."""
    try:
        return await sent
    except asyncio.CancelledError:
        # whoever waited is gone, or out of time: the far end must not work on
        cancel()
        raise
    except RayTaskError as error:
        if isinstance(error.cause, KiranaError):
            raise error.cause from None
        raise
    except (RayError, RayServeException) as error:
        raise Unavailable(f"{who} does not answer") from error
