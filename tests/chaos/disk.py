"""A small disk that can be filled: a file system in memory, which only root can mount."""

from __future__ import annotations

import errno
import subprocess
from pathlib import Path

import pytest

BYTES = 512 << 20
CHUNK = bytes(1 << 20)


class SmallDisk:
    """A file system on a folder, during the `with` block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._filler = folder / "filler"

    def __enter__(self) -> SmallDisk:
        command = ["mount", "-t", "tmpfs", "-o", f"size={BYTES}", "tmpfs", str(self._folder)]
        completed = subprocess.run(command, capture_output=True, text=True)
        if completed.returncode:
            pytest.skip(f"no file system can be mounted here: {completed.stderr}")
        return self

    def __exit__(self, *_: object) -> None:
        subprocess.run(["umount", str(self._folder)], check=True)

    def fill(self) -> None:
        """Take all of the space that is left."""
        try:
            with self._filler.open("wb", buffering=0) as file:
                while file.write(CHUNK):
                    pass
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise

    def free(self) -> None:
        """Give the space back."""
        self._filler.unlink()
