"""How soon a row is readable over HTTP after Kafka has acknowledged it."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import numpy as np

from bench.figures import Breakdown
from bench.serving import endpoints
from kirana.kafka.sending import Outgoing, Sender
from kirana.kafka.url import KafkaUrl
from kirana.streams.messages import PutRows
from tests.e2e.environment import environment
from tests.e2e.starts import kirana_up

SECONDS = 15
PROBE_EVERY_S = 0.1
POLL_S = 0.001
SMALL, LARGE = 10, 1_000


async def measure_freshness(
    catalog: Path, url: KafkaUrl, redis: str, rows: PutRows, highest: float
) -> list[Breakdown]:
    """Measure at 1,000 rows a second, and at half the `highest` rate of one consumer."""
    settings = {"KIRANA_CACHE_BYTES": "0"}
    options = ("--features", f"redis://{redis}", "--streams", url.name)
    found: dict[str, float] = {}
    with environment(settings), kirana_up(catalog, *options) as served:
        (direct,) = endpoints(str(served.client.base_url), 1)
        for rate, size in ((1_000.0, SMALL), (highest / 2, LARGE)):
            times = await _freshness(direct, url, rows, rate, size)
            label = f"{rate:,.0f} rows/s"
            found[f"{label}, p50"] = float(np.percentile(times, 50)) * 1_000
            found[f"{label}, p99"] = float(np.percentile(times, 99)) * 1_000
    return [Breakdown("from Kafka's acknowledgement to readable over HTTP", "ms", found)]


async def _freshness(
    direct: str, url: KafkaUrl, rows: PutRows, rate: float, size: int
) -> list[float]:
    """Send rows at a rate, and return how long each probe took to be readable, in seconds."""
    sender = Sender(url)
    layout = await sender.layout()
    positions = np.arange(size)
    load = [*rows.taken(positions).messages(layout)]
    times: list[float] = []
    probes: set[asyncio.Task[None]] = set()
    sends: set[asyncio.Task[None]] = set()
    async with httpx.AsyncClient(base_url=direct) as client:
        begin = time.perf_counter()
        sent, number = 0, 0
        while (now := time.perf_counter() - begin) < SECONDS:
            while sent < now * rate:
                sends.add(asyncio.create_task(sender.send(load, timeout_s=60)))
                sent += size
            if number < now / PROBE_EVERY_S:
                number += 1
                key = f"probe{rate:.0f}-{number}"
                probes.add(asyncio.create_task(_probe(client, sender, key, times)))
            await asyncio.sleep(POLL_S)
            sends = {task for task in sends if not task.done()}
        await asyncio.gather(*sends, *probes)
    await sender.close()
    return times


async def _probe(client: httpx.AsyncClient, sender: Sender, key: str, times: list[float]) -> None:
    columns = ",".join(f'"f{n}":[1]' for n in range(10))
    body = f'{{"group":"product.narrow","keys":{{"product_id":["{key}"]}},"columns":{{{columns}}}}}'
    await sender.send([Outgoing(0, body.encode(), 1)], timeout_s=60)
    start = time.perf_counter()
    read = {"entity": "product", "keys": {"product_id": [key]}, "features": ["narrow.f0"]}
    while True:
        reply = await client.post("/v1/features/get", json=read)
        if reply.json()["values"][0][0] == 1:
            times.append(time.perf_counter() - start)
            return
        await asyncio.sleep(POLL_S)
