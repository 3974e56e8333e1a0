"""MovieLens 100K, taken out of a wheel that carries it: pinned by hash, never imported.

Its licence does not allow to redistribute it, so it stays in a cache that git ignores.
"""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from kirana.errors import Unavailable

FILES = ("ml-100k.inter", "ml-100k.item", "ml-100k.user")
_INSIDE = "recbole/dataset_example/ml-100k/"
_LOCK = Path(__file__).with_name("movielens.lock")


def download_movielens(cache: Path) -> Path:
    """Return the folder with the three files, fetched by pip if they are not there yet.

    Raises `Unavailable` with pip's own words if it can't be had.
    """
    folder = cache / "movielens"
    if all((folder / name).is_file() for name in FILES):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    done = subprocess.run(
        [*command, "--dest", str(folder), "--requirement", str(_LOCK)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise Unavailable(f"pip can't fetch the wheel with MovieLens 100K:\n{done.stderr.strip()}")
    wheel = next(folder.glob("recbole-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            beside = folder / f".{name}"
            beside.write_bytes(archive.read(_INSIDE + name))
            beside.rename(folder / name)
    wheel.unlink()
    return folder
