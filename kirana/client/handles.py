"""Calls from other Ray Serve applications, through handles instead of HTTP.

    from kirana.client.handles import connect

    kirana = connect()                  # in the __init__ of a deployment
    ranking = await kirana.infer("ranker", {"user_id": "7", "product_id": ["1", "2"]})

Methods, replies, limits, deadlines and errors are the same as over HTTP, because the calls go
through the same edge.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

from kirana.client.asynchronous import DEFAULT_TIMEOUT_S, AsyncClient
from kirana.client.transport import Broken, NotSent, Request, Response, timeout_ms

if TYPE_CHECKING:
    from ray.serve.handle import DeploymentHandle

DEFAULT_APPLICATION = "kirana"


def connect(
    application: str = DEFAULT_APPLICATION,
    *,
    timeout_s: float = DEFAULT_TIMEOUT_S,
    caller: str = "",
) -> AsyncClient:
    """Return a client of the Kirana that runs in the same Ray cluster as the calling application.

    `application` is the name of Kirana's Serve application. Use the client only inside a running
    event loop: with the settings that Kirana requires, Serve's handles work only there.
    """
    transport = HandleTransport(application)
    return AsyncClient(
        f"application '{application}'", timeout_s=timeout_s, caller=caller, transport=transport
    )


class HandleTransport:
    """Implements `Transport` with the handle of Kirana's ingress."""

    def __init__(self, application: str) -> None:
        self._application = application
        self._method: Any = None

    async def send(self, request: Request, timeout_s: float) -> Response:
        """Call the ingress once. Raise `NotSent` or `Broken` for an error of Ray."""
        from ray.exceptions import RayError
        from ray.serve.exceptions import RayServeException

        try:
            status, body = await self._ingress_method().remote(
                request.method,
                request.path,
                urlencode(request.query).encode(),
                request.body,
                request.binary,
                timeout_ms(timeout_s),
                dict(request.headers),
            )
        except RayServeException as error:
            raise NotSent(str(error)) from error
        except RayError as error:
            raise Broken(str(error)) from error
        return Response(status, body)

    def _ingress_method(self) -> Any:
        """Return the remote method `call` of the ingress. Its arguments and results are pickled."""
        if self._method is None:
            from ray import serve

            handle: DeploymentHandle[Any] = serve.get_app_handle(self._application)
            by_value: Mapping[str, Any] = {
                "_by_reference": False,
                "request_serialization": "pickle",
                "response_serialization": "pickle",
            }
            self._method = handle.options(**by_value).call
        return self._method

    async def close(self) -> None:
        """Forget the handle. It has no connections to close."""
        self._method = None
