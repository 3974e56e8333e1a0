"""Load over HTTP from wrk, a compiled generator; what it takes of the CPU is reported."""

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

# wrk's own interface: `request` makes each request, `done` sees the totals
_SCRIPT = """
local bodies, next_body = {{}}, 0
for at = 0, {count} - 1 do
  local file = io.open("{bodies}/" .. at, "rb")
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
    '\\n{{"requests": %d, "us": %d, "failed": %d, "p50_us": %d, "p99_us": %d}}\\n',
    summary.requests, summary.duration, e.connect + e.read + e.write + e.status + e.timeout,
    latency:percentile(50), latency:percentile(99)))
end
"""


@dataclass(frozen=True, slots=True)
class Load:
    """`cpu_share` is what the generator took of all cores of the machine."""

    per_s: float
    p50_ms: float
    p99_ms: float
    cpu_share: float


class Generator:
    """Sends bodies round and round, and asks for replies of their content type."""

    def __init__(
        self, folder: Path, bodies: Sequence[bytes], content_type: str = "application/json"
    ) -> None:
        if shutil.which("wrk") is None:
            raise ConfigurationError("this benchmark needs wrk: apt-get install wrk")
        made = Path(tempfile.mkdtemp(prefix="load-", dir=folder))
        for at, body in enumerate(bodies):
            (made / str(at)).write_bytes(body)
        self._script = made / "post.lua"
        self._script.write_text(
            _SCRIPT.format(bodies=made, count=len(bodies), content_type=content_type)
        )

    def run(self, urls: Sequence[str], seconds: int) -> Load:
        """Load all `urls` at once, the connections shared out among them.

        Raises `ConfigurationError` if a request failed: then the figure means nothing.
        """
        each = str(max(CONNECTIONS // len(urls), 1))
        command = ["wrk", "-t1", f"-c{each}", f"-d{seconds}s", "-s", str(self._script)]
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        began = time.perf_counter()
        running = [
            subprocess.Popen([*command, url], stdout=subprocess.PIPE, text=True) for url in urls
        ]
        said = [process.communicate()[0] for process in running]
        elapsed = time.perf_counter() - began
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        found = [json.loads(text.strip().splitlines()[-1]) for text in said]
        failed = sum(one["failed"] for one in found)
        if failed:
            raise ConfigurationError(f"{failed} requests to {', '.join(urls)} failed")
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return Load(
            per_s=sum(one["requests"] * 1e6 / one["us"] for one in found),
            p50_ms=max(one["p50_us"] for one in found) / 1000,
            p99_ms=max(one["p99_us"] for one in found) / 1000,
            cpu_share=cpu / elapsed / (os.cpu_count() or 1),
        )
