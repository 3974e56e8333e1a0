"""Starting and stopping: one instance a directory, and nothing left behind."""

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
from tests.support import SHOP, write_shop
from tests.waiting import wait_for


def _kirana(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kirana", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


class Up:
    """`kirana up` in a process group of its own, as a terminal starts it."""

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
        """Wait until it is half-way up: Ray's processes are there, Serve is not."""
        wait_for(
            lambda: any("raylet" in process.name() for process in self.descendants()),
            self.log.read_text,
        )

    def descendants(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    def interrupt(self) -> None:
        """What Ctrl-C does: the whole process group gets the signal."""
        os.killpg(self.process.pid, signal.SIGINT)


@pytest.fixture
def up(tmp_path: Path) -> Iterator[Up]:
    started = Up(write_shop(tmp_path / "shop"), free_ports(1)[0])
    yield started
    if started.process.poll() is None:
        started.process.kill()
        started.process.wait()
    Instance(started.folder).clean_up()


def _gone(processes: list[psutil.Process]) -> list[str]:
    """Return what is still there a moment later."""
    _, alive = psutil.wait_procs(processes, timeout=20)
    return [" ".join(process.cmdline())[:80] for process in alive if process.is_running()]


def test_ctrl_c_leaves_no_process_and_no_file_behind(up: Up) -> None:
    up.wait_until_healthy()
    processes = up.descendants()
    state = Instance(up.folder).read()
    assert state is not None
    up.interrupt()
    up.process.wait(60)
    assert _gone(processes) == []
    assert not Path(state.folder).exists()
    assert Instance(up.folder).read() is None
    assert "Traceback" not in up.log.read_text()


def test_ctrl_c_half_way_up_leaves_no_process_behind(up: Up) -> None:
    up.wait_for_ray()
    processes = up.descendants()
    up.interrupt()
    assert up.process.wait(60) == 130, up.log.read_text()
    assert _gone(processes) == []
    assert "Traceback" not in up.log.read_text()


def test_down_half_way_up_leaves_no_process_behind(up: Up) -> None:
    up.wait_for_ray()
    processes = up.descendants()
    _kirana("down", str(up.folder))
    assert up.process.wait(60) == 130, up.log.read_text()
    assert _gone(processes) == []


def test_down_cleans_up_what_a_crash_half_way_up_has_left(up: Up) -> None:
    up.wait_for_ray()
    processes = up.descendants()
    up.process.kill()
    up.process.wait()
    _kirana("down", str(up.folder))
    assert _gone(processes) == []
    assert Instance(up.folder).read() is None


def test_a_second_start_says_that_one_is_up_and_down_stops_it(up: Up) -> None:
    up.wait_until_healthy()
    processes = up.descendants()
    second = _kirana("up", str(up.folder), "--port", str(free_ports(1)[0]))
    assert second.returncode == 1
    assert f"up at {up.url}" in second.stderr
    assert f"kirana down {up.folder}" in second.stderr
    assert _kirana("down", str(up.folder)).stdout == "stopped\n"
    up.process.wait(60)
    assert _gone(processes) == []
    assert "no Kirana is up" in _kirana("down", str(up.folder)).stdout


def test_down_cleans_up_what_a_crash_has_left(up: Up) -> None:
    up.wait_until_healthy()
    processes = up.descendants()
    up.process.kill()
    up.process.wait()
    _kirana("down", str(up.folder))
    assert _gone(processes) == []


def test_a_taken_port_is_one_clear_line(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = _kirana("up", str(shop), "--port", str(port))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert f"127.0.0.1:{port}" in line
    assert "--port" in line


def test_a_catalog_that_is_not_valid_is_not_served(tmp_path: Path) -> None:
    shop = write_shop(tmp_path / "shop", SHOP.replace("by: score", "by: scor"))
    (shop / "models" / "click" / "1" / "model.onnx").unlink()
    done = _kirana("up", str(shop), "--port", str(free_ports(1)[0]))
    assert done.returncode == 1
    assert "shop.yaml" in done.stderr
    assert "there is no file" in done.stderr
    assert "Traceback" not in done.stderr
