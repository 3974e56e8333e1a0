"""Errors that prevent a start: `kirana up` prints one line, and `kirana doctor` reports them."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import lmdb
import psutil
import pytest

from kirana.cli.instance import Instance
from kirana.serving.environment import free_ports
from tests.support import write_shop

TIMEOUT_S = 60


@dataclass
class Start:
    """The folder of a shop, and the environment and options for commands on it.

    `temporary` is the folder for temporary files. `resources` are closed after the test.
    """

    folder: Path
    temporary: Path
    environment: dict[str, str] = field(default_factory=dict)
    options: list[str] = field(default_factory=list)
    resources: ExitStack = field(default_factory=ExitStack)

    def kirana(self, command: str) -> subprocess.CompletedProcess[str]:
        clean = {
            name: value for name, value in os.environ.items() if not name.startswith("KIRANA_")
        }
        port = [] if "--port" in self.options else ["--port", str(free_ports(1)[0])]
        arguments = [
            sys.executable,
            "-m",
            "kirana",
            command,
            str(self.folder),
            *port,
            *self.options,
        ]
        return subprocess.run(
            arguments,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
            env={**clean, "COLUMNS": "400", "TMPDIR": str(self.temporary), **self.environment},
        )


Case = Callable[[Start], list[str]]
"""A function that makes a start fail, and returns words that the error message must contain."""


def _an_unknown_feature_store(start: Start) -> list[str]:
    start.environment["KIRANA_FEATURES"] = "mongo://localhost"
    return ["features", "mongo://localhost"]


def _a_redis_that_does_not_answer(start: Start) -> list[str]:
    (port,) = free_ports(1)
    start.environment["KIRANA_FEATURES"] = f"redis://127.0.0.1:{port}"
    return ["features", f"redis://127.0.0.1:{port}", "does not answer"]


def _an_unknown_interaction_store(start: Start) -> list[str]:
    start.environment["KIRANA_INTERACTIONS"] = "memory://"
    return ["interactions", "lmdb:///absolute/folder"]


def _a_missing_model_file(start: Start) -> list[str]:
    (start.folder / "models" / "click" / "1" / "model.onnx").unlink()
    return ["shop.yaml", "click_model", "there is no file", "click/1/model.onnx"]


def _a_taken_port(start: Start) -> list[str]:
    port = start.resources.enter_context(_listening())
    start.options += ["--port", str(port)]
    return [f"127.0.0.1:{port}", "--port"]


def _no_free_direct_port(start: Start) -> list[str]:
    port = start.resources.enter_context(_listening())
    start.environment["KIRANA_DIRECT_PORTS"] = str(port)
    return ["direct_ports", str(port)]


def _no_space_for_features(start: Start) -> list[str]:
    folder = start.resources.enter_context(_small_file_system(start.folder.parent / "small"))
    start.environment["KIRANA_FEATURES"] = f"lmdb://{folder}/features"
    return ["features", str(folder), "space"]


def _features_of_another_format(start: Start) -> list[str]:
    return [_of_another_format(start, "features"), "features", "format"]


def _memory_with_two_replicas(start: Start) -> list[str]:
    start.environment |= {"KIRANA_FEATURES": "memory://", "KIRANA_REPLICAS": "2"}
    return ["features", "memory://", "2 replicas"]


def _a_file_that_is_not_a_configuration(start: Start) -> list[str]:
    file = start.folder / "serve.txt"
    file.write_text("applications: nothing")
    start.options += ["--config", str(file)]
    return [str(file)]


def _an_option_of_a_wrong_type(start: Start) -> list[str]:
    _configure(start, {"name": "Ingress", "autoscaling_config": 5})
    return ["applications.0.deployments.0.autoscaling_config"]


def _an_unknown_deployment(start: Start) -> list[str]:
    _configure(start, {"name": "Ingres", "num_replicas": 2})
    return ["deployments", "Ingres", "Ingress"]


def _min_replicas_above_max_replicas(start: Start) -> list[str]:
    scaling = {"min_replicas": 3, "max_replicas": 2}
    _configure(start, {"name": "Ingress", "autoscaling_config": scaling})
    return ["deployments", "max_replicas"]


def _configure(start: Start, deployment: dict[str, object]) -> None:
    application = {"import_path": "kirana.graphs.serving:build", "deployments": [deployment]}
    file = start.folder / "serve.txt"
    file.write_text(json.dumps({"applications": [application]}))
    start.options += ["--config", str(file)]


def _a_wrong_url(start: Start) -> list[str]:
    start.options += ["--interactions", "lmdb://[bad"]
    return ["interactions", "lmdb://[bad"]


CASES = [
    _an_option_of_a_wrong_type,
    _an_unknown_deployment,
    _min_replicas_above_max_replicas,
    _a_wrong_url,
    _an_unknown_feature_store,
    _a_redis_that_does_not_answer,
    _an_unknown_interaction_store,
    _a_missing_model_file,
    _a_taken_port,
    _no_free_direct_port,
    pytest.param(_no_space_for_features, marks=pytest.mark.machine),
    _features_of_another_format,
    _memory_with_two_replicas,
    _a_file_that_is_not_a_configuration,
]


@contextmanager
def _listening() -> Iterator[int]:
    with socket.socket() as taken:
        port = free_ports(1)[0]
        taken.bind(("127.0.0.1", port))
        taken.listen()
        yield port


@contextmanager
def _small_file_system(folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, check=False).returncode != 0:
        pytest.skip("a file system can't be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def _of_another_format(start: Start, store: str) -> str:
    folder = start.folder / ".kirana" / "data" / store
    folder.mkdir(parents=True)
    with lmdb.open(str(folder), max_dbs=8) as opened, opened.begin(write=True) as txn:
        txn.put(b"format", b"99", db=opened.open_db(b"meta", txn))
    return str(folder)


def _name(case: Case) -> str:
    return getattr(case, "__name__", "").strip("_")


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    prepared = Start(write_shop(tmp_path / "shop"), temporary)
    with prepared.resources:
        yield prepared


def _left_behind(start: Start) -> list[str]:
    """Return the processes and files that remain after a start has ended."""
    # Other temporary files belong to libraries, for example the .ses files of onnxruntime.
    remaining = [str(path) for path in start.temporary.glob("kirana-*")]
    for process in psutil.process_iter():
        try:
            if process.environ().get("TMPDIR") == str(start.temporary):
                remaining.append(" ".join(process.cmdline()))
        except (psutil.Error, OSError):
            continue
    return remaining


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_up_ends_with_one_clear_line_and_leaves_nothing_behind(case: Case, start: Start) -> None:
    words = case(start)
    completed = start.kirana("up")
    assert completed.returncode == 1, completed.stderr
    lines = completed.stderr.splitlines()
    assert len(lines) == 1, lines
    (line,) = lines
    assert line.startswith("error: ")
    assert [word for word in words if word not in line] == [], line
    assert Instance(start.folder).read() is None
    assert _left_behind(start) == []


@pytest.mark.parametrize("case", CASES, ids=_name)
def test_doctor_finds_the_error_before_a_start(case: Case, start: Start) -> None:
    words = case(start)
    completed = start.kirana("doctor")
    output = completed.stdout + completed.stderr
    assert completed.returncode == 1, output
    rows = re.findall(r"^error.*$", output, re.MULTILINE)
    assert rows, output
    for row in rows:
        assert [word for word in words if word not in row] == [], output
    assert "Traceback" not in output


def test_doctor_finds_nothing_wrong_with_a_good_shop(start: Start) -> None:
    completed = start.kirana("doctor")
    assert completed.returncode == 0, completed.stdout
    assert not re.search("^error", completed.stdout, re.MULTILINE)


def test_doctor_names_every_error(start: Start) -> None:
    cases = (_a_missing_model_file, _features_of_another_format, _a_taken_port)
    expected = [case(start) for case in cases]
    completed = start.kirana("doctor")
    assert completed.returncode == 1
    rows = re.findall(r"^error.*$", completed.stdout, re.MULTILINE)
    assert len(rows) == 3, completed.stdout
    for words in expected:
        assert any(all(word in row for word in words) for row in rows), (words, completed.stdout)


_START_PROGRAM = """
import sys, tempfile
from pathlib import Path
from kirana.cli.cluster import cluster
from kirana.errors import Unavailable
with tempfile.TemporaryDirectory() as folder:
    try:
        with cluster("127.0.0.1", int(sys.argv[1]), int(sys.argv[2]), Path(folder), lambda: None):
            pass
    except Unavailable as error:
        print(error.message)
"""


def test_a_port_that_is_taken_after_the_check_is_an_error_of_one_line() -> None:
    with _listening() as port:
        command = [sys.executable, "-c", _START_PROGRAM, str(port), str(*free_ports(1))]
        completed = subprocess.run(
            command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
    assert re.fullmatch(rf"Serve did not start: .*cannot bind .*:{port}.*\n", completed.stdout), (
        completed
    )
