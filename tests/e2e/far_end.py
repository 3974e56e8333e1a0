"""Run as a process: calls a deployment as one part calls another, and prints what arrived there."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from ray import serve

from kirana import request
from kirana.cli.cluster import cluster
from kirana.deployments.handles import RemoteFeatures
from kirana.features.source import FeatureWrite
from kirana.hop import Outcome, outcome_of
from kirana.request import RequestContext
from kirana.revision import Revision
from kirana.serving.environment import free_ports
from tests.waiting import wait_until


@serve.deployment
class Far:
    """A feature store that tells what it was asked for; a write takes for ever."""

    def __init__(self) -> None:
        self._seen = {"begun": 0, "cancelled": 0}

    async def call(
        self, method: str, arguments: tuple[object, ...], context: RequestContext
    ) -> Outcome:
        work = self._tell if method == "read" else self._wait
        return await outcome_of("features", lambda: work(context), context)

    async def _tell(self, context: RequestContext) -> dict[str, Any]:
        told = {
            "catalog": context.revision.catalog,
            "revision": context.revision.number,
            "left_s": context.left_s(),
            "now_ms": context.now_ms,
            "id": context.id,
            "id of the log": request.current_id.get(),
            "priority": context.priority,
            "traceparent": context.traceparent,
            "caller": context.caller,
            "retries": context.ledger.retries,
        }
        context.ledger.retries += 1
        context.ledger.hedges += 3
        return told

    async def _wait(self, context: RequestContext) -> None:
        self._seen["begun"] += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._seen["cancelled"] += 1
            raise

    async def health(self) -> dict[str, Any]:
        return self._seen


async def _until(far: RemoteFeatures, what: str, count: int) -> None:
    async def reached() -> bool:
        return bool((await far.health())[what] >= count)

    await wait_until(reached)


async def _ask(far: RemoteFeatures, given: dict[str, Any]) -> dict[str, Any]:
    revision = Revision(given.pop("catalog"), given.pop("revision"))
    context = RequestContext.begin(revision, timeout_s=given.pop("timeout_s"), **given)
    context.ledger.retries = 2
    told = cast(dict[str, Any], await far.read([], context))
    spent = [context.ledger.retries, context.ledger.hedges]
    write = cast(FeatureWrite, None)
    waiting = asyncio.create_task(far.write(write, context))
    await _until(far, "begun", 1)
    waiting.cancel()
    await _until(far, "cancelled", 1)
    late = context.within(0.2)
    try:
        await far.write(write, late)
        error = ""
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    await _until(far, "cancelled", 2)
    return {"told": told, "spent": spent, "late": error}


def main() -> None:
    port, metrics_port = free_ports(2)
    with (
        tempfile.TemporaryDirectory(prefix="kirana-") as folder,
        cluster("127.0.0.1", port, metrics_port, Path(folder), lambda: None),
    ):
        handle = serve.run(Far.bind(), name="far", route_prefix=None)
        print(json.dumps(asyncio.run(_ask(RemoteFeatures(handle), json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
