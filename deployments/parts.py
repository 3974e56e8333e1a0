"""The Serve deployment of a spread part."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve.handle import DeploymentHandle

from kirana.admission import Admission
from kirana.deployments.options import OPTIONS
from kirana.deployments.replica import Replica
from kirana.hop import Outcome, outcome_of
from kirana.part import Part
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.service import Health


class PartDeployment:
    """A replica of one part. `kirana.deployments.handles.Remote` calls its methods."""

    def __init__(
        self, part: Part[Any], settings: Mapping[str, Any], handles: Mapping[str, DeploymentHandle]
    ) -> None:
        self._name = part.name
        self._replica = Replica(part.name, settings, handles)
        self._service = self._replica.assembly[part]
        # The edge has admitted the calls already.
        self._admission = Admission(self._replica.metrics, by_age=False)

    async def call(
        self, method: str, arguments: tuple[object, ...], context: RequestContext
    ) -> Outcome:
        """Call a method of the part's protocol by its name, until the deadline of `context`.

        The call waits for its turn. A `KiranaError` is returned in the outcome. Raise any other
        error.
        """
        self._replica.count(method)

        async def work() -> Any:
            await self._admission.enter(context.deadline)
            return await getattr(self._service, method)(*arguments, context)

        return await outcome_of(self._name, work, context)

    async def prepare(self, revision: Revision) -> None:
        """Prepare a revision. Raise `Unavailable` if it can't be prepared."""
        await self._service.prepare(revision)

    async def health(self, revision: Revision) -> Health:
        """Return the health of the part. May raise `Unavailable`."""
        health: Health = await self._service.health(revision)
        return health

    async def __del__(self) -> None:
        await self._replica.close()


def deployment_of(part: Part[Any]) -> serve.Deployment:
    """Return the deployment of a part. The part must declare a name for it."""
    assert part.deployment is not None
    return serve.deployment(name=part.deployment, **OPTIONS)(PartDeployment)
