"""`kirana env`: what a shell makes of it, and the secret that it leaves."""

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
    """Of a shell that knows nothing of Kirana yet."""
    return {k: v for k, v in os.environ.items() if not k.startswith(("KIRANA_", "RAY_"))}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "shop"
    made.mkdir()
    return made


def evaluated(variables: dict[str, str], folder: Path, *options: str) -> dict[str, str]:
    """Return what a real shell has after `eval "$(kirana env DIR)"` that it had not before."""
    command = shlex.join([*KIRANA, "env", str(folder), *options])
    script = f'set -eu; values="$({command})"; eval "$values"; unset values; env -0'
    done = subprocess.run(["bash", "-c", script], env=variables, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == b""
    pairs = (each.split("=", 1) for each in done.stdout.decode().split("\0") if each)
    shell = ("_", "SHLVL", "PWD", "OLDPWD")
    return {name: value for name, value in pairs if name not in {*variables, *shell}}


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_shell_has_what_each_node_needs(
    tmp_path: Path, variables: dict[str, str], name: str
) -> None:
    folder = tmp_path / name
    folder.mkdir()
    found = evaluated(variables, folder)
    for setting, scheme, place in (
        ("catalog", "dir", folder),
        ("features", "lmdb", folder / ".kirana/data/features"),
        ("interactions", "lmdb", folder / ".kirana/data/interactions"),
        ("models", "file", folder / "models"),
    ):
        url = found.pop(f"KIRANA_{setting.upper()}")
        assert folder_of(url, scheme, setting=setting) == place
    assert found == cluster_environment(folder / ".kirana/ray-token")


def test_options_and_variables_choose_where_the_parts_are(
    folder: Path, variables: dict[str, str], tmp_path: Path
) -> None:
    variables["KIRANA_INTERACTIONS"] = "lmdb:///from/variable"
    found = variables | evaluated(
        variables, folder, "--features", "memory://", "--models", str(tmp_path / "models")
    )
    assert found["KIRANA_FEATURES"] == "memory://"
    assert found["KIRANA_MODELS"] == f"file://{tmp_path}/models"
    assert found["KIRANA_INTERACTIONS"] == "lmdb:///from/variable"


def printed(variables: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [*KIRANA, "env", *arguments]
    return subprocess.run(command, env=variables, capture_output=True, text=True, check=False)


def test_every_line_is_an_export_even_on_a_narrow_terminal_of_many_colours(
    folder: Path, variables: dict[str, str]
) -> None:
    narrow = {**variables, "COLUMNS": "20", "FORCE_COLOR": "1", "TERM": "xterm-256color"}
    done = printed(narrow, str(folder))
    lines = done.stdout.splitlines()
    assert all(line.startswith("export ") for line in lines)
    assert {line.split()[1].split("=")[0] for line in lines} >= REQUIRED.keys()
    assert done.stdout == printed(variables, str(folder)).stdout


def test_the_secret_is_for_its_owner_only_and_stays(
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


def test_no_secret_is_printed(folder: Path, variables: dict[str, str]) -> None:
    done = printed(variables, str(folder))
    assert (folder / ".kirana/ray-token").read_text() not in done.stdout


def test_two_clusters_have_secrets_of_their_own(tmp_path: Path, variables: dict[str, str]) -> None:
    secrets = set()
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        printed(variables, str(tmp_path / name))
        secrets.add((tmp_path / name / ".kirana/ray-token").read_text())
    assert len(secrets) == 2


def test_the_secret_is_found_from_any_folder(
    folder: Path, variables: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    done = printed(variables, folder.name)
    assert f"export RAY_AUTH_TOKEN_PATH={folder}/.kirana/ray-token" in done.stdout


def test_a_directory_that_is_not_there_is_one_line_and_nothing_to_eval(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    done = printed(variables, str(tmp_path / "nothing"))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"error: there is no directory {tmp_path}/nothing\n"
    assert not (tmp_path / "nothing").exists()


def test_another_directory_is_named_anew_and_never_mixed(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    for folder in (one, other):
        folder.mkdir()
    variables |= {"KIRANA_CATALOG": f"dir://{one}", "KIRANA_FEATURES": "memory://"}
    found = subprocess.run(
        [*KIRANA, "env", str(other)], capture_output=True, text=True, check=True, env=variables
    )
    assert f"KIRANA_CATALOG=dir://{other}" in found.stdout
    assert f"KIRANA_FEATURES=lmdb://{other}" in found.stdout
    refused = subprocess.run(
        [*KIRANA, "check", str(other)], capture_output=True, text=True, check=False, env=variables
    )
    assert refused.returncode == 1
    assert f"KIRANA_CATALOG is dir://{one}, not {other}" in refused.stderr
