"""A Ray cluster for tests, controlled with `ray start` and `serve deploy`."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import yaml

from kirana.serving.environment import free_ports, serve_environment
from tests.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]
SERVE_CONFIG = REPOSITORY / "serve_config.yaml"
COMMAND_TIMEOUT_S = 120


@dataclass(frozen=True)
class RayCluster:
    """A Ray cluster and the shell commands that control it.

    The commands run after `eval "$(kirana env DIR)"`, unless `bare` is set. `exports` are further
    environment variables for the commands.
    """

    catalog: Path
    dashboard_port: int = 8265
    http_port: int = 8000
    ray_options: str = ""
    exports: Mapping[str, str] | None = None
    bare: bool = False

    def run_shell(self, *lines: str) -> str:
        """Run lines of bash in the repository, as a user types them, and return their output."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        prefixes = ("RAY_", "KIRANA_")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
        exports = [
            f"export {name}={shlex.quote(value)}" for name, value in (self.exports or {}).items()
        ]
        setup = [] if self.bare else [f'eval "$(kirana env {self.catalog})"']
        completed = subprocess.run(
            ["bash", "-ec", "\n".join([*setup, *exports, *lines])],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env={**clean, "PATH": path, "RAY_DASHBOARD_ADDRESS": self.dashboard},
            timeout=COMMAND_TIMEOUT_S,
        )
        assert completed.returncode == 0, f"{lines}\n{completed.stdout}\n{completed.stderr}"
        return completed.stdout

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        self.run_shell(f"ray start --head --node-ip-address=127.0.0.1 {self.ray_options}")

    def deploy(self, config: Mapping[str, Any], file: Path) -> None:
        """Deploy a configuration in the format of `serve_config.yaml`, and write it to `file`."""
        file.write_text(yaml.safe_dump(dict(config)))
        self.run_shell(f"serve deploy {file}")

    def status(self) -> dict[str, Any]:
        """Return the state of the application in `serve status`, or {} if it is not deployed."""
        report = yaml.safe_load(self.run_shell("serve status"))
        application: dict[str, Any] = report["applications"].get("kirana", {})
        return application

    def wait_until(self, *states: str) -> dict[str, Any]:
        """Wait until the application has one of these states, and return its `status`."""

        def reached() -> dict[str, Any] | None:
            status = self.status()
            return status if status.get("status") in states else None

        final = wait_for(reached, f"the application is {' or '.join(states)}")
        assert final is not None
        return final

    def processes(self) -> list[psutil.Process]:
        """Return the processes whose environment names this catalog, and their descendants."""
        catalog_url = f"dir://{self.catalog}"
        processes = set()
        for process in psutil.process_iter():
            try:
                if process.environ().get("KIRANA_CATALOG") == catalog_url:
                    processes |= {process, *process.children(recursive=True)}
            except (psutil.Error, OSError):
                continue
        return list(processes)

    def end(self) -> None:
        # More processes may start while the first ones end.
        while processes := [process for process in self.processes() if _runs(process)]:
            for process in processes:
                if _runs(process):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _direct_ports() -> str:
    """Return a range of direct ports that only this worker uses, among at most ten workers.

    Clients still know the port of a killed replica for a while. If another cluster used that port,
    it would get their requests.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 19_000 + 100 * (worker % 10)
    return f"{first}-{first + 99}"


@contextmanager
def cluster_beside_others(catalog: Path, folder: Path, **fields: Any) -> Iterator[RayCluster]:
    """Start a Ray cluster on free ports, so that other clusters can run at the same time.

    `folder` is for HAProxy's files, and its path must be short. `fields` are other fields of the
    `RayCluster`.
    """
    dashboard, http, gcs, client, agent = free_ports(5)
    options = {
        "dashboard-port": dashboard,
        "port": gcs,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "object-store-memory": 256 << 20,
    }
    ray_options = " ".join(f"--{name}={value}" for name, value in options.items())
    if not fields.get("bare"):
        environment = serve_environment(folder)
        del environment["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"]  # `kirana env` sets it.
        environment["KIRANA_DIRECT_PORTS"] = _direct_ports()
        fields["exports"] = {**environment, **fields.get("exports", {})}
    cluster = RayCluster(catalog, dashboard, http, ray_options, **fields)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
