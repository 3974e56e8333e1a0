"""Kirana installed from its wheel, in an environment without a checkout."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from kirana.serving.environment import free_ports
from tests.e2e.starts import one_at_a_time
from tests.waiting import wait_for

REPOSITORY = Path(__file__).parents[2]
TIMEOUT_S = 300


@dataclass
class Installed:
    """An environment with the wheel. `before` are the names in site-packages before the wheel."""

    environment: Path
    before: set[str]

    @property
    def packages(self) -> Path:
        (folder,) = self.environment.glob("lib/python*/site-packages")
        return folder

    def command(self, name: str) -> str:
        return str(self.environment / "bin" / name)

    def python(self, program: str, folder: Path) -> str:
        command = [self.command("python"), "-c", program]
        completed = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
        assert completed.returncode == 0, completed.stderr
        return completed.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = tmp_path_factory.mktemp("wheel") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    result = Installed(environment, set())
    uv = Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "--quiet", "--no-deps", "--python"]
    install.append(result.command("python"))
    locked_packages = [
        "--compile-bytecode",
        "-r",
        str(REPOSITORY / "requirements" / "runtime.lock"),
    ]
    subprocess.run([*install, *locked_packages], check=True)
    result.before = {path.name for path in result.packages.iterdir()}
    subprocess.run([*install, "--compile-bytecode", str(REPOSITORY)], check=True)
    return result


def test_the_wheel_adds_one_package_to_site_packages(installed: Installed) -> None:
    added = {path.name for path in installed.packages.iterdir()} - installed.before
    assert {name.partition("-")[0] for name in added} == {"kirana"}
    assert len(added) == 2


@pytest.mark.parametrize("file", ["serve_config.yaml", "serve_config_fused.yaml"])
def test_import_paths_of_the_shipped_configurations_exist(
    installed: Installed, file: str, tmp_path: Path
) -> None:
    (application,) = yaml.safe_load((REPOSITORY / file).read_text())["applications"]
    paths = [application["import_path"]]
    for deployment in application.get("deployments", ()):
        policy = deployment.get("autoscaling_config", {}).get("policy", {})
        paths += filter(None, [policy.get("policy_function")])
    for path in paths:
        module, name = path.split(":")
        program = f"import {module}; print(callable({module}.{name}))"
        assert installed.python(program, tmp_path) == "True\n"


@pytest.fixture
def demo_output(installed: Installed, tmp_path: Path) -> Iterator[str]:
    """Run the demo from the wheel, outside of any checkout, and yield its output."""
    log = tmp_path / "output"
    options = f"--keep --points 50 --train-points 200 --port {free_ports(1)[0]}"
    command = [installed.command("kirana"), "demo", *options.split()]
    command += ["--cache", str(REPOSITORY / ".cache"), "--workdir", str(tmp_path / "work")]
    command += ["--report", str(tmp_path / "report.json")]
    with log.open("wb") as output, one_at_a_time():
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path)

        def up() -> bool:
            assert process.poll() is None, log.read_text()
            return "stays up at" in log.read_text()

        try:
            wait_for(up, log.read_text, timeout_s=TIMEOUT_S)
        except BaseException:
            process.terminate()
            process.wait(90)
            raise
    yield log.read_text()
    process.terminate()
    assert process.wait(90) in (0, 130, 143)


def test_the_demo_of_the_wheel_ranks_films(demo_output: str) -> None:
    (flow, *_) = [line for line in demo_output.splitlines() if "/v1/flows/" in line]
    completed = subprocess.run(shlex.split(flow), capture_output=True, text=True, check=True)
    assert len(json.loads(completed.stdout)["output"]["ids"]) == 20
