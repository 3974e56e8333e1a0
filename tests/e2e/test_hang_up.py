"""A client that hangs up: no part goes on with its work, wherever the parts run.

Redis is frozen under the first of two rounds of reads. Once it goes on, whoever still worked for
the client would send the second round.
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

from tests.e2e.prometheus import counts, figures_url
from tests.e2e.shop_requests import PRODUCTS, WRITES
from tests.e2e.starts import kirana_up
from tests.redis_servers import RedisServers, ask
from tests.support import write_shop
from tests.waiting import wait_for

INFER = {"context": {"user_id": "7", "product_id": PRODUCTS}}


class Served:
    """A Kirana without a cache, whose features are in a Redis that can be frozen."""

    def __init__(
        self, client: httpx.Client, folder: Path, servers: RedisServers, port: int
    ) -> None:
        self.client = client
        self.port = port
        self._figures = wait_for(lambda: figures_url(folder / "up.log"), "it says where")
        self._servers = servers

    def reads(self) -> int:
        """Return how many reads Redis has answered."""
        found = ask(self.port, "INFO", "commandstats").get("cmdstat_mget", {"calls": 0})
        return int(found["calls"])

    def freeze(self) -> None:
        self._servers.process(self.port).send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        self._servers.process(self.port).send_signal(signal.SIGCONT)

    def is_asked(self) -> bool:
        """Whether bytes that Redis has not read wait in one of its sockets."""
        lines = Path("/proc/net/tcp").read_text().splitlines()[1:]
        for line in lines:
            _, local, _, state, queues = line.split()[:5]
            waiting = int(queues.split(":")[1], 16)
            if state == "01" and int(local.split(":")[1], 16) == self.port and waiting:
                return True
        return False

    def hung_up(self) -> int:
        """Return how many requests ended because their client was gone."""
        return counts(self._figures, "ray_kirana_requests_total", "status")[("499",)]

    def doors(self) -> list[str]:
        (direct,) = self.client.get("/v1/endpoints").json()["endpoints"]
        return [str(self.client.base_url), direct["url"]]


@pytest.fixture(scope="module", params=["fused", "spread"])
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, servers: RedisServers
) -> Iterator[Served]:
    folder = write_shop(tmp_path_factory.mktemp("hang_up") / "shop")
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
def test_the_second_round_of_reads_is_not_sent(served: Served, door: int) -> None:
    url = served.doors()[door]
    served.client.post("/v1/infer/ranker", json=INFER).raise_for_status()
    before = served.reads()
    served.client.post("/v1/infer/ranker", json=INFER).raise_for_status()
    whole = served.reads() - before
    gone = served.hung_up()
    served.freeze()
    try:
        _ask_and_hang_up(url, served)
        wait_for(lambda: served.hung_up() == gone + 1, "the request has ended")
    finally:
        served.go_on()
    # whatever was still under way stands before this one
    served.client.post("/v1/infer/ranker", json=INFER).raise_for_status()
    assert served.reads() - before < 3 * whole


def _ask_and_hang_up(url: str, served: Served) -> None:
    body = orjson.dumps(INFER)
    address = urlsplit(url)
    head = (
        f"POST /v1/infer/ranker HTTP/1.1\r\nhost: {address.netloc}\r\n"
        f"content-type: application/json\r\nx-kirana-timeout-ms: 60000\r\n"
        f"content-length: {len(body)}\r\n\r\n"
    )
    with socket.create_connection((str(address.hostname), int(address.port or 80))) as client:
        client.sendall(head.encode() + body)
        wait_for(served.is_asked, "Redis is asked")
