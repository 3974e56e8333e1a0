"""An S3 server on a free port, with its objects in memory."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import httpx
from pyarrow import fs

from kirana.serving.environment import free_ports
from tests.waiting import wait_for

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "an-access-key", "AWS_SECRET_ACCESS_KEY": "a-secret"}
"""The variables from which clients take their credentials. The server accepts any."""


class S3Server:
    """A server that runs during the `with` block."""

    def __init__(self, folder: Path) -> None:
        (self._port,) = free_ports(1)
        self._log = folder / "log"

    def __enter__(self) -> S3Server:
        program = Path(sys.executable).with_name("moto_server")
        command = [str(program), "-H", "127.0.0.1", "-p", str(self._port)]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log)
        wait_for(self._answers, self._log.read_text, ignoring=httpx.HTTPError)
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """Kill the server, which may be paused."""
        self._process.kill()
        self._process.wait()

    def _answers(self) -> bool:
        assert self._process.poll() is None, self._log.read_text()
        return httpx.get(f"http://127.0.0.1:{self._port}/").status_code == 200

    def url(self, path: str) -> str:
        """Return the URL of a bucket, or of a path in it, without credentials."""
        return f"s3://{path}?scheme=http&endpoint_override=127.0.0.1:{self._port}&region=us-east-1"

    def files(self) -> fs.S3FileSystem:
        """Return a file system that may make buckets. It needs `CREDENTIALS`."""
        return fs.S3FileSystem(
            scheme="http",
            region="us-east-1",
            endpoint_override=f"127.0.0.1:{self._port}",
            allow_bucket_creation=True,
        )

    def pause(self) -> None:
        """Stop the process: connections stay open, but requests get no answer."""
        self._process.send_signal(signal.SIGSTOP)
