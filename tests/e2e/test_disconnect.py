"""A client that disconnects: no part continues to work for it, fused or spread.

The tests freeze Redis during the first of two rounds of reads. A part that still worked for the
client would send the second round when Redis runs again.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import orjson
import pytest

from tests.e2e.prometheus import counts, metrics_url
from tests.e2e.shop_requests import PRODUCTS, WRITES
from tests.e2e.starts import kirana_up
from tests.redis_servers import RedisServers, execute
from tests.support import write_shop
from tests.waiting import wait_for

INFER = {"context": {"user_id": "7", "product_id": PRODUCTS}}

MAX_CHECK_BYTES = 150
"""More than the checks of a part send in a second."""


class Served:
    """A Kirana without a cache, whose features are in a Redis that can be frozen."""

    def __init__(
        self, client: httpx.Client, folder: Path, servers: RedisServers, port: int
    ) -> None:
        self.client = client
        self.port = port
        self._metrics_url = wait_for(
            lambda: metrics_url(folder / "up.log"), "the log has the URL of the metrics"
        )
        self._servers = servers

    def reads(self) -> int:
        """Return how many rows Redis has found. The checks of the parts read a row that is not."""
        return int(execute(self.port, "INFO", "stats")["keyspace_hits"])

    def freeze(self) -> None:
        self._servers.process(self.port).send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._servers.process(self.port).send_signal(signal.SIGCONT)

    def has_unread_request(self) -> bool:
        """Return whether a socket of Redis holds a command that is longer than those of checks."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        for line in lines:
            _, local, _, state, queues = line.split()[:5]
            waiting = int(queues.split(":")[1], 16)
            of_redis = int(local.split(":")[1], 16) == self.port
            if state == "01" and of_redis and waiting > MAX_CHECK_BYTES:
                return True
        return False

    def disconnected(self) -> int:
        """Return how many requests have ended because their client disconnected."""
        return counts(self._metrics_url, "ray_kirana_requests_total", "status")[("499",)]

    def doors(self) -> list[str]:
        (direct,) = self.client.get("/v1/endpoints").json()["endpoints"]
        return [str(self.client.base_url), direct["url"]]


@pytest.fixture(scope="module", params=["fused", "spread"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, servers: RedisServers
) -> Iterator[Served]:
    folder = write_shop(tmp_path_factory.mktemp("disconnect") / "shop")
    port = servers.start()
    options = (
        *("--placement", request.param),
        *("--features", f"redis://127.0.0.1:{port}?socket_timeout=60"),
    )
    os.environ["KIRANA_CACHE_BYTES"] = "0"
    try:
        with kirana_up(folder, *options) as up:
            for call in WRITES:
                assert call.send(up.client).status_code == 200
            yield Served(up.client, folder, servers, port)
    finally:
        del os.environ["KIRANA_CACHE_BYTES"]


@pytest.mark.parametrize("door", [0, 1], ids=["front door", "direct port"])
def test_no_second_round_of_reads_is_sent_for_a_client_that_disconnected(
    served: Served, door: int
) -> None:
    url = served.doors()[door]
    served.client.post("/v1/infer/ranker", json=INFER).raise_for_status()
    before = served.reads()
    served.client.post("/v1/infer/ranker", json=INFER).raise_for_status()
    reads_per_request = served.reads() - before
    disconnected_before = served.disconnected()
    served.freeze()
    try:
        _send_and_disconnect(url, served)
        wait_for(lambda: served.disconnected() == disconnected_before + 1, "the request has ended")
    finally:
        served.resume()
    # Redis runs the remaining commands of the abandoned request, if any, before those of this one.
    served.client.post("/v1/infer/ranker", json=INFER).raise_for_status()
    # Two complete requests have followed `before`. The abandoned one has sent only its first round.
    assert reads_per_request > 0
    assert served.reads() - before < 3 * reads_per_request


def _send_and_disconnect(url: str, served: Served) -> None:
    body = orjson.dumps(INFER)
    address = urlsplit(url)
    head = (
        f"POST /v1/infer/ranker HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"content-type: application/json\r\nx-kirana-timeout-ms: 60000\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((str(address.hostname), int(address.port or 80))) as client:
        client.sendall(head.encode() + body)
        wait_for(served.has_unread_request, "Redis has received a command")
