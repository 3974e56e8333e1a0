"""A gate before a server, which can cut off one process."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable

import psutil

CHUNK_BYTES = 1 << 16


class Gate:
    """Forwards connections to a port of this machine during the `with` block.

    A process that is cut off keeps its connections and may open new ones, but no byte goes through
    them, as if a switch between it and the server had failed. `port` is that of the gate.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._open: dict[int, asyncio.Event] = {}
        """Of each connection, by the port of its client: whether bytes go through."""
        self._cut_off: int | None = None
        self.port = 0

    def __enter__(self) -> Gate:
        self._thread.start()
        self._run(self._listen)
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self._close)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def cut_off(self, pid: int) -> Callable[[], None]:
        """Cut off a process, and return the function that lets it through again."""
        self._run(self._cut, pid)
        return lambda: self._run(self._mend)

    def _run(self, call: Callable[..., object], *arguments: object) -> None:
        """Run a coroutine function in the thread of the gate, and wait for its end."""
        asyncio.run_coroutine_threadsafe(call(*arguments), self._loop).result()  # type: ignore[arg-type]

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._forward, "127.0.0.1")
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _cut(self, pid: int) -> None:
        self._cut_off = pid
        for port in _ports_of(pid) & self._open.keys():
            self._open[port].clear()

    async def _mend(self) -> None:
        self._cut_off = None
        for is_open in self._open.values():
            is_open.set()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        port = writer.get_extra_info("peername")[1]
        is_open = self._open[port] = asyncio.Event()
        if self._cut_off is None or port not in _ports_of(self._cut_off):
            is_open.set()
        server_writer: asyncio.StreamWriter | None = None
        try:
            await is_open.wait()
            server_reader, server_writer = await asyncio.open_connection(
                "127.0.0.1", self._target_port
            )
            async with asyncio.TaskGroup() as group:
                group.create_task(_copy(reader, server_writer, is_open))
                group.create_task(_copy(server_reader, writer, is_open))
        except* OSError:
            pass  # The server is down, or an end was killed.
        finally:
            del self._open[port]
            writer.close()
            if server_writer is not None:
                server_writer.close()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, is_open: asyncio.Event
) -> None:
    """Copy bytes until the end of the stream, while the gate is open."""
    while chunk := await reader.read(CHUNK_BYTES):
        await is_open.wait()
        writer.write(chunk)
        await writer.drain()
    await is_open.wait()
    writer.close()


def _ports_of(pid: int) -> set[int]:
    """Return the ports from which a process has connected; none if it is gone."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return {c.laddr.port for c in psutil.Process(pid).net_connections("tcp") if c.laddr}
    return set()
