"""`kirana env`: the variables that it prints for a shell, and the secret that it creates."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from kirana.serving.environment import REQUIRED, cluster_environment
from kirana.urls import folder_of

KIRANA = [sys.executable, "-m", "kirana"]
NAMES = ["shop", 'it\'s "my" shop $HOME `id` \\ !', "[red]café\nof two lines"]


@pytest.fixture
def variables() -> dict[str, str]:
    """Return the environment without the variables of Kirana and Ray."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("KIRANA_", "RAY_"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "shop"
    path.mkdir()
    return path


def evaluated(variables: dict[str, str], folder: Path, *options: str) -> dict[str, str]:
    """Return the variables that `eval "$(kirana env DIR)"` adds to a real shell."""
    command = shlex.join([*KIRANA, "env", str(folder), *options])
    script = f'set -eu; values="$({command})"; eval "$values"; unset values; env -0'
    done = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    pairs = (entry.split("=", 1) for entry in done.stdout.decode().split("\0") if entry)
    set_by_shell = ("_", "SHLVL", "PWD", "OLDPWD")
    return {name: value for name, value in pairs if name not in {*variables, *set_by_shell}}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_shell_gets_the_variables_that_every_node_needs(
    tmp_path: Path, variables: dict[str, str], name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    added = evaluated(variables, folder)
    for setting, scheme, path in (
        ("catalog", "dir", folder),
        ("features", "lmdb", folder / ".kirana/data/features"),
        ("interactions", "lmdb", folder / ".kirana/data/interactions"),
        ("models", "file", folder / "models"),
    ):
        url = added.pop(f"KIRANA_{setting.upper()}")
        assert folder_of(url, scheme, setting=setting) == path
    assert added.pop("KIRANA_FEATURES_HOT") == "off"
    assert added.pop("KIRANA_STREAMS") == "off"
    assert added.pop("KIRANA_ARCHIVE") == "off"
    assert added == cluster_environment(folder / ".kirana/ray-token")


def test_options_and_variables_override_the_default_urls(
    folder: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    variables["KIRANA_INTERACTIONS"] = "lmdb:///from/variable"
    after = variables | evaluated(
        variables, folder, "--features", "memory://", "--models", str(tmp_path / "models")
    )
    assert after["KIRANA_FEATURES"] == "memory://"
    assert after["KIRANA_MODELS"] == f"file://{tmp_path}/models"
    assert after["KIRANA_INTERACTIONS"] == "lmdb:///from/variable"


def run_env(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `kirana env` and return the finished process."""
    command = [*KIRANA, "env", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_every_line_is_an_export_even_on_a_narrow_colour_terminal(
    folder: Path, variables: dict[str, str]
) -> None:
    narrow = {**variables, "COLUMNS": "20", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = run_env(narrow, str(folder))
    lines = done.stdout.splitlines()
    assert all(line.startswith("export ") for line in lines)
    assert {line.split()[1].split("=")[0] for line in lines} >= REQUIRED.keys()
    assert done.stdout == run_env(variables, str(folder)).stdout


def test_only_the_owner_can_read_the_secret_and_a_second_call_keeps_it(
    folder: Path, variables: dict[str, str]
) -> None:
    token = Path(evaluated(variables, folder)["RAY_AUTH_TOKEN_PATH"])
    secret = token.read_text()
    assert token.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(secret)) >= 32
    again = evaluated(variables, folder)
    assert again["RAY_AUTH_TOKEN_PATH"] == str(token)
    assert token.read_text() == secret
    assert token.stat().st_mode & 0o777 == 0o600


def test_the_secret_is_not_printed(folder: Path, variables: dict[str, str]) -> None:
    done = run_env(variables, str(folder))
    assert (folder / ".kirana/ray-token").read_text() not in done.stdout


def test_two_clusters_have_different_secrets(tmp_path: Path, variables: dict[str, str]) -> None:
    secrets = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        run_env(variables, str(tmp_path / name))
        secrets.add((tmp_path / name / ".kirana/ray-token").read_text())
    assert len(secrets) == 2


def test_the_path_of_the_secret_is_absolute(
    folder: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    done = run_env(variables, folder.name)
    assert f"export RAY_AUTH_TOKEN_PATH={folder}/.kirana/ray-token" in done.stdout


def test_a_missing_directory_gives_one_line_and_nothing_to_evaluate(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    done = run_env(variables, str(tmp_path / "nothing"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: the directory does not exist: {tmp_path}/nothing\n"
    assert not (tmp_path / "nothing").exists()


def test_env_replaces_the_variables_of_another_directory_and_check_refuses_them(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    first, second = tmp_path / "one", tmp_path / "other"
    for folder in (first, second):
        folder.mkdir()
    variables |= {"KIRANA_CATALOG": f"dir://{first}", "KIRANA_FEATURES": "memory://"}
    printed_env = subprocess.run(
        [*KIRANA, "env", str(second)], capture_output=True, text=True, check=True, env=variables
    )
    assert f"KIRANA_CATALOG=dir://{second}" in printed_env.stdout
    assert f"KIRANA_FEATURES=lmdb://{second}" in printed_env.stdout
    refused_check = subprocess.run(
        [*KIRANA, "check", str(second)], capture_output=True, text=True, check=False, env=variables
    )
    assert refused_check.returncode == 1
    assert f"KIRANA_CATALOG is dir://{first}, not {second}" in refused_check.stderr
