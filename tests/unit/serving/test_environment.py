"""The environment variables that Ray must be started with, and free ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from kirana.errors import ConfigurationError
from kirana.serving import environment as serve_variables
from kirana.serving.environment import (
    ALLOW_UNTUNED,
    REQUIRED,
    cluster_environment,
    free_ports,
    require_serve_environment,
    serve_environment,
)

UNIX_SOCKET_BYTES = 107


def _server_socket() -> socket.socket:
    """Return a socket that can be bound to a port that was closed a moment ago."""
    server = socket.socket()
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return server


def test_a_complete_environment_is_accepted(tmp_path: Path) -> None:
    require_serve_environment(REQUIRED)
    require_serve_environment(serve_environment(tmp_path))
    require_serve_environment(cluster_environment(tmp_path / "token"))
    require_serve_environment({**REQUIRED, "PATH": "/bin"})


@pytest.mark.parametrize("name", sorted(REQUIRED))
@pytest.mark.parametrize("value", [None, "", "0", "true"])
def test_a_missing_or_wrong_variable_is_named_with_the_required_value(
    name: str, value: str | None
) -> None:
    environment = {key: required for key, required in REQUIRED.items() if key != name}
    if value is not None:
        environment[name] = value
    with pytest.raises(ConfigurationError) as caught:
        require_serve_environment(environment)
    assert f"{name}={REQUIRED[name]}" in caught.value.message
    for other in REQUIRED.keys() - {name}:
        assert f"{other}=" not in caught.value.message


def test_all_missing_variables_are_named_together() -> None:
    with pytest.raises(ConfigurationError) as caught:
        require_serve_environment({})
    for name, value in REQUIRED.items():
        assert f"{name}={value}" in caught.value.message


def test_the_variables_may_be_omitted_for_measurements() -> None:
    require_serve_environment({ALLOW_UNTUNED: "1"})
    with pytest.raises(ConfigurationError):
        require_serve_environment({ALLOW_UNTUNED: "0"})


def test_the_environment_of_this_process_is_checked_by_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in REQUIRED.items():
        monkeypatch.setenv(name, value)
    require_serve_environment()
    monkeypatch.delenv(next(iter(REQUIRED)))
    with pytest.raises(ConfigurationError):
        require_serve_environment()


def test_every_variable_is_a_nonempty_string(tmp_path: Path) -> None:
    for variables in (serve_environment(tmp_path), cluster_environment(tmp_path / "token")):
        for name, value in variables.items():
            assert isinstance(value, str), name
            assert value, name


def test_a_cluster_authenticates_clients_by_a_token_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    variables = cluster_environment(file)
    assert variables["RAY_AUTH_MODE"] == "token"
    assert variables["RAY_AUTH_TOKEN_PATH"] == str(file)
    assert not file.exists()


def test_a_cluster_sets_no_ports_or_sockets_of_one_machine(tmp_path: Path) -> None:
    variables = cluster_environment(tmp_path / "token")
    assert not [name for name in variables if name.endswith(("_PORT", "_SOCKET_PATH"))]
    assert cluster_environment(tmp_path / "token") == variables
    assert variables.keys() - serve_environment(tmp_path).keys() == {
        "RAY_AUTH_MODE",
        "RAY_AUTH_TOKEN_PATH",
    }


def test_all_files_are_in_the_folder_and_have_different_names(tmp_path: Path) -> None:
    inside = [
        value
        for value in serve_environment(tmp_path).values()
        if value.startswith("/") and Path(value) != tmp_path
    ]
    assert all(Path(value).parent == tmp_path for value in inside)
    assert len(set(inside)) == len(inside) == 4


def test_ports_are_free_and_different(tmp_path: Path) -> None:
    environment = serve_environment(tmp_path)
    ports = [
        int(value)
        for name, value in environment.items()
        if name.endswith("_PORT") and "DIRECT_INGRESS" not in name
    ]
    assert len(set(ports)) == len(ports) == 4
    for port in ports:
        with _server_socket() as server:
            server.bind(("127.0.0.1", port))


def test_ports_in_use_are_not_returned(tmp_path: Path) -> None:
    servers = [_server_socket() for _ in range(2)]
    try:
        for server, port in zip(servers, free_ports(2), strict=True):
            server.bind(("127.0.0.1", port))
            server.listen()
        in_use = {server.getsockname()[1] for server in servers}
        assert in_use.isdisjoint(free_ports(20))
    finally:
        for server in servers:
            server.close()


def _replica_ports(environment: Mapping[str, str]) -> range:
    first, last = (
        int(environment[f"RAY_SERVE_DIRECT_INGRESS_{bound}_HTTP_PORT"]) for bound in ("MIN", "MAX")
    )
    return range(first, last)


def test_each_ray_instance_has_its_own_range_of_replica_ports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Reservations last until the process ends, on the whole machine. So these numbers are above
    # those of real ports.
    first = 10**6 + 1_000 * os.getpid()
    ranges = [range(first, first + 100), range(first + 100, first + 200)]
    monkeypatch.setattr(serve_variables, "_REPLICA_PORTS", ranges)
    given = [_replica_ports(serve_environment(tmp_path)) for _ in range(2)]
    assert sorted(given, key=lambda ports: ports.start) == ranges
    assert _replica_ports(serve_environment(tmp_path)) in ranges


_PROGRAM_WITH_FEW_PORTS = """
import sys
from kirana.serving import environment as serve_environment
serve_environment._QUIET_PORTS = range(28_000, 28_010)
serve_environment._TRIES = 10
print(*serve_environment.free_ports(4), flush=True)
sys.stdin.read()
"""


def test_concurrent_processes_get_different_ports() -> None:
    """The ports differ even though neither process listens on them yet."""
    command = [sys.executable, "-c", _PROGRAM_WITH_FEW_PORTS]
    with ExitStack() as stack:
        ports = []
        for _ in range(2):
            process = stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            assert process.stdout is not None
            ports += process.stdout.readline().split()
    assert len(set(ports)) == len(ports) == 8


@pytest.mark.parametrize("count", [0, 1, 50])
def test_the_requested_number_of_ports_is_returned(count: int) -> None:
    ports = free_ports(count)
    assert len(set(ports)) == count
    assert all(1024 <= port < 65536 for port in ports)


def test_socket_paths_in_a_short_folder_are_short_enough() -> None:
    for name, value in serve_environment(Path("/tmp/kirana-123456")).items():
        if "SOCKET" in name:
            assert len(value.encode()) <= UNIX_SOCKET_BYTES


def test_workers_of_ray_have_the_niceness_0_unless_the_environment_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RAY_worker_niceness")
    assert serve_environment(tmp_path)["RAY_worker_niceness"] == "0"
    assert cluster_environment(tmp_path / "token")["RAY_worker_niceness"] == "0"
    monkeypatch.setenv("RAY_worker_niceness", "7")
    assert serve_environment(tmp_path)["RAY_worker_niceness"] == "7"
