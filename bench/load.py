"""Load over HTTP from wrk, a compiled generator whose share of the CPU is reported."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kirana.errors import ConfigurationError

CONNECTIONS = 16

# wrk calls `request` for each request, and `done` with the totals.
_SCRIPT = """
local bodies, next_body = {{}}, 0
for i = 0, {count} - 1 do
  local file = io.open("{bodies}/" .. i, "rb")
  bodies[#bodies + 1] = file:read("*a")
  file:close()
end
wrk.method = "POST"
wrk.headers["content-type"] = "{content_type}"
wrk.headers["accept"] = "{content_type}"
function request()
  next_body = next_body % #bodies + 1
  return wrk.format(nil, nil, nil, bodies[next_body])
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    '\\n{{"requests": %d, "us": %d, "refused": %d, "broken": %d, "p50_us": %d, "p99_us": %d, '
    .. '"max_us": %d}}\\n',
    summary.requests, summary.duration, e.status, e.connect + e.read + e.write + e.timeout,
    latency:percentile(50), latency:percentile(99), latency.max))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """The result of a load.

    `per_s` counts all replies, and `refused_per_s` those with a status of 400 or more. `broken`
    requests had no reply. The times are those of the slowest URL. `cpu_share` is the generator's
    share of all cores of the machine.
    """

    per_s: float
    refused_per_s: float
    broken: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    cpu_share: float


class Generator:
    """A generator of POST requests, which sends the bodies in turn.

    The replies are requested in the content type of the bodies.

    Raise `ConfigurationError` if wrk is not installed.
    """

    def __init__(
        self, folder: Path, bodies: Sequence[bytes], content_type: str = "application/json"
    ) -> None:
        if shutil.which("wrk") is None:
            raise ConfigurationError("this benchmark needs wrk: apt-get install wrk")
        files = Path(tempfile.mkdtemp(prefix="load-", dir=folder))
        for i, body in enumerate(bodies):
            (files / str(i)).write_bytes(body)
        self._script = files / "post.lua"
        self._script.write_text(
            _SCRIPT.format(bodies=files, count=len(bodies), content_type=content_type)
        )

    def run(self, urls: Sequence[str], seconds: int) -> Load:
        """Load all `urls` at once for `seconds`, with `CONNECTIONS` divided among them.

        Raise `ConfigurationError` if a request fails, because the result would mean nothing.
        """
        load = self.flood(urls, seconds, CONNECTIONS)
        if load.refused_per_s or load.broken:
            failed = round(load.refused_per_s * seconds) + load.broken
            raise ConfigurationError(f"{failed} requests to {', '.join(urls)} failed")
        return load

    def flood(self, urls: Sequence[str], seconds: int, connections: int) -> Load:
        """Load all `urls` at once, with `connections` divided among them. Requests may fail."""
        each = str(max(connections // len(urls), 1))
        command = ["wrk", "-t1", f"-c{each}", f"-d{seconds}s", "-s", str(self._script)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        start = time.perf_counter()
        running = [
            subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True) for url in urls
        ]
        outputs = [process.communicate()[0] for process in running]
        elapsed = time.perf_counter() - start
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        results = [json.loads(text.strip().splitlines()[-1]) for text in outputs]
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Load(
            per_s=sum(result["requests"] * 1e6 / result["us"] for result in results),
            refused_per_s=sum(result["refused"] * 1e6 / result["us"] for result in results),
            broken=sum(result["broken"] for result in results),
            p50_ms=max(result["p50_us"] for result in results) / 1000,
            p99_ms=max(result["p99_us"] for result in results) / 1000,
            max_ms=max(result["max_us"] for result in results) / 1000,
            cpu_share=cpu / elapsed / (os.cpu_count() or 1),
        )
