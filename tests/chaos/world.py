"""The servers of a run and Kirana in front of them, and how each of them is broken and mended."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil

from kirana.cassandra.errors import FAILURES
from kirana.stores.cassandra_tables import create_keyspace
from tests.cassandra_server import DATA_CENTRE, CassandraServer
from tests.chaos.disk import SmallDisk
from tests.chaos.gate import Gate
from tests.e2e.environment import environment
from tests.e2e.serving import listening_on
from tests.e2e.starts import kirana_up
from tests.redis_servers import RedisServers, execute
from tests.support import write_shop
from tests.waiting import wait_for

REPLICAS = 2
SETTINGS = {
    "KIRANA_FEATURES_HOT_BOUND_S": "2",
    "KIRANA_CACHE_FRESH_MS": "500",
    "KIRANA_TIMEOUT_MS": "2000",
    "KIRANA_REPLICAS": str(REPLICAS),
}

MAKE_BLOBS = (
    create_keyspace("filled", DATA_CENTRE, 1),
    "CREATE TABLE IF NOT EXISTS filled.blobs (key int PRIMARY KEY, value blob)",
)
BLOB = bytes(1 << 16)
MOST_BLOBS = 2_000

Mend = Callable[[], None]


class World:
    """Redis, Cassandra, and a Kirana with two replicas. It is up during the `with` block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._stack = ExitStack()

    def __enter__(self) -> World:
        with ExitStack() as stack:
            self._redis = stack.enter_context(RedisServers(self._subfolder("redis")))
            self._redis_port = self._redis.start()
            self._gate = stack.enter_context(Gate(self._redis_port))
            folder = self._subfolder("cassandra")
            self._disk = stack.enter_context(SmallDisk(folder))
            self._cassandra = stack.enter_context(CassandraServer(folder))
            stack.enter_context(environment(SETTINGS))
            served = stack.enter_context(
                kirana_up(
                    write_shop(self._folder / "shop"),
                    *("--features", f"cassandra://{self._cassandra.address}/shop"),
                    *("--features-hot", f"redis://127.0.0.1:{self._gate.port}/0"),
                )
            )
            self._client = stack.enter_context(httpx.Client(timeout=5))
            self.url = str(served.client.base_url)
            self._stack = stack.pop_all()
        wait_for(self.is_up, "all parts are up")
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _subfolder(self, name: str) -> Path:
        folder = self._folder / name
        folder.mkdir()
        return folder

    def doors(self) -> dict[str, str]:
        """Return the URLs of the replicas, by their names; none if Kirana does not answer."""
        try:
            reply = self._client.get(f"{self.url}/v1/endpoints").raise_for_status().json()
        except httpx.HTTPError:
            return {}
        return {endpoint["replica"]: endpoint["url"] for endpoint in reply["endpoints"]}

    def is_up(self) -> bool:
        """Return whether all replicas report that the features and their hot tier are up."""
        doors = self.doors()
        return len(doors) == REPLICAS and all(map(self._reports_up, doors.values()))

    def _reports_up(self, url: str) -> bool:
        try:
            reply = self._client.get(f"{url}/healthz")
        except httpx.HTTPError:
            return False
        part = reply.json().get("parts", {}).get("features", {})
        hot: dict[str, Any] = part.get("details", part).get("hot", {})
        return reply.status_code == 200 and hot.get("breaker", {}).get("state") == "closed"

    def begin(self, kind: str, choice: int) -> Mend:
        """Begin a fault, and return the function that ends it. `choice` selects a replica."""
        what, how = kind.split()
        match what, how:
            case "redis", "paused":
                return self._pause(self._redis.process(self._redis_port).pid)
            case "redis", "killed":
                self._redis.kill(self._redis_port)
                return self._start_redis
            case "redis", "restored":
                execute(self._redis_port, "SAVE")
                return self._restore_redis
            case "cassandra", "paused":
                self._cassandra.pause()
                return self._cassandra.resume
            case "cassandra", "killed":
                self._cassandra.kill()
                return self._cassandra.start
            case "cassandra", "filled":
                self._fill_cassandra()
                return self._free_cassandra
            case "replica", _:
                doors = sorted(self.doors().values())
                process = listening_on(doors[choice % len(doors)])
                if how == "paused":
                    return self._pause(process.pid)
                if how == "cut-off":
                    return self._gate.cut_off(process.pid)
                process.kill()
                return lambda: None
        raise ValueError(kind)

    @staticmethod
    def _pause(pid: int) -> Mend:
        """Stop a process: connections stay open, but requests get no answer."""
        process = psutil.Process(pid)
        process.send_signal(signal.SIGSTOP)
        return lambda: process.send_signal(signal.SIGCONT)

    def _start_redis(self) -> None:
        """Start Redis again, without keys."""
        (self._folder / "redis" / str(self._redis_port) / "dump.rdb").unlink(missing_ok=True)
        self._redis.start(port=self._redis_port)

    def _restore_redis(self) -> None:
        """Kill Redis, and start it again with the keys that it had when the fault began."""
        self._redis.kill(self._redis_port)
        self._redis.start(port=self._redis_port)

    def _fill_cassandra(self) -> None:
        """Fill the disk of Cassandra, and write to it until it fails to open the next log."""
        for statement in MAKE_BLOBS:
            self._cassandra.execute(statement)
        self._disk.fill()
        with contextlib.suppress(*FAILURES):
            for key in range(MOST_BLOBS):
                self._cassandra.execute(
                    f"INSERT INTO filled.blobs (key, value) VALUES ({key}, 0x{BLOB.hex()})"
                )

    def _free_cassandra(self) -> None:
        """Free the disk of Cassandra, and start it again. A full disk has killed it (SIGBUS)."""
        self._disk.free()
        self._cassandra.restart()
