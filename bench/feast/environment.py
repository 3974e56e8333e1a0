"""A virtual environment for Feast, which keeps its dependencies separate from Kirana's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = Path(__file__).with_name("requirements.lock")
ENVIRONMENT = ROOT / ".cache" / "feast"
UV = ROOT / ".venv" / "bin" / "uv"


def feast_python() -> Path:
    """Return the interpreter of Feast's environment, after installing the locked packages.

    No-op if exactly these packages are installed already.
    """
    python = ENVIRONMENT / "bin" / "python"
    stamp = ENVIRONMENT / "installed.lock"
    lock = LOCK.read_text()
    if stamp.is_file() and stamp.read_text() == lock:
        return python
    print("installing Feast into .cache/feast (once)", file=sys.stderr, flush=True)
    create = [sys.executable, "-m", "venv", "--clear", "--without-pip", str(ENVIRONMENT)]
    subprocess.run(create, check=True)
    install = [str(UV), "pip", "install", "--quiet", "--require-hashes", "--compile-bytecode"]
    subprocess.run(
        [*install, "-r", str(LOCK)],
        check=True,
        env={**os.environ, "VIRTUAL_ENV": str(ENVIRONMENT)},
    )
    stamp.write_text(lock)
    return python
