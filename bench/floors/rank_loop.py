"""The work of a ranking request in a bare loop, from request bytes to reply bytes, without HTTP.

This runs as a process. It prints `ready`, and then its calls per second for each line
`SECONDS IDLE_SHARE` of stdin.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path

from kirana.catalog.revisions import LiveRevision
from kirana.edge import Resources
from kirana.edge.exchange import Request
from kirana.edge.handlers.ranking import infer
from kirana.edge.headers import Headers
from kirana.request import RequestContext
from kirana.serving.assembly import Assembly, open_catalog
from kirana.serving.settings import Settings

WORK_S = 0.02
"""Seconds of work before each sleep. The sleep stands for the generator's share of the CPU."""


class RankLoop:
    def __init__(self, settings: Settings, model_id: str, bodies: list[bytes]) -> None:
        source = open_catalog(settings)
        self.assembly = Assembly(settings, source)
        live = LiveRevision(source, [])
        self._resources = Resources(self.assembly.at_edge(), live, source)
        context = RequestContext.begin(source.current())
        self._requests = [Request((model_id,), b"", Headers(), body, context) for body in bodies]
        self._next = 0

    async def call(self) -> bytes:
        self._next = (self._next + 1) % len(self._requests)
        return (await infer(self._requests[self._next], self._resources)).body

    async def per_s(self, seconds: float, idle_share: float) -> float:
        """Call for `seconds`, asleep for `idle_share` of the time. Return the calls per second."""
        calls, start = 0, time.perf_counter()
        while (now := time.perf_counter()) - start < seconds:
            while time.perf_counter() - now < WORK_S:
                await self.call()
                calls += 1
            worked = time.perf_counter() - now
            await asyncio.sleep(worked * idle_share / (1 - idle_share))
        return calls / (time.perf_counter() - start)


async def main(settings: Settings, model_id: str, bodies: list[bytes]) -> None:
    loop = RankLoop(settings, model_id, bodies)
    await loop.per_s(0.5, 0.0)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, idle_share = map(float, line.split())
        print(await loop.per_s(seconds, idle_share), flush=True)


if __name__ == "__main__":
    settings_file, model, bodies_file = sys.argv[1:]
    loaded = Settings.model_validate(json.loads(Path(settings_file).read_text()))
    asyncio.run(main(loaded, model, Path(bodies_file).read_bytes().splitlines()))
