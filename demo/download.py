"""Download of MovieLens 100K, which is contained in a Python wheel.

The wheel is pinned by its hash, and is never imported. The licence of the data does not allow
redistribution, so the files stay in a cache folder that git ignores.
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
    """Return the folder in `cache` that has the `FILES`. Download them first if one is missing.

    Block while pip runs. Raise `Unavailable` with the output of pip if it fails.
    """
    folder = cache / "movielens"
    if all((folder / name).is_file() for name in FILES):
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes"]
    process = subprocess.run(
        [*command, "--dest", str(folder), "--requirement", str(_LOCK)],
        capture_output=True,
        text=True,
        check=False,
    )
    if process.returncode:
        raise Unavailable(
            f"pip can't download the wheel with MovieLens 100K:\n{process.stderr.strip()}"
        )
    wheel = next(folder.glob("recbole-*.whl"))
    with zipfile.ZipFile(wheel) as archive:
        for name in FILES:
            temporary = folder / f".{name}"
            temporary.write_bytes(archive.read(_INSIDE + name))
            temporary.rename(folder / name)
    wheel.unlink()
    return folder
