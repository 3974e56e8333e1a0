"""`kirana[client]` installed in a new environment works, and does not install Ray."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import httpx

REPOSITORY = Path(__file__).parents[3]


def test_the_client_works_without_ray(client: httpx.Client, tmp_path: Path) -> None:
    environment = tmp_path / "venv"
    uv = str(Path(sys.executable).with_name("uv"))
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(environment)], check=True)
    python = environment / "bin" / "python"
    command = [uv, "pip", "install", "--quiet", "--python", str(python), f"{REPOSITORY}[client]"]
    subprocess.run(command, check=True)
    program = (
        "import importlib.util, sys\n"
        "from kirana.client import Client\n"
        "assert importlib.util.find_spec('ray') is None\n"
        "import kirana.client.handles\n"
        "with Client(sys.argv[1]) as kirana:\n"
        "    ranking = kirana.infer('ranker', {'user_id': 7, 'product_id': [1, 2]}, matrix=True)\n"
        "    print(ranking.matrix.shape, ranking.matrix.dtype, sorted(ranking.ids))\n"
    )
    completed = subprocess.run(
        [str(python), "-c", program, str(client.base_url)],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert completed.returncode == 0, completed.stderr
    assert completed.stdout == "(2, 7) float32 ['1', '2']\n"
