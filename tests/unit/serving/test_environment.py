"""The variables that Ray must be started with."""

from __future__ import annotations

import socket
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

from kirana.errors import ConfigurationError
from kirana.serving.environment import (
    REQUIRED,
    UNTUNED,
    cluster_environment,
    free_ports,
    require_serve_environment,
    serve_environment,
)

UNIX_SOCKET_BYTES = 107


def _server_socket() -> socket.socket:
    """As a server has it: a port that was left a moment ago is free."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return made


def test_an_environment_with_everything_is_taken(tmp_path: Path) -> None:
    require_serve_environment(REQUIRED)
    require_serve_environment(serve_environment(tmp_path))
    require_serve_environment(cluster_environment(tmp_path / "token"))
    require_serve_environment({**REQUIRED, "PATH": "/bin"})


@pytest.mark.parametrize("name", sorted(REQUIRED))
@pytest.mark.parametrize("value", [None, "", "0", "true"])
def test_a_variable_that_lacks_is_named_with_its_value(name: str, value: str | None) -> None:
    environment = {key: each for key, each in REQUIRED.items() if key != name}
    if value is not None:
        environment[name] = value
    with pytest.raises(ConfigurationError) as caught:
        require_serve_environment(environment)
    assert f"{name}={REQUIRED[name]}" in caught.value.message
    for other in REQUIRED.keys() - {name}:
        assert f"{other}=" not in caught.value.message


def test_all_that_lacks_is_named_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        require_serve_environment({})
    for name, value in REQUIRED.items():
        assert f"{name}={value}" in caught.value.message


def test_who_measures_what_the_variables_are_worth_may_leave_them_out() -> None:
    require_serve_environment({UNTUNED: "1"})
    with pytest.raises(ConfigurationError):
        require_serve_environment({UNTUNED: "0"})


def test_the_environment_of_this_process_is_looked_at_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    require_serve_environment()
    monkeypatch.delenv(next(iter(REQUIRED)))
    with pytest.raises(ConfigurationError):
        require_serve_environment()


def test_every_variable_is_text(tmp_path: Path) -> None:
    for variables in (serve_environment(tmp_path), cluster_environment(tmp_path / "token")):
        for name, value in variables.items():
            assert isinstance(value, str), name
            assert value, name


def test_a_cluster_asks_its_clients_for_the_secret_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    variables = cluster_environment(file)
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN_PATH"] == str(file)
    assert not file.exists()


def test_a_cluster_has_no_files_and_ports_of_one_machine(tmp_path: Path) -> None:
    variables = cluster_environment(tmp_path / "token")
    assert not [name for name in variables if name.endswith(("_PORT", "_SOCKET_PATH"))]
    assert cluster_environment(tmp_path / "token") == variables
    assert variables.keys() - serve_environment(tmp_path).keys() == {
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN_PATH",
    }


def test_all_files_lie_in_the_folder_with_names_of_their_own(tmp_path: Path) -> None:
    inside = [
        value
        for value in serve_environment(tmp_path).values()
        if value.startswith("/") and Path(value) != tmp_path
    ]
    assert all(Path(value).parent == tmp_path for value in inside)
    assert len(set(inside)) == len(inside) == 4


def test_ports_are_free_and_differ(tmp_path: Path) -> None:
    environment = serve_environment(tmp_path)
    ports = [int(value) for name, value in environment.items() if name.endswith("_PORT")]
    assert len(set(ports)) == len(ports) == 4
    for port in ports:
        with _server_socket() as opened:
            opened.bind(("127.0.0.1", port))


def test_two_environments_share_no_port(tmp_path: Path) -> None:
    taken = [_server_socket() for _ in range(2)]
    try:
        for each, port in zip(taken, free_ports(2), strict=True):
            each.bind(("127.0.0.1", port))
            each.listen()
        in_use = {each.getsockname()[1] for each in taken}
        assert in_use.isdisjoint(free_ports(20))
    finally:
        for each in taken:
            each.close()


_FEW_PORTS = """
import sys
from kirana.serving import environment as serve_environment
serve_environment._QUIET_PORTS = range(28_000, 28_010)
serve_environment._TRIES = 10
print(*serve_environment.free_ports(4), flush=True)
sys.stdin.read()
"""


def test_processes_that_ask_at_once_get_ports_of_their_own() -> None:
    """Before a server of either listens."""
    command = [sys.executable, "-c", _FEW_PORTS]
    with ExitStack() as running:
        found = []
        for _ in range(2):
            process = running.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            assert process.stdout is not None
            found += process.stdout.readline().split()
    assert len(set(found)) == len(found) == 8


@pytest.mark.parametrize("count", [0, 1, 50])
def test_as_many_ports_as_were_asked_for(count: int) -> None:
    ports = free_ports(count)
    assert len(set(ports)) == count
    assert all(1024 <= port < 65536 for port in ports)


def test_sockets_of_a_short_folder_have_names_that_fit() -> None:
    for name, value in serve_environment(Path("/tmp/kirana-123456")).items():
        if "SOCKET" in name:
            assert len(value.encode()) <= UNIX_SOCKET_BYTES
