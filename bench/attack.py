"""Requests at a constant rate, from vegeta, a compiled generator.

The rate does not fall when the server is slow, so the requests that would wait are measured too.
"""

from __future__ import annotations

import base64
import csv
import json
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import numpy.typing as npt

from kirana.errors import ConfigurationError

TIMEOUT_S = 30


@dataclass(frozen=True, slots=True)
class Target:
    """A request to send."""

    url: str
    body: bytes = b""
    method: str = "POST"
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Replies:
    """The status and the milliseconds of each request. The status is 0 if there was no reply."""

    status: npt.NDArray[np.int64]
    ms: npt.NDArray[np.float64]

    def p99_ms(self, status: int | None = None) -> float:
        """Return the 99th percentile of all replies, or of those with `status`."""
        ms = self.ms if status is None else self.ms[self.status == status]
        return float(np.percentile(ms, 99)) if len(ms) else float("inf")

    def counts(self) -> dict[int, int]:
        """Return how many replies had each status."""
        values, counts = np.unique(self.status, return_counts=True)
        return dict(zip(values.tolist(), counts.tolist(), strict=True))


class Attack(AbstractContextManager["Attack"]):
    """Sends `targets` in turn, `per_s` per second for `seconds`. It begins with the block.

    Raise `ConfigurationError` if vegeta is not installed.
    """

    def __init__(self, targets: Sequence[Target], per_s: float, seconds: float) -> None:
        if shutil.which("vegeta") is None:
            raise ConfigurationError("this benchmark needs vegeta: run it as 'make bench'")
        self._lines = b"".join(_line(target) for target in targets)
        # vegeta takes whole numbers: so many requests per 1,000 seconds.
        self._options = [f"-rate={round(per_s * 1000)}/1000s", f"-duration={seconds}s"]

    def __enter__(self) -> Attack:
        self._folder = tempfile.TemporaryDirectory(prefix="attack-")
        folder = Path(self._folder.name)
        (folder / "targets").write_bytes(self._lines)
        command = ["vegeta", "attack", "-format=json", f"-targets={folder / 'targets'}"]
        command += [f"-output={folder / 'results'}", f"-timeout={TIMEOUT_S}s", "-max-body=0"]
        self._process = subprocess.Popen([*command, *self._options])
        return self

    def replies(self) -> Replies:
        """Wait for the end, and return the replies."""
        self._process.wait()
        results = Path(self._folder.name, "results")
        text = subprocess.run(
            ["vegeta", "encode", "-to=csv", str(results)], capture_output=True, check=True
        ).stdout.decode()
        rows = [(int(row[1]), int(row[2]) / 1e6) for row in csv.reader(text.splitlines())]
        status, ms = zip(*rows, strict=True)
        return Replies(np.array(status), np.array(ms))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.terminate()
        self._process.wait()
        self._folder.cleanup()


def _line(target: Target) -> bytes:
    headers = {"content-type": "application/json", **(target.headers or {})}
    line = json.dumps(
        {
            "method": target.method,
            "url": target.url,
            "body": base64.b64encode(target.body).decode(),
            "header": {name: [value] for name, value in headers.items()},
        }
    )
    # vegeta ignores a last line without a newline.
    return line.encode() + b"\n"
