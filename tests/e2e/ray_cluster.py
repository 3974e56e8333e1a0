"""A Ray that `ray start` starts and `serve deploy` deploys to; its processes are ended by id."""

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
    """Lines of a shell on it: after `eval "$(kirana env DIR)"`, or with `bare` without that."""

    catalog: Path
    dashboard_port: int = 8265
    http_port: int = 8000
    ray_options: str = ""
    exports: Mapping[str, str] | None = None
    bare: bool = False

    def type(self, *lines: str) -> str:
        """Run lines of bash as a person types them in a clone; return what they say."""
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        known = ("RAY_", "KIRANA_")
        clean = {name: each for name, each in os.environ.items() if not name.startswith(known)}
        exports = [
            f"export {name}={shlex.quote(value)}" for name, value in (self.exports or {}).items()
        ]
        first = [] if self.bare else [f'eval "$(kirana env {self.catalog})"']
        done = subprocess.run(
            ["bash", "-ec", "\n".join([*first, *exports, *lines])],
            capture_output=True,
            text=True,
            check=False,
            cwd=REPOSITORY,
            env={**clean, "PATH": path, "RAY_DASHBOARD_ADDRESS": self.dashboard},
            timeout=COMMAND_TIMEOUT_S,
        )
        assert done.returncode == 0, f"{lines}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    @property
    def dashboard(self) -> str:
        return f"http://127.0.0.1:{self.dashboard_port}"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def start(self) -> None:
        self.type(f"ray start --head --node-ip-address=127.0.0.1 {self.ray_options}")

    def deploy(self, config: Mapping[str, Any], file: Path) -> None:
        """`config` is what `serve_config.yaml` would hold."""
        file.write_text(yaml.safe_dump(dict(config)))
        self.type(f"serve deploy {file}")

    def status(self) -> dict[str, Any]:
        """Return what `serve status` says of the application."""
        said = yaml.safe_load(self.type("serve status"))
        found: dict[str, Any] = said["applications"].get("kirana", {})
        return found

    def wait_until(self, *states: str) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            status = self.status()
            return status if status.get("status") in states else None

        found = wait_for(reached, f"the application is {' or '.join(states)}")
        assert found is not None
        return found

    def processes(self) -> list[psutil.Process]:
        """Return all that `ray start` has started, and what that has started."""
        mark = f"dir://{self.catalog}"
        found = set()
        for process in psutil.process_iter():
            try:
                if process.environ().get("KIRANA_CATALOG") == mark:
                    found |= {process, *process.children(recursive=True)}
            except (psutil.Error, OSError):
                continue
        return list(found)

    def end(self) -> None:
        # more may start while the first ones end
        while processes := [each for each in self.processes() if _runs(each)]:
            for process in processes:
                if _runs(process):
                    process.kill()
            psutil.wait_procs(processes, timeout=10)


def _runs(process: psutil.Process) -> bool:
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def _direct_ports() -> str:
    """Return a range for this worker: the port of a replica that was killed is known for a while.

    Another cluster that took it would get requests that are not its own.
    """
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    first = 19_000 + 100 * (worker % 10)
    return f"{first}-{first + 99}"


@contextmanager
def cluster_beside_others(catalog: Path, folder: Path, **more: Any) -> Iterator[RayCluster]:
    """Start a Ray on ports of its own; `folder` holds HAProxy's files, its path is short."""
    dashboard, http, gcs, client, agent = free_ports(5)
    options = {
        "dashboard-port": dashboard,
        "port": gcs,
        "ray-client-server-port": client,
        "dashboard-agent-listen-port": agent,
        "object-store-memory": 256 << 20,
    }
    words = " ".join(f"--{name}={value}" for name, value in options.items())
    if not more.get("bare"):
        ours = serve_environment(folder)
        del ours["RAY_SERVE_DIRECT_INGRESS_MIN_DRAINING_PERIOD_S"]  # what `kirana env` says counts
        ports = [name for name in ours if name.endswith("_PORT")]
        ours.update(zip(ports, map(str, free_ports(len(ports))), strict=True))
        ours["KIRANA_DIRECT_PORTS"] = _direct_ports()
        more["exports"] = {**ours, **more.get("exports", {})}
    cluster = RayCluster(catalog, dashboard, http, words, **more)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.end()
