"""A transport that sends the head of a reply together with its body."""

from __future__ import annotations

import asyncio
from typing import Any


class HeldHead(asyncio.Transport):
    """Wraps a transport. It holds the head of a reply until the body is written.

    uvicorn writes head and body one after the other, which costs a system call each.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head = b""
        # These don't touch what is held.
        self.is_closing = transport.is_closing  # type: ignore[method-assign]
        self.get_extra_info = transport.get_extra_info  # type: ignore[method-assign]
        self.pause_reading = transport.pause_reading  # type: ignore[method-assign]
        self.resume_reading = transport.resume_reading  # type: ignore[method-assign]

    def write(self, data: Any) -> None:
        """Hold the head of a reply; send other data, after the head that is held."""
        if not self._head and data[:9] == b"HTTP/1.1 " and data[9:10] != b"1":
            self._head = data
        elif self._head:
            head, self._head = self._head, b""
            self._transport.writelines((head, data))
        else:
            self._transport.write(data)

    def flush(self) -> None:
        """Send the head that is held, for a reply without a body."""
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def close(self) -> None:
        """Send the head that is held, and close the connection."""
        self.flush()
        self._transport.close()

    def abort(self) -> None:
        """Close the connection at once."""
        self._transport.abort()
