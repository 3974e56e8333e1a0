"""Clients of parts and actors that run in other processes, with the methods of their protocols.

Calls of parts pass arguments and results by value over gRPC. If the other process raises a
`KiranaError`, the client raises it, too.
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
    """A client of a spread part, with the methods of its protocol. Each call goes to one replica.

    Arguments and results are serialized with plain pickle, not with Ray's default, cloudpickle.
    This is possible because all their classes can be imported.
    """

    def __init__(self, part: Part[Any], handle: DeploymentHandle) -> None:
        self._handle = handle.options(
            _by_reference=False, request_serialization="pickle", response_serialization="pickle"
        )
        self._methods: dict[str, Any] = {}
        for method in part.methods:
            setattr(self, method, partial(self._call, method))

    async def prepare(self, revision: Revision) -> None:
        """Prepare a revision in one replica. Raise `Unavailable` if it can't be prepared."""
        await self._send("prepare", revision)

    async def health(self, revision: Revision) -> Health:
        """Return the health of one replica. Raise `Unavailable` if the part does not answer."""
        health: Health = await self._send("health", revision)
        return health

    async def _call(self, method: str, *arguments: Any) -> Any:
        """Call a method. All arguments are positional. The last one is the request's context."""
        context: RequestContext = arguments[-1]
        outcome = await self._send("call", method, arguments[:-1], context)
        return value_of(outcome, context)

    async def _send(self, method: str, *arguments: object) -> Any:
        bound = self._methods.get(method)
        if bound is None:
            # A Serve handle creates a new object at each attribute access, so keep the object.
            bound = self._methods[method] = getattr(self._handle, method)
        response = bound.remote(*arguments)
        return await _answer(response, response.cancel, self._handle.deployment_name)


class RemoteActor:
    """A client of an actor that belongs to the deployment of the calling replica.

    Each attribute is a coroutine function, which runs the method of that name in the actor. If the
    last argument is a `RequestContext`, its deadline limits the call. Serve restarts an actor that
    dies, so each call looks up the handle.

    Calls raise `Unavailable` if the actor is not running or does not answer, `DeadlineExceeded` if
    the deadline passes, and the errors of the method.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return partial(self._call, method)

    async def _call(self, method: str, *arguments: object) -> Any:
        last_argument = arguments[-1] if arguments else None
        if isinstance(last_argument, RequestContext):
            outcome = await self._send(method, arguments[:-1], last_argument, True)
            return value_of(outcome, last_argument)
        context = RequestContext.begin(NO_REVISION)
        return value_of(await self._send(method, arguments, context, False), context)

    async def _send(self, *call: object) -> Any:
        try:
            response = serve.get_deployment_actor(self._name).call.remote(*call)
        except (RayError, RayServeException, ValueError) as error:
            raise Unavailable(f"the actor '{self._name}' is not running") from error
        return await _answer(response, partial(ray.cancel, response), f"the actor '{self._name}'")


async def _answer(response: Awaitable[Any], cancel: Callable[[], object], callee: str) -> Any:
    """Return the result of a call. If this coroutine is cancelled, cancel the call.

    Raise the `KiranaError` that the other process raised, or `RayTaskError` for any other error.
    Raise an `Unavailable` that names `callee` if Ray can't deliver the call or its result.
    """
    try:
        return await response
    except asyncio.CancelledError:
        # The caller no longer waits for the result, so the work must not go on.
        cancel()
        raise
    except RayTaskError as error:
        if isinstance(error.cause, KiranaError):
            raise error.cause from None
        raise
    except (RayError, RayServeException) as error:
        raise Unavailable(f"{callee} does not answer") from error
