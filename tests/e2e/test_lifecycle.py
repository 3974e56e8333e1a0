"""Starting and stopping: one instance per directory, which leaves nothing behind."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import psutil
import pytest

from kirana.cli.instance import Instance
from kirana.serving.environment import free_ports
from tests.support import write_shop
from tests.waiting import wait_for


def _kirana(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kirana", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


class Up:
    """`kirana up` in a new process group, as a terminal starts it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder = folder
        self.url = f"http://127.0.0.1:{port}"
        self.log = folder / "up.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "kirana", "up", str(folder), "--port", str(port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until_healthy(self) -> None:
        def healthy() -> bool:
            assert self.process.poll() is None, self.log.read_text()
            return httpx.get(f"{self.url}/healthz").status_code == 200

        wait_for(healthy, self.log.read_text, ignoring=httpx.TransportError)

    def wait_for_ray(self) -> None:
        """Wait until a raylet runs."""
        wait_for(
            lambda: any("raylet" in process.name() for process in self.descendants()),
            self.log.read_text,
        )

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> None:
        """Send SIGINT to the whole process group, as Ctrl-C does."""
        os.killpg(self.process.pid, signal.SIGINT)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(write_shop(tmp_path / "shop"), free_ports(1)[0])
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()
    Instance(started.folder).clean_up()


def _remaining(processes: list[psutil.Process]) -> list[str]:
    """Wait at most 20 seconds until the processes end. Return the commands of those that remain."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    return [" ".join(process.cmdline())[:80] for process in alive if process.is_running()]


def test_ctrl_c_leaves_no_process_and_no_file_behind(up: Up) -> None:
    up.wait_until_healthy()
    processes = up.descendants()
    state = Instance(up.folder).read()
    assert state is not None
    up.interrupt()
    up.process.wait(60)
    assert _remaining(processes) == []
    assert not Path(state.folder).exists()
    assert Instance(up.folder).read() is None
    assert "Traceback" not in up.log.read_text()


def test_ctrl_c_during_a_start_leaves_no_process_behind(up: Up) -> None:
    up.wait_for_ray()
    processes = up.descendants()
    up.interrupt()
    assert up.process.wait(60) == 130, up.log.read_text()
    assert _remaining(processes) == []
    assert "Traceback" not in up.log.read_text()


def test_down_during_a_start_leaves_no_process_behind(up: Up) -> None:
    up.wait_for_ray()
    processes = up.descendants()
    _kirana("down", str(up.folder))
    assert up.process.wait(60) == 130, up.log.read_text()
    assert _remaining(processes) == []


def test_down_cleans_up_after_a_crash_during_a_start(up: Up) -> None:
    up.wait_for_ray()
    processes = up.descendants()
    up.process.kill()
    up.process.wait()
    _kirana("down", str(up.folder))
    assert _remaining(processes) == []
    assert Instance(up.folder).read() is None


def test_a_second_start_is_refused_and_down_stops_the_first(up: Up) -> None:
    up.wait_until_healthy()
    processes = up.descendants()
    second = _kirana("up", str(up.folder), "--port", str(free_ports(1)[0]))
    assert second.returncode == 1
    assert f"up at {up.url}" in second.stderr
    assert f"kirana down {up.folder}" in second.stderr
    assert _kirana("down", str(up.folder)).stdout == "stopped\n"
    up.process.wait(60)
    assert _remaining(processes) == []
    assert "no Kirana is up" in _kirana("down", str(up.folder)).stdout


def test_down_after_a_crash_leaves_no_process_behind(up: Up) -> None:
    up.wait_until_healthy()
    processes = up.descendants()
    up.process.kill()
    up.process.wait()
    _kirana("down", str(up.folder))
    assert _remaining(processes) == []


def test_a_taken_port_is_an_error_of_one_line(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        completed = _kirana("up", str(shop), "--port", str(port))
    assert completed.returncode == 1
    (line,) = completed.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


def test_an_invalid_catalog_is_not_served(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop")
    (shop / "models" / "click" / "1" / "model.onnx").unlink()
    completed = _kirana("up", str(shop), "--port", str(free_ports(1)[0]))
    assert completed.returncode == 1
    assert "shop.yaml" in completed.stderr
    assert "there is no file" in completed.stderr
    assert "Traceback" not in completed.stderr
