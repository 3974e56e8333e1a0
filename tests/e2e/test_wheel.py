"""Kirana as people install it: the wheel, in an environment that has nothing else of ours."""

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
    """An environment with the wheel; `before` are the names in site-packages without it."""

    environment: Path
    before: set[str]

    @property
    def packages(self) -> Path:
        (found,) = self.environment.glob("lib/python*/site-packages")
        return found

    def command(self, name: str) -> str:
        return str(self.environment / "bin" / name)

    def python(self, program: str, folder: Path) -> str:
        words = [self.command("python"), "-c", program]
        done = subprocess.run(words, capture_output=True, text=True, check=False, cwd=folder)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    environment = tmp_path_factory.mktemp("wheel") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    made = Installed(environment, set())
    uv = Path(sys.executable).with_name("uv")
    install = [str(uv), "pip", "install", "--quiet", "--no-deps", "--python"]
    install.append(made.command("python"))
    locked = ["--compile-bytecode", "-r", str(REPOSITORY / "requirements" / "runtime.lock")]
    subprocess.run([*install, *locked], check=True)
    made.before = {each.name for each in made.packages.iterdir()}
    subprocess.run([*install, "--compile-bytecode", str(REPOSITORY)], check=True)
    return made


def test_all_that_comes_into_site_packages_is_one_package(installed: Installed) -> None:
    brought = {each.name for each in installed.packages.iterdir()} - installed.before
    assert {name.partition("-")[0] for name in brought} == {"kirana"}
    assert len(brought) == 2


@pytest.mark.parametrize("file", ["serve_config.yaml", "serve_config_fused.yaml"])
def test_what_the_shipped_configurations_import_is_there(
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
def said_by_demo(installed: Installed, tmp_path: Path) -> Iterator[str]:
    """Run the demo from the wheel, far from any checkout, and return what it says."""
    log = tmp_path / "said"
    options = f"--keep --points 50 --train-points 200 --port {free_ports(1)[0]}"
    words = [installed.command("kirana"), "demo", *options.split()]
    words += ["--cache", str(REPOSITORY / ".cache"), "--workdir", str(tmp_path / "work")]
    words += ["--report", str(tmp_path / "report.json")]
    with log.open("wb") as output, one_at_a_time():
        process = subprocess.Popen(words, stdout=output, stderr=subprocess.STDOUT, cwd=tmp_path)

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


def test_the_demo_ranks_films_from_the_wheel(said_by_demo: str) -> None:
    (flow, *_) = [line for line in said_by_demo.splitlines() if "/v1/flows/" in line]
    done = subprocess.run(shlex.split(flow), capture_output=True, text=True, check=True)
    assert len(json.loads(done.stdout)["output"]["ids"]) == 20
