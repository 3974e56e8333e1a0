"""The headers that Kirana reads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kirana.edge.errors import HttpError
from kirana.edge.protobuf import CONTENT_TYPE
from kirana.errors import InvalidInput

TIMEOUT_HEADER = b"x-kirana-timeout-ms"
REQUEST_ID_HEADER = b"x-request-id"
CALLER_HEADER = b"x-kirana-caller"
MAX_TIMEOUT_MS = 600_000


@dataclass(slots=True)
class Headers:
    """What the headers say; each is checked where it is used, so that every response has an id."""

    content_length: int = 0
    content_type: bytes | None = None
    accept: bytes = b""
    timeout: bytes | None = None
    request_id: bytes = b""
    traceparent: bytes = b""
    caller: bytes = b""

    def timeout_ms(self, default: int) -> int:
        """Return the time limit in ms. Raises `InvalidInput` if the header is not one."""
        value = self.timeout
        if value is None:
            return default
        short = value.isdigit() and len(value) <= len(str(MAX_TIMEOUT_MS))
        if not short or not 1 <= int(value) <= MAX_TIMEOUT_MS:
            raise InvalidInput(
                f"a timeout is 1 to {MAX_TIMEOUT_MS} ms", field=TIMEOUT_HEADER.decode()
            )
        return int(value)

    def binary(self, method: str, *, binary_route: bool) -> bool:
        """Return whether the body is Proto3. Raises `HttpError` if the route doesn't take it."""
        if self.content_type is None or method not in ("POST", "PUT"):
            return False
        return _is_binary(self.content_type, binary_route)

    def binary_reply(self, *, binary_route: bool) -> bool:
        return binary_route and CONTENT_TYPE in self.accept.lower()


_NAMES = {
    b"content-type": "content_type",
    b"accept": "accept",
    TIMEOUT_HEADER: "timeout",
    REQUEST_ID_HEADER: "request_id",
    b"traceparent": "traceparent",
    CALLER_HEADER: "caller",
}


def read_headers(pairs: Iterable[tuple[bytes, bytes]]) -> Headers:
    """Read what has a meaning here; names are in lower case."""
    found = Headers()
    for name, value in pairs:
        if name == b"content-length" and value.isdigit():
            digits = value.lstrip(b"0") or b"0"
            found.content_length = int(digits) if len(digits) <= 15 else 1 << 60
        elif name in _NAMES:
            setattr(found, _NAMES[name], value)
    return found


def _is_binary(value: bytes, binary_route: bool) -> bool:
    content_type = value.split(b";")[0].strip().lower()
    if content_type == b"application/json":
        return False
    if content_type == CONTENT_TYPE and binary_route:
        return True
    known = "application/json" + (f" or {CONTENT_TYPE.decode()}" if binary_route else "")
    shown = value.decode("latin-1")[:60]
    raise HttpError(415, "unsupported_media_type", f"send {known}, not '{shown}'")
