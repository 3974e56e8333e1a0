"""The work of a rank in a bare loop: request bytes to reply bytes, without HTTP or Serve.

Runs as a process that reads `SECONDS IDLE_SHARE` a line and answers with its calls a second.
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
"""How long it works before it leaves the CPU to nobody, as the generator's share."""


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
        calls, began = 0, time.perf_counter()
        while (now := time.perf_counter()) - began < seconds:
            while time.perf_counter() - now < WORK_S:
                await self.call()
                calls += 1
            worked = time.perf_counter() - now
            await asyncio.sleep(worked * idle_share / (1 - idle_share))
        return calls / (time.perf_counter() - began)


async def main(settings: Settings, model_id: str, bodies: list[bytes]) -> None:
    loop = RankLoop(settings, model_id, bodies)
    await loop.per_s(0.5, 0.0)
    print("ready", flush=True)
    for line in sys.stdin:
        seconds, idle_share = map(float, line.split())
        print(await loop.per_s(seconds, idle_share), flush=True)


if __name__ == "__main__":
    settings_file, named, bodies_file = sys.argv[1:]
    given = Settings.model_validate(json.loads(Path(settings_file).read_text()))
    asyncio.run(main(given, named, Path(bodies_file).read_bytes().splitlines()))
