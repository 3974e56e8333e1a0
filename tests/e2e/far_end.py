"""A program that calls a deployment as one part calls another, and prints what it received.

`test_hops.py` runs it as a process. The output is one line of JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from pathlib import Path
from typing import Any, cast

from ray import serve

from kirana import request
from kirana.actors.actor import Actors
from kirana.cli.cluster import cluster
from kirana.deployments.actors import actor_config
from kirana.deployments.handles import Remote, RemoteActor
from kirana.errors import InvalidInput, KiranaError, Unavailable
from kirana.features.part import FEATURES
from kirana.features.source import Features, FeatureWrite
from kirana.hop import Outcome, outcome_of
from kirana.request import RequestContext
from kirana.revision import NO_REVISION, Revision
from kirana.service import Health
from kirana.serving.environment import free_ports
from kirana.serving.settings import Settings
from tests.waiting import wait_until


class Tally:
    """A counter that runs in an actor of the deployment."""

    def __init__(self) -> None:
        self._count = 40
        self.cancelled = 0

    async def wait(self, context: RequestContext) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    async def times_cancelled(self) -> int:
        return self.cancelled

    async def seen(self, context: RequestContext) -> list[object]:
        context.ledger.retries += 5
        return [context.id, request.current_id.get(), 0 < context.left_s() < 60.0]

    async def add(self, number: int) -> int:
        if number < 0:
            raise InvalidInput(f"must be at least 0, not {number}", field="number")
        self._count += number
        return self._count

    async def crash(self) -> None:
        os._exit(1)


TALLY = Actors(
    FEATURES,
    lambda wiring: Tally(),
    lambda settings: ["tally"],
    {"num_cpus": 0, "max_concurrency": 10},
)


SETTINGS = Settings(
    catalog="dir:///c", features="memory://", interactions="lmdb:///i", models="file:///m"
)


@serve.deployment(deployment_actors=[actor_config(TALLY, "tally", SETTINGS.model_dump())])
class Far:
    """A deployment for the part `features`. `read` returns the request, and `write` never ends."""

    def __init__(self) -> None:
        self._seen = {"begun": 0, "cancelled": 0}

    async def call(
        self, method: str, arguments: tuple[object, ...], context: RequestContext
    ) -> Outcome:
        work = self._describe if method == "read" else self._wait
        return await outcome_of("features", lambda: work(context), context)

    async def _describe(self, context: RequestContext) -> dict[str, Any]:
        received = {
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
        received["actor"] = await _call_actor(RemoteActor("tally"), context)
        context.ledger.retries += 1
        context.ledger.hedges += 3
        return received

    async def _wait(self, context: RequestContext) -> None:
        self._seen["begun"] += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self._seen["cancelled"] += 1
            raise

    async def health(self, revision: Revision) -> Health:
        return Health(None, self._seen)


async def _call_actor(tally: Any, context: RequestContext) -> dict[str, Any]:
    """Call an actor with right and wrong numbers, cancel a call, and crash the actor.

    Return the counts, the errors, and the request that the actor saw.
    """
    counted = [await tally.add(1), await tally.add(1)]
    context_fields = await tally.seen(context.within(60.0))
    wait_call = asyncio.create_task(tally.wait(context))
    await asyncio.sleep(0)
    wait_call.cancel()

    async def cancelled() -> bool:
        return bool(await tally.times_cancelled())

    await wait_until(cancelled)
    errors = []
    for call in (tally.add(-1), tally.crash()):
        try:
            await call
        except KiranaError as error:
            errors.append([error.code, error.message, error.field])

    async def started_again() -> bool:
        try:
            counted.append(await tally.add(1))
        except Unavailable:
            return False
        return True

    await wait_until(started_again)
    return {"counted": counted, "errors": errors, "seen": context_fields}


async def _until(far: Features, event: str, count: int) -> None:
    """Wait until the far end has counted `count` writes under `event`: "begun" or "cancelled"."""

    async def reached() -> bool:
        return bool((await far.health(NO_REVISION)).details[event] >= count)

    await wait_until(reached)


async def _call_far_end(far: Features, given: dict[str, Any]) -> dict[str, Any]:
    revision = Revision(given.pop("catalog"), given.pop("revision"))
    context = RequestContext.begin(revision, timeout_s=given.pop("timeout_s"), **given)
    context.ledger.retries = 2
    received = cast(dict[str, Any], await far.read([], context))
    spent = [context.ledger.retries, context.ledger.hedges]
    write = cast(FeatureWrite, None)
    writing = asyncio.create_task(far.write(write, context))
    await _until(far, "begun", 1)
    writing.cancel()
    await _until(far, "cancelled", 1)
    late = context.within(0.2)
    try:
        await far.write(write, late)
        error = ""
    except Exception as failure:
        error = f"{type(failure).__name__}: {failure}"
    await _until(far, "cancelled", 2)
    return {"received": received, "spent": spent, "late": error}


def main() -> None:
    port, metrics_port = free_ports(2)
    with (
        tempfile.TemporaryDirectory(prefix="kirana-") as folder,
        cluster("127.0.0.1", port, metrics_port, Path(folder), lambda: None),
    ):
        handle = serve.run(Far.bind(), name="far", route_prefix=None)
        far = cast(Features, Remote(FEATURES, handle))
        print(json.dumps(asyncio.run(_call_far_end(far, json.loads(sys.argv[1])))))


if __name__ == "__main__":
    main()
