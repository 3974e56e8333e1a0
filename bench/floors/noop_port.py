"""The no-op of `bench.floors.noop` on a port of its own, without Serve, as on a direct port."""

from __future__ import annotations

import socket
import sys
import threading

import uvicorn

from bench.floors.noop import Constant


def main(reply_bytes: int) -> None:
    """Print the port, and serve until standard input is closed."""
    bound = socket.socket()
    bound.bind(("127.0.0.1", 0))
    config = uvicorn.Config(
        Constant(b"x" * reply_bytes),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
    )
    server = uvicorn.Server(config)

    def stop_at_end_of_input() -> None:
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=stop_at_end_of_input, daemon=True).start()
    print(bound.getsockname()[1], flush=True)
    server.run(sockets=[bound])


if __name__ == "__main__":
    main(int(sys.argv[1]))
